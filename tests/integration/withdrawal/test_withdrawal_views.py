"""Withdrawals among transactions, in statements and exports, in the history of a transfer, and as metrics."""

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.domain.ids import AccountId, PayoutId, WalletId, WithdrawalId
from engine.ledger.database import transaction
from engine.ledger.postings.payout import Sent, fee_changed
from engine.ledger.store import post_new_in_tx
from engine.views.metrics import read_figures
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import address_of, fill_pool
from tests.helpers.api import ADMIN, Json, User
from tests.helpers.limit import set_rules
from tests.helpers.withdrawal.teller import SAT, outside
from tests.helpers.withdrawal.window import Window, open_window

pytestmark = pytest.mark.integration

BALANCE = 10**9


@pytest_asyncio.fixture
async def window(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Window]:
    async with open_window(ledger_db, tmp_path) as window:
        fees = {"withdrawal": [{"flat_msat": 300_000}], "internal": [{"flat_msat": 1_500}]}
        await set_rules(window.bank.payers, "fees", fees)
        yield window


@pytest_asyncio.fixture
async def alice(window: Window) -> User:
    return await window.bank.user(BALANCE)


async def transactions(user: User, **query: str) -> list[Json]:
    answer = await user.get(f"/v1/wallets/{user.wallet_id}/transactions", **query)
    assert answer.status_code == 200, answer.text
    return [row for row in answer.json()["items"] if row["kind"] == "withdrawal"]


async def statement(user: User) -> list[Json]:
    """Its withdrawals; every balance is checked."""
    answer = await user.get(f"/v1/wallets/{user.wallet_id}/statement")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    balance = found["opening_msat"]
    for movement in found["movements"]:
        balance += movement["amount_msat"]
        assert movement["balance_msat"] == balance
    assert balance == found["closing_msat"]
    return [each for each in found["movements"] if each["kind"] == "withdrawal"]


async def pay_in_books(window: Window, payer: User, payee: User, **body: object) -> Json:
    await fill_pool(window.bank.payers.api.database, 1, start=7)
    await window.bank.payers.api.database.execute(
        """UPDATE bank.addresses SET wallet_id = $2, account_id = $3, purpose = 'api', given_at = clock_timestamp()
            WHERE address = $1""",
        address_of(7),
        WalletId(payee.wallet_id),
        AccountId(payee.id),
    )
    return await window.asked(payer, address=address_of(7), **body)


async def test_each_state_of_a_withdrawal_is_a_transaction(window: Window, alice: User) -> None:
    sent = await window.asked(alice, memo="one")
    await window.sent(sent)
    queued = await window.asked(alice, amount_sat=20_000)
    sealed = await window.asked(alice, amount_sat=30_000)
    await window.bank.seal([WithdrawalId(sealed["id"])])
    gone = await window.asked(alice, amount_sat=40_000)
    await window.cancel(alice, gone["id"])
    found = await transactions(alice)
    assert [(row["id"], row["status"], row["amount_msat"], row["fee_msat"]) for row in found] == [
        (gone["id"], "cancelled", 40_000_000, 0),
        (sealed["id"], "pending", 30_000_000, 330_000 + 300_000),
        (queued["id"], "pending", 20_000_000, 0),
        (sent["id"], "settled", 100_000_000, 330_000 + 300_000),
    ]
    assert found[-1] == found[-1] | {"direction": "out", "memo": "one", "counterparty": outside()}
    assert [row["settled_at"] is not None for row in found] == [False, False, False, True]
    assert [row["id"] for row in await transactions(alice, status="settled", direction="out")] == [sent["id"]]
    assert await transactions(alice, direction="in") == []
    left = BALANCE - found[-1]["amount_msat"] - found[-1]["fee_msat"]
    assert (await alice.balance())[0] == left


async def test_a_user_who_is_paid_in_the_books_sees_who_paid_and_no_memo(window: Window, alice: User) -> None:
    bob = await window.bank.user(0)
    made = await pay_in_books(window, alice, bob, memo="private")
    (out,) = await transactions(alice)
    (into,) = await transactions(bob)
    assert out == out | {"direction": "out", "amount_msat": 100_000_000, "fee_msat": 1_500, "memo": "private"}
    assert into == into | {
        "id": f"{made['id']}.in",
        "direction": "in",
        "status": "settled",
        "amount_msat": 100_000_000,
        "fee_msat": 0,
        "memo": None,
        "counterparty": f"wallet:{alice.wallet_id}",
        "reference": made["id"],
    }
    assert out["settled_at"] is not None
    (line,) = await statement(bob)
    assert (line["amount_msat"], line["fee_msat"], line["memo"]) == (100_000_000, 0, None)
    assert (line["counterparty"], line["reference"]) == (f"wallet:{alice.wallet_id}", made["id"])
    (line,) = await statement(alice)
    assert (line["amount_msat"], line["fee_msat"], line["memo"]) == (-100_001_500, 1_500, "private")
    assert line["transfer"] == f"wd:{made['id']}:internal"


