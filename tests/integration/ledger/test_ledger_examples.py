"""The examples of docs/ledger.md, posted by the code of today and found in the page as they are."""

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from activities.correction import Corrections
from engine.bank import invoice
from engine.bank.fee_schedule import FeeBook
from engine.bank.rulebook import set_in_tx
from engine.contracts.correction import DecideCorrection, Decision, Proposal
from engine.domain.correction import CorrectionKind, CorrectionStatus, transfer_refs
from engine.domain.fee import Charge, Kind
from engine.domain.ids import AccountId, CorrectionId, PaymentHash, new_id
from engine.domain.money import Msat
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import transaction
from engine.ledger.postings.receipt import credited
from engine.ledger.postings.suspense import unclaimed
from engine.ledger.store import post_in_tx
from engine.views.balance import list_entries
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, User, running_api
from tests.helpers.ledger.deposit import Depositor
from tests.helpers.teller import NODE, Teller, open_teller

pytestmark = pytest.mark.integration

FEES: dict[str, Any] = {
    "internal": [{"flat_msat": 10}],
    "lightning_out": [{"flat_msat": 100}],
    "lightning_in": [{"proportional_ppm": 1000}],
}
PAGE = (Path(__file__).parents[3] / "docs" / "ledger.md").read_text(encoding="utf-8")


@dataclass
class Story:
    """Alice, Bob and the teller, in a book of their own."""

    api: Api
    teller: Teller
    alice: User
    bob: User

    def named(self, code: str) -> str:
        return code.replace(self.alice.wallet_id, "alice").replace(self.bob.wallet_id, "bob")

    async def is_told(self, ref: str) -> None:
        """Assert that the page shows the entries of this transfer."""
        async with self.teller.pool.acquire() as conn:
            entries = await list_entries(conn, ref)
        entries.sort(key=lambda leg: (leg.layer, leg.amount_msat < 0, -abs(leg.amount_msat)))
        lines = [
            f"{leg.layer:7}  {'Dr' if leg.amount_msat > 0 else 'Cr'}  {self.named(leg.code):29} "
            f"{abs(leg.amount_msat):>18,}"
            for leg in entries
        ]
        block = "\n".join(["```", *lines, "```"])
        assert lines
        assert block in PAGE, block

    async def payment_hash(self, table: str, row_id: str) -> str:
        return str(await self.api.database.fetchval(f"SELECT payment_hash FROM bank.{table} WHERE id = $1", row_id))

    async def receive(self, payment_hash: str, amount_msat: int, *, beside_internal: bool) -> None:
        """Over Lightning, for an invoice that a user of ours has paid already or that we do not know."""
        async with transaction(self.teller.pool) as conn:
            row = await invoice.find_row_in_tx(conn, PaymentHash(payment_hash))
            receipt: dict[str, Any] = {
                "payment_hash": PaymentHash(payment_hash),
                "amount_msat": Msat(amount_msat),
                "channels": await self.teller.ids.load_channels(conn, NODE),
                "beside_internal": beside_internal,
                "workflow_id": "test",
            }
            ids = await self.teller.ids.load(conn)
            if row is None:
                await post_in_tx(conn, unclaimed(ids, **receipt))
                return
            await post_in_tx(conn, credited(ids, payee=row.ledger_account_id, charge=None, **receipt))
            await invoice.mark_received_in_tx(conn, [invoice.Received(invoice=row, amount_msat=Msat(amount_msat))])

    async def charge(self, kind: Kind, amount_msat: int) -> Charge:
        async with self.teller.pool.acquire() as conn:
            return await FeeBook().charge(conn, kind, Msat(amount_msat), level=0, version=2)


@pytest_asyncio.fixture
async def story(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Story]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        yield Story(api, await open_teller(api), await api.open_account(), await api.open_account())


async def test_the_page_about_the_books_shows_what_is_booked(story: Story) -> None:
    teller, alice, bob = story.teller, story.alice, story.bob
    await story.is_told("node:lnd-1:opening")
    received = await teller.receive(alice, 250_000)
    await story.is_told(f"ln:{await story.payment_hash('invoices', received)}:recv")
    row = await teller.hold(alice, 100_000, 1_000)
    await story.is_told(f"ln:{row.payment_hash}:hold:1")
    wallet = (await alice.get(f"/v1/wallets/{alice.wallet_id}")).json()
    assert (wallet["balance_msat"], wallet["available_msat"], wallet["held_msat"]) == (250_000, 149_000, 101_000)
    await teller.settle(row, 350)
    await story.is_told(f"ln:{row.payment_hash}:settle")
    row = await teller.hold(alice, 10_000, 100)
    await teller.release(row)
    await story.is_told(f"ln:{row.payment_hash}:void:1")
    await story.is_told(f"pay:{await teller.pay_user(alice, bob, 20_000)}")
    by_invoice = await teller.pay_user(alice, bob, 1_000, by_invoice=True)
    payment_hash = await story.payment_hash("payments", by_invoice)
    await story.is_told(f"ln:{payment_hash}:recv")
    await story.receive(payment_hash, 1_000, beside_internal=True)
    await story.is_told(f"ln:{payment_hash}:recv:outside")
    by_hand = secrets.token_hex(32)
    await story.receive(by_hand, 1_111_000, beside_internal=False)
    await story.is_told(f"ln:{by_hand}:recv")
    await check_fees_of_ours(story)
    await check_sums(story)
    await check_statement(story)


