"""Receipts that are credited together, on a real Postgres: each as it would be alone, exactly once, whoever else comes.

A page, a receipt alone (which pump, sweep and a page's special receipt all start) and a user who pays inside meet at
the invoice's row. What is booked is looked at as users and operators do: over the API.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from engine.bank.rulebook import read_current, set_in_tx
from engine.contracts.invoice import MAX_RECEIPTS, Receipt, ReceiptPage, ReceiptVerdict
from engine.domain.ids import PaymentHash
from engine.domain.money import Msat
from engine.ledger.account import get_account_id
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import CAPITAL, SUSPENSE_IN
from engine.ledger.database import transaction
from engine.ledger.store import post_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Json, User
from tests.helpers.payer import NODE, Payers, running_payers

pytestmark = pytest.mark.integration

CREDITED, KNOWN, LEFT_ALONE = ReceiptVerdict.CREDITED, ReceiptVerdict.KNOWN, ReceiptVerdict.LEFT_ALONE
PAGE_ID = "receipts-lnd-1-test"


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    """The rules of the books hold at its end."""
    async with running_payers(ledger_db, tmp_path_factory.mktemp("api")) as payers:
        yield payers


async def invoices(user: User, *amounts_msat: int) -> list[Json]:
    asked = [{"wallet_id": user.wallet_id, "amount_msat": amount_msat} for amount_msat in amounts_msat]
    return [(await user.post("/v1/invoices", body)).json() for body in asked]


def receipt(payment_hash: str, amount_msat: int) -> Receipt:
    return Receipt(payment_hash=PaymentHash(payment_hash), node=NODE, received_msat=Msat(amount_msat))


def paid(made: Json, extra_msat: int = 0) -> Receipt:
    return receipt(made["payment_hash"], made["amount_msat"] + extra_msat)


async def credit_page(bank: Payers, receipts: Sequence[Receipt], workflow_id: str = PAGE_ID) -> list[ReceiptVerdict]:
    """As a worker does it for the workflow with this id."""
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_id=workflow_id)
    credited = await environment.run(bank.receipts.credit_receipts, ReceiptPage(receipts=list(receipts)))
    return list(credited.verdicts)


async def shown(user: User, made: Json) -> tuple[str, int]:
    found = (await user.get(f"/v1/invoices/{made['id']}")).json()
    return found["status"], found["received_msat"]


async def story(bank: Payers, payment_hash: str, suffix: str = "") -> Any:
    """The transfer as operators see it; None when there is none."""
    answer = await bank.api.http.get(f"/v1/admin/ledger/transfers/ln:{payment_hash}:recv{suffix}", headers=ADMIN)
    return answer.json() if answer.status_code == 200 else None


async def test_each_of_a_page_is_credited_for_what_was_really_paid_less_our_fee(bank: Payers) -> None:
    async with transaction(bank.pool) as conn:
        version = (await read_current(conn, "fees")).version + 1
        content = {"lightning_in": [{"exempt": {"levels": [3]}}, {"proportional_ppm": 10_000}]}
        await set_in_tx(conn, "fees", content, version=version, note="test", set_by="test")
    alice, bob = await bank.api.open_account(), await bank.api.open_account(level=3)
    made, free = await invoices(alice, 100_000, 200_000), await invoices(bob, 50_000)
    page = [paid(made[0]), paid(free[0]), paid(made[1], extra_msat=30_000)]
    assert await credit_page(bank, page) == [CREDITED] * 3
    assert [await shown(alice, each) for each in made] == [("settled", 100_000), ("settled", 230_000)]
    assert (await alice.available(), await bob.available()) == (330_000 - 3_300, 50_000)
    fees = [(await alice.get(f"/v1/invoices/{each['id']}")).json()["fee_msat"] for each in made]
    assert fees == [1_000, 2_300]
    told = await story(bank, made[1]["payment_hash"])
    assert [step["workflow_id"] for step in told["steps"]] == [PAGE_ID]
    assert (told["invoice_ids"], told["payment_ids"]) == ([made[1]["id"]], [])
    moved = (await alice.get(f"/v1/wallets/{alice.wallet_id}/transactions")).json()["items"]
    assert [(each["kind"], each["direction"], each["amount_msat"], each["fee_msat"]) for each in moved] == [
        ("invoice", "in", 230_000, 2_300),
        ("invoice", "in", 100_000, 1_000),
    ]
    statement = (await alice.get(f"/v1/wallets/{alice.wallet_id}/statement")).json()
    assert statement["closing_msat"] == 326_700


async def test_a_special_receipt_leaves_no_trace_and_its_neighbours_are_credited(bank: Payers) -> None:
    """Afterwards its own workflow books it as ever."""
    alice, bob, gone = [await bank.api.open_account() for _ in range(3)]
    await bank.fund(bob, 100_000)
    plain, twice, known, late = await invoices(alice, 1_000, 2_000, 3_000, 4_000)
    (closed,) = await invoices(gone, 5_000)
    inside = await bank.outcome(bob, None, 2_000, bolt11=twice["bolt11"], payment_hash=twice["payment_hash"])
    assert inside == "settled"
    assert (await bank.receive(known["payment_hash"], 3_000)).credited
    await bank.api.database.execute("UPDATE bank.invoices SET status = 'expired' WHERE id = $1", late["id"])
    closing = await bank.api.http.patch(f"/v1/admin/accounts/{gone.id}", json={"status": "closed"}, headers=ADMIN)
    assert closing.status_code == 200, closing.text
    nobodys = receipt(secrets.token_hex(32), 6_000)
    page = [paid(twice), nobodys, paid(plain), paid(known), paid(closed), paid(late)]
    assert await credit_page(bank, page) == [LEFT_ALONE, LEFT_ALONE, CREDITED, KNOWN, LEFT_ALONE, CREDITED]
    assert await alice.available() == 1_000 + 2_000 + 3_000 + 4_000
    assert await story(bank, twice["payment_hash"], ":outside") is None
    assert [await story(bank, each.payment_hash) for each in (nobodys, paid(closed))] == [None, None]
    assert await shown(alice, late) == ("settled", 4_000)
    again = await bank.receipts.credit_receipt(paid(twice))
    assert (again.credited, again.paid_twice) == (True, True)
    for special in (nobodys, paid(closed)):
        booked = await bank.receipts.credit_receipt(special)
        assert (booked.credited, booked.wallet_id) == (True, None)
    assert await credit_page(bank, page) == [KNOWN, LEFT_ALONE, KNOWN, KNOWN, LEFT_ALONE, KNOWN]
    assert await alice.available() == 10_000 + 2_000


async def test_a_page_again_and_pages_that_overlap_credit_nothing_twice(bank: Payers) -> None:
    """The cursor had not moved: the node tells it again, and perhaps more with it."""
    alice = await bank.api.open_account()
    page = [paid(made) for made in await invoices(alice, *range(1_000, 1_012))]
    assert await credit_page(bank, page[:6]) == [CREDITED] * 6
    assert await credit_page(bank, page[:6]) == [KNOWN] * 6
    assert await credit_page(bank, page[3:], "receipts-lnd-1-more") == [KNOWN] * 3 + [CREDITED] * 6
    assert await alice.available() == sum(range(1_000, 1_012))
    told = [(await story(bank, each.payment_hash))["steps"][0]["workflow_id"] for each in page]
    assert told == [PAGE_ID] * 6 + ["receipts-lnd-1-more"] * 6


async def test_a_receipt_that_is_in_a_page_twice_is_credited_once(bank: Payers) -> None:
    alice = await bank.api.open_account()
    made = await invoices(alice, 1_000, 2_000)
    assert await credit_page(bank, [paid(made[0]), paid(made[1]), paid(made[0])]) == [CREDITED] * 3
    assert await alice.available() == 3_000
    assert await shown(alice, made[0]) == ("settled", 1_000)


async def test_pages_and_single_receipts_at_once_credit_each_once(bank: Payers) -> None:
    """Pump, sweep and whoever else finds it: all at the same moment, in any order."""
    users = [await bank.api.open_account() for _ in range(3)]
    for _ in range(3):
        made = [each for user in users for each in await invoices(user, *range(500, 508))]
        before = [await user.available() for user in users]
        page = [paid(each) for each in made]
        pages = [page, page[::-1], page[5:20], page]
        verdicts, alone = await asyncio.gather(
            asyncio.gather(*(credit_page(bank, each, f"page-{number}") for number, each in enumerate(pages))),
            asyncio.gather(*(bank.receipts.credit_receipt(each) for each in page)),
        )
        fresh = sum(each is CREDITED for verdict in verdicts for each in verdict)
        assert fresh + sum(each.credited for each in alone) == len(page)
        assert not any(each is LEFT_ALONE for verdict in verdicts for each in verdict)
        assert [await user.available() - was for user, was in zip(users, before, strict=True)] == [
            sum(range(500, 508))
        ] * 3


async def test_a_user_who_pays_inside_while_a_page_comes_is_before_or_after_it(bank: Payers) -> None:
    alice, bob = await bank.api.open_account(), await bank.api.open_account()
    await bank.fund(bob, 1_000_000)
    for _ in range(4):
        made, other = await invoices(alice, 10_000, 7_000)
        before = await alice.available()
        inside, verdicts = await asyncio.gather(
            bank.outcome(bob, None, 10_000, bolt11=made["bolt11"], payment_hash=made["payment_hash"]),
            credit_page(bank, [paid(other), paid(made)]),
        )
        assert verdicts[0] is CREDITED
        assert (inside, verdicts[1]) in {("settled", LEFT_ALONE), ("invoice_already_paid", CREDITED)}
        await bank.receipts.credit_receipt(paid(made))
        ways = 2 if inside == "settled" else 1
        assert await alice.available() - before == 7_000 + ways * 10_000


async def test_one_that_contradicts_the_books_is_left_alone(bank: Payers) -> None:
    """Somebody has booked this hash as something else: its own workflow calls an operator."""
    alice = await bank.api.open_account()
    wrong, right = await invoices(alice, 1_000, 2_000)
    async with transaction(bank.pool) as conn:
        legs = [
            debit(await get_account_id(conn, CAPITAL), 1_000),
            credit(await get_account_id(conn, SUSPENSE_IN), 1_000),
        ]
        ref = f"ln:{wrong['payment_hash']}:recv"
        await post_in_tx(conn, Posting(ref=ref, template="test", phase="post", actor="test", legs=legs))
    page = [paid(wrong), paid(right), receipt((await invoices(alice, 3_000))[0]["payment_hash"], 0)]
    assert await credit_page(bank, page) == [LEFT_ALONE, CREDITED, LEFT_ALONE]
    assert await shown(alice, wrong) == ("open", 0)
    assert await alice.available() == 2_000


async def test_an_account_that_is_closed_at_this_very_moment_gets_nothing(bank: Payers, ledger_db: Database) -> None:
    """The page has read it as open and waits for its balance, which the closing holds."""
    alice, gone = await bank.api.open_account(), await bank.api.open_account()
    (plain,), (late,) = await invoices(alice, 1_000), await invoices(gone, 2_000)
    await bank.api.database.execute("UPDATE bank.invoices SET status = 'expired' WHERE id = $1", late["id"])
    operator = await asyncpg.connect(ledger_db.app_dsn)
    closing = operator.transaction()
    await closing.start()
    await operator.execute(
        "SELECT ledger.close_account(w.ledger_account_id) FROM bank.wallets w WHERE w.id = $1", gone.wallet_id
    )
    crediting = asyncio.create_task(credit_page(bank, [paid(late), paid(plain)]))
    pid = operator.get_server_pid()
    async with asyncio.timeout(30):
        while not await bank.api.database.fetchval(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND $1 = ANY(pg_blocking_pids(pid))", pid
        ):
            await asyncio.sleep(0.01)
    await closing.commit()
    await operator.close()
    assert await crediting == [LEFT_ALONE, CREDITED]
    assert (await bank.receipts.credit_receipt(paid(late))).wallet_id is None
    assert (await alice.available(), await gone.available()) == (1_000, 0)


async def test_the_largest_page_is_one_transaction(bank: Payers) -> None:
    alice = await bank.api.open_account()
    template = (await invoices(alice, 1_000))[0]
    made = [secrets.token_hex(32) for _ in range(MAX_RECEIPTS)]
    await bank.api.database.executemany(
        """INSERT INTO bank.invoices(id, account_id, wallet_id, node, bolt11, payment_hash, amount_msat, expires_at)
           SELECT 'inv_' || $1, account_id, wallet_id, node, $1, $1, amount_msat, expires_at
             FROM bank.invoices WHERE id = $2""",
        [(payment_hash, template["id"]) for payment_hash in made],
    )
    assert await credit_page(bank, [receipt(each, 1_000) for each in made]) == [CREDITED] * MAX_RECEIPTS
    assert await alice.available() == 1_000 * MAX_RECEIPTS
    commits = await bank.api.database.fetchval(
        """SELECT count(DISTINCT t.xmin::text) FROM ledger.transfers t WHERE t.workflow_id = $1""", PAGE_ID
    )
    assert commits == 1