async def test_a_rest_below_one_satoshi_belongs_to_the_fee_of_whoever_withdraws_all(
    window: Window, alice: User
) -> None:
    await window.bank.payers.fund(alice, 777)
    made = await window.asked(alice, amount_sat=None, send_all=True)
    await window.sent(made)
    (row,) = await transactions(alice)
    assert row["amount_msat"] + row["fee_msat"] == BALANCE + 777
    assert row["fee_msat"] % SAT == 777
    (line,) = await statement(alice)
    assert (line["amount_msat"], line["balance_msat"], line["fee_msat"]) == (-BALANCE - 777, 0, row["fee_msat"])


async def test_withdrawals_of_one_payout_are_one_movement_of_a_wallet(window: Window, alice: User) -> None:
    bob = await window.bank.user(BALANCE)
    first, second = await window.asked(alice, memo="a"), await window.asked(alice, address=outside(1), memo="b")
    third = await window.asked(bob, memo="c")
    await window.sent(first, second, third)
    payout_id = (await window.show(alice, first["id"]))["batch_id"]
    (line,) = await statement(alice)
    assert line == line | {
        "amount_msat": -(200_000 + 220 + 600) * SAT,
        "fee_msat": (220 + 600) * SAT,
        "counterparty": "2 addresses",
        "memo": None,
        "reference": payout_id,
        "transfer": f"batch:{payout_id}:broadcast",
    }
    (line,) = await statement(bob)
    assert (line["counterparty"], line["memo"], line["reference"]) == (outside(), "c", third["id"])
    sheet = await alice.get(f"/v1/wallets/{alice.wallet_id}/statement", format="csv")
    kinds = [each["kind"] for each in csv.DictReader(io.StringIO(sheet.text, newline=""))]
    assert kinds.count("withdrawal") == 1


async def story(window: Window, ref: str) -> Json:
    answer = await window.bank.payers.api.http.get(f"/v1/admin/ledger/transfers/{ref}", headers=ADMIN)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def test_a_payout_and_its_changed_fees_have_one_history(window: Window, alice: User) -> None:
    made = await window.asked(alice)
    txid = await window.sent(made)
    payout_id = PayoutId((await window.show(alice, made["id"]))["batch_id"])
    async with transaction(window.bank.pool) as conn:
        sent = Sent(id=payout_id, txid=txid, fee_sat=990, workflow_id="w")  # type: ignore[arg-type]
        await post_new_in_tx(conn, fee_changed(await window.bank.ids.load(conn), sent, booked_sat=330, number=1))  # type: ignore[arg-type]
        await conn.execute("UPDATE bank.payouts SET bookings = 1, fee_booked_sat = 990 WHERE id = $1", payout_id)
    expected = [f"wd:{made['id']}:hold", f"batch:{payout_id}:broadcast", f"batch:{payout_id}:fee:1"]
    for ref in expected[1:]:
        told = await story(window, ref)
        assert [step["ref"] for step in told["steps"]] == expected
        assert (told["withdrawal_ids"], told["payout_ids"]) == ([made["id"]], [payout_id])
    told = await story(window, expected[0])
    assert [step["status"] for step in told["steps"]] == ["settled", "final"]
    gone = await window.asked(alice)
    await window.cancel(alice, gone["id"])
    told = await story(window, f"wd:{gone['id']}:void")
    assert [step["template"] for step in told["steps"]] == ["withdrawal_held", "withdrawal_given_back"]
    assert (told["withdrawal_ids"], told["payout_ids"], told["deposit_ids"]) == ([gone["id"]], [], [])


async def test_the_export_has_the_accounts_of_withdrawals(window: Window, alice: User) -> None:
    await window.sent(await window.asked(alice))
    answer = await window.bank.payers.api.http.get("/v1/admin/ledger/export", headers=ADMIN)
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    fees = [int(row["amount"]) for row in rows if row["account"] == "income:withdraw-fee"]
    assert fees == [-300_000]
    assert {row["template"] for row in rows} >= {"withdrawal_held", "payout_sent"}


async def test_metrics_count_what_waits(window: Window, alice: User) -> None:
    carol = await window.operator()
    await window.rules(carol, approval_above_sat=50_000)
    await window.asked(alice)
    held = await window.asked(alice, amount_sat=5_000, speed="fast")
    path = f"/v1/admin/withdrawals/{held['id']}/decisions"
    assert (await carol.post(path, {"kind": "hold", "reason": "x"})).status_code == 201
    sealed = await window.asked(alice, amount_sat=6_000)
    payout_id = await window.bank.seal([WithdrawalId(sealed["id"])])
    await window.bank.payers.api.database.execute("UPDATE bank.payouts SET problem = 'x' WHERE id = $1", payout_id)
    async with window.bank.pool.acquire() as conn:
        figures = await read_figures(conn)
    found = {(each.status, each.speed): each for each in figures.withdrawals}
    assert {key: (each.count, each.unapproved, each.on_hold) for key, each in found.items()} == {
        ("batched", "standard"): (1, 0, 0),
        ("queued", "fast"): (1, 0, 1),
        ("queued", "standard"): (1, 1, 0),
    }
    assert sum(each.held_msat for each in figures.withdrawals) == (await alice.balance())[1]
    (payouts,) = figures.payouts
    assert (payouts.status, payouts.count, payouts.problems, payouts.on_hold) == ("planned", 1, 1, 0)
    assert figures.reserved_coins == 1
