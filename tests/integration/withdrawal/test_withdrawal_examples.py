"""The examples of docs/ledger.md about withdrawals, posted by the code of today and found in the page as they are."""

import json
from pathlib import Path

import pytest

from engine.domain.ids import AccountId, PayoutId, Txid, WalletId
from engine.domain.money import Sat
from engine.ledger.book import Posting
from engine.ledger.database import transaction
from engine.ledger.postings.payout import Sent, broadcast, fee_changed
from engine.ledger.store import post_new_in_tx
from engine.views.balance import list_entries
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import address_of, fill_pool
from tests.helpers.api import User
from tests.helpers.limit import set_rules
from tests.helpers.withdrawal.teller import SAT, Withdrawers, running_withdrawers

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[3] / "docs" / "ledger.md").read_text(encoding="utf-8")
FEES = {"withdrawal": [{"flat_msat": 300_000}], "internal": [{"flat_msat": 1_000}]}


async def told(bank: Withdrawers, ref: str, names: dict[str, str]) -> None:
    """Assert that the page shows the entries of this transfer."""
    async with bank.pool.acquire() as conn:
        entries = await list_entries(conn, ref)
    assert entries, ref
    lines = []
    for leg in sorted(entries, key=lambda leg: (leg.layer, leg.amount_msat < 0, -abs(leg.amount_msat))):
        code = leg.code
        for wallet, name in names.items():
            code = code.replace(wallet, name)
        side = "Dr" if leg.amount_msat > 0 else "Cr"
        lines.append(f"{leg.layer:7}  {side}  {code:29} {abs(leg.amount_msat):>18,}")
    block = "\n".join(["```", *lines, "```"])
    assert block in PAGE, block


async def post(bank: Withdrawers, posting: Posting) -> str:
    async with transaction(bank.pool) as conn:
        await post_new_in_tx(conn, posting)
    return posting.ref


async def give_address(bank: Withdrawers, user: User) -> str:
    await fill_pool(bank.payers.api.database, 1, start=7)
    await bank.payers.api.database.execute(
        """UPDATE bank.addresses SET wallet_id = $2, account_id = $3, purpose = 'api', given_at = clock_timestamp()
            WHERE address = $1""",
        address_of(7),
        WalletId(user.wallet_id),
        AccountId(user.id),
    )
    return address_of(7)


async def test_the_page_about_the_books_shows_withdrawals(ledger_db: Database, tmp_path: Path) -> None:
    assert "{" + ",\n ".join(f'"{kind}": {json.dumps(steps)}' for kind, steps in FEES.items()) + "}" in PAGE
    async with running_withdrawers(ledger_db, tmp_path) as bank:
        await set_rules(bank.payers, "fees", FEES)
        alice, bob = await bank.user(200_000 * SAT), await bank.user(50_000 * SAT)
        names = {alice.wallet_id: "alice", bob.wallet_id: "bob"}
        first = await bank.opened(alice, 100_000, max_fee_sat=Sat(2_000))
        await told(bank, f"wd:{first}:hold", names)
        second = await bank.opened(bob, 50_000, fee_from="amount")
        await told(bank, f"wd:{second}:hold", names)
        made = await bank.seal([first, second], fee_sat=330)
        txid = await bank.sign(made)
        await bank.send(made)
        await told(bank, f"batch:{made}:broadcast", names)
        for ref in await change_fees(bank, made, txid):
            await told(bank, ref, names)
        third = await bank.opened(alice, 20_000, max_fee_sat=Sat(1_000))
        assert await bank.cancel(third) == "cancelled"
        await told(bank, f"wd:{third}:void", names)
        fourth = await bank.opened(alice, 10_000, address=await give_address(bank, bob))
        await told(bank, f"wd:{fourth}:internal", names)
        movements = (await alice.get(f"/v1/wallets/{alice.wallet_id}/statement")).json()["movements"][1:]
        lines = [f"{each['kind']}{each['amount_msat']:>15,}{each['balance_msat']:>15,}" for each in movements]
        block = "\n".join(["```", *lines, "```"])
        assert block in PAGE, block


async def change_fees(bank: Withdrawers, made: PayoutId, txid: Txid) -> list[str]:
    """A later version is in force, then the first one is confirmed after all; and a child pays nobody."""
    async with bank.pool.acquire() as conn:
        ids = await bank.ids.load(conn)
    dear = Sent(id=made, txid=txid, fee_sat=Sat(900), workflow_id="test")
    cheap = Sent(id=made, txid=txid, fee_sat=Sat(330), workflow_id="test")
    child = Sent(id=PayoutId("payout_child"), txid=Txid("c" * 64), fee_sat=Sat(400), workflow_id="test")
    return [
        await post(bank, fee_changed(ids, dear, booked_sat=Sat(330), number=1)),
        await post(bank, fee_changed(ids, cheap, booked_sat=Sat(900), number=2)),
        await post(bank, broadcast(ids, child, [])),
    ]