async def check_fees_of_ours(story: Story) -> None:
    """The worked numbers of the design among them: A=100,000 F=1,000 f=350 B=100."""
    teller, alice, bob = story.teller, story.alice, story.bob
    lines = [f'"{kind}": {json.dumps(steps)}' for kind, steps in FEES.items()]
    assert "{" + ",\n ".join(lines) + "}" in PAGE
    async with transaction(teller.pool) as conn:
        await set_in_tx(conn, "fees", FEES, version=2, note="example", set_by="test")
    received = await teller.receive(alice, 300_000, charge=await story.charge("lightning_in", 300_000))
    await story.is_told(f"ln:{await story.payment_hash('invoices', received)}:recv")
    row = await teller.hold(alice, 100_000, 1_000, charge=await story.charge("lightning_out", 100_000))
    assert (row.max_fee_msat, row.routing_cap_msat) == (1_100, 1_000)
    await story.is_told(f"ln:{row.payment_hash}:hold:1")
    await teller.settle(row, 350)
    await story.is_told(f"ln:{row.payment_hash}:settle")
    paid = await teller.pay_user(alice, bob, 20_000, charge=await story.charge("internal", 20_000))
    await story.is_told(f"pay:{paid}")


async def test_the_page_shows_what_operators_enter_by_hand(story: Story) -> None:
    alice, bob = (f"liab:user:{user.wallet_id}" for user in (story.alice, story.bob))
    await story.receive(secrets.token_hex(32), 1_111_000, beside_internal=False)
    await enter(story, CorrectionKind.CORRECTION, "income:ln-fee", alice, 350)
    await enter(story, CorrectionKind.CORRECTION, "suspense:in", bob, 1_111_000)
    await enter(story, CorrectionKind.CAPITAL, "asset:lnd:lnd-1:onchain", "equity:capital", 5_000_000)
    async with story.teller.pool.acquire() as conn:
        assert await find_broken_rules(conn) == []


async def test_the_page_shows_a_deposit(story: Story) -> None:
    depositor, alice = Depositor(story.teller.pool), story.alice
    steps = [{"flat_msat": 500_000}]
    assert json.dumps({"deposit": steps}) in PAGE
    await depositor.charge(steps)
    dropped = await depositor.see(alice, 50_000)
    await depositor.drop(dropped)
    found = await depositor.see(alice, 50_000)
    await story.is_told(f"{await outpoint(story, found)}:seen")
    await depositor.book(found, 100)
    await story.is_told(f"{await outpoint(story, found)}:conf:1")
    await story.teller.pay_user(alice, story.bob, 20_000_000)
    assert await depositor.take_back(found) == 20_000_000
    await story.is_told(f"{await outpoint(story, found)}:reorg:1")
    await depositor.show_again(found)
    await depositor.book(found, 101)
    await story.is_told(f"{await outpoint(story, found)}:conf:2")
    small, nobodys = await depositor.see(alice, 900, below_minimum=True), await depositor.see(None, 700)
    for each in (small, nobodys):
        await depositor.book(each, 102)
        await story.is_told(f"{await outpoint(story, each)}:conf:1")
    await depositor.release(small, to=alice)
    await story.is_told(f"{await outpoint(story, small)}:release:1")
    told = (await alice.get(f"/v1/wallets/{alice.wallet_id}/statement")).json()["movements"]
    lines = [f"{each['kind']}{each['amount_msat']:>15,}{each['balance_msat']:>15,}" for each in told]
    block = "\n".join(["```", *lines, "```"])
    assert block in PAGE, block
    async with story.teller.pool.acquire() as conn:
        assert await find_broken_rules(conn) == []


async def outpoint(story: Story, deposit: str) -> str:
    row = await story.api.database.fetchrow("SELECT txid, vout FROM bank.deposits WHERE id = $1", deposit)
    assert row is not None
    return f"chain:{row['txid']}:{row['vout']}"


async def enter(story: Story, kind: CorrectionKind, debit: str, credit: str, amount_msat: int) -> None:
    """Proposed, approved and posted by the activities of its workflow; then found on the page."""
    books = Corrections(story.teller.pool)
    correction = CorrectionId(new_id("corr"))
    proposal = Proposal(
        correction=correction,
        kind=kind,
        debit=debit,
        credit=credit,
        amount_msat=Msat(amount_msat),
        reason="an example",
        operator=AccountId("carol"),
        key_id="key_carol",
        idempotency_key=correction,
        body_hash="00" * 32,
    )
    word = Decision(operator=AccountId("dave"), key_id="key_dave", approve=True)
    for _ in range(2):
        await books.propose_correction(proposal)
        await books.decide_correction(DecideCorrection(correction=correction, decision=word))
        assert (await books.post_correction(correction)).status is CorrectionStatus.POSTED
        assert (await books.expire_correction(correction)).status is CorrectionStatus.POSTED
    for ref in transfer_refs(correction, kind, debit, credit):
        await story.is_told(ref)


async def check_sums(story: Story) -> None:
    told = (await story.api.http.get("/v1/admin/ledger/trial-balance", headers=ADMIN)).json()["accounts"]
    lines = sorted(f"{story.named(each['code']):29} {each['settled_msat']:>18,}" for each in told)
    block = "\n".join(["```", *lines, "```"])
    assert block in PAGE, block
    async with story.teller.pool.acquire() as conn:
        assert await find_broken_rules(conn) == []


async def check_statement(story: Story) -> None:
    told = (await story.alice.get(f"/v1/wallets/{story.alice.wallet_id}/statement")).json()
    lines = [f"opening {' ':13} {told['opening_msat']:>15,}"]
    lines += [f"{each['kind']} {each['amount_msat']:>14,}{each['balance_msat']:>15,}" for each in told["movements"]]
    lines.append(f"closing {' ':13} {told['closing_msat']:>15,}")
    block = "\n".join(["```", *lines, "```"])
    assert block in PAGE, block
