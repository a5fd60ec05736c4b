"""What the books refuse, and at which amount exactly; closed accounts."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio

from engine.domain.errors import Refused
from engine.ledger.account import open_account_in_tx
from engine.ledger.book import MAX_LEG_MSAT, credit, debit
from engine.ledger.database import transaction
from engine.ledger.store import post_in_tx
from engine.views.balance import list_due_holds
from tests.fixtures.postgres import Database
from tests.helpers.ledger.bank import Bank, make, run_as, running_bank

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database) -> AsyncIterator[Bank]:
    async with running_bank(shared_ledger_db) as bank:
        yield bank


# Refusals


async def test_exactly_all_can_be_spent_and_one_more_cannot(bank: Bank) -> None:
    user = await bank.user(funds=100)
    with pytest.raises(Refused) as refusal:
        await bank.post("all:1", [debit(user, 101), credit(bank["channels"], 101)])
    assert refusal.value.code == "insufficient_funds"
    assert refusal.value.fields == {"account_id": user, "available": 100, "needed": 101}
    assert await bank.outcome("all:1", [debit(user, 100), credit(bank["channels"], 100)]) == "fresh"


async def test_a_refusal_in_a_savepoint_leaves_the_rest_of_the_transaction(bank: Bank) -> None:
    user = await bank.user(funds=100)
    async with transaction(bank.pool) as conn:
        with pytest.raises(Refused):
            async with conn.transaction():
                await post_in_tx(conn, make("save:no", [debit(user, 101), credit(bank["channels"], 101)]))
        await post_in_tx(conn, make("save:yes", [debit(user, 100), credit(bank["channels"], 100)]))
    assert await bank.balance(user) == (0, 0, 0)
    assert await bank.outcome("save:yes", [debit(user, 100), credit(bank["channels"], 100)]) == "repeat"


async def test_a_settle_stays_within_its_hold(bank: Bank) -> None:
    user, other = await bank.user(funds=1_000), await bank.user(funds=1_000)
    hold = [debit(user, 500), credit(bank["outbox"], 500)]
    await bank.post("within:hold", hold, "hold")
    attempts = {
        "more": [debit(user, 501), credit(bank["channels"], 501)],
        "backwards": [credit(user, 100), debit(bank["channels"], 100)],
        "from another user": [debit(user, 100), debit(other, 100), credit(bank["channels"], 200)],
        "without the one who promised": [debit(bank["loss"], 100), credit(bank["channels"], 100)],
    }
    for name, legs in attempts.items():
        outcome = await bank.outcome(f"within:{name}", legs, "settle", relates_to=["within:hold"])
        assert outcome == "posting_exceeds_target", name
    assert await bank.balance(user) == (500, 500, 0)
    to_another = [debit(user, 500), credit(other, 500)]
    assert await bank.outcome("within:ok", to_another, "settle", relates_to=["within:hold"]) == "fresh"


async def test_a_missing_hold_or_account_cannot_be_resolved_or_moved(bank: Bank) -> None:
    user = await bank.user(funds=10)
    await bank.post("a:post", [debit(user, 1), credit(bank["channels"], 1)])
    legs = [debit(user, 1), credit(bank["channels"], 1)]
    missing = "ledger_target_missing"
    assert await bank.outcome("v:1", phase="void", relates_to=["no such hold"]) == missing
    assert await bank.outcome("v:2", phase="void", relates_to=["a:post"]) == missing
    assert await bank.outcome("v:3", legs, "settle", relates_to=["a:post"]) == missing
    assert await bank.outcome("v:4", legs, "reverse", relates_to=["no such post"]) == missing
    assert await bank.outcome("v:5", [debit(user, 1), credit(999_999, 1)]) == missing


async def test_a_reversal_takes_back_at_most_what_there_was(bank: Bank) -> None:
    user, other = await bank.user(funds=1_000), await bank.user(funds=1_000)
    await bank.post("rev:1", [debit(user, 100), credit(bank["channels"], 100)])
    for name, legs in {
        "more": [credit(user, 101), debit(bank["channels"], 101)],
        "the same way": [debit(user, 100), credit(bank["channels"], 100)],
        "from another user": [credit(user, 100), debit(other, 100)],
    }.items():
        outcome = await bank.outcome(f"rev:{name}", legs, "reverse", relates_to=["rev:1"])
        assert outcome == "posting_exceeds_target", name
    await bank.post("rev:ok", [credit(user, 40), debit(bank["channels"], 40)], "reverse", relates_to=["rev:1"])


async def test_a_hold_expires_when_it_is_due_and_can_then_no_longer_be_settled(bank: Bank) -> None:
    user = await bank.user(funds=100)
    now = datetime.now(UTC)
    for ref, expires_at in (("due", now - timedelta(seconds=1)), ("later", now + timedelta(hours=1)), ("never", None)):
        legs = [debit(user, 10), credit(bank["payouts"], 10)]
        await bank.post(f"exp:{ref}", legs, "hold", expires_at=expires_at)
    async with bank.pool.acquire() as conn:
        assert await list_due_holds(conn) == ["exp:due"]
    settle = [debit(user, 10), credit(bank["hot"], 10)]
    assert await bank.outcome("exp:due:s", settle, "settle", relates_to=["exp:due"]) == "hold_expired"
    assert await bank.outcome("exp:later:e", phase="expire", relates_to=["exp:later"]) == "hold_not_due"
    assert await bank.outcome("exp:never:e", phase="expire", relates_to=["exp:never"]) == "hold_not_due"
    assert await bank.outcome("exp:due:e", phase="expire", relates_to=["exp:due"]) == "fresh"
    assert await bank.outcome("exp:later:v", phase="void", relates_to=["exp:later"]) == "fresh"
    assert await bank.outcome("exp:never:s", settle, "settle", relates_to=["exp:never"]) == "fresh"
    async with bank.pool.acquire() as conn:
        assert await list_due_holds(conn) == []
    assert await bank.balance(user) == (90, 0, 0)


async def test_currencies_balance_each_for_itself(bank: Bank) -> None:
    async with transaction(bank.pool) as conn:
        dollars = await open_account_in_tx(conn, "fx:USD", "equity", currency="USD", mode="append")
        bank_usd = await open_account_in_tx(conn, "asset:bank:usd", "asset", currency="USD", mode="append")
        coins = await open_account_in_tx(conn, "fx:BTC", "equity", mode="append")
    user = await bank.user(funds=100)
    assert await bank.outcome("fx:1", [debit(user, 100), credit(dollars, 100)]) == "posting_malformed"
    swap = [debit(user, 50), credit(coins, 50), debit(bank_usd, 7), credit(dollars, 7)]
    assert await bank.outcome("fx:2", swap) == "fresh"


async def test_an_effective_day_may_be_past_but_not_future(bank: Bank) -> None:
    user = await bank.user(funds=100)
    legs = [debit(user, 1), credit(bank["channels"], 1)]
    assert await bank.outcome("day:1", legs, effective_on=date(2020, 1, 1)) == "fresh"
    assert await bank.outcome("day:2", legs, effective_on=date(2999, 1, 1)) == "internal_error"


async def test_sums_beyond_64_bits_are_refused_whole(bank: Bank) -> None:
    user = await bank.user()
    legs = [debit(bank["channels"], MAX_LEG_MSAT), credit(user, MAX_LEG_MSAT)]
    outcomes = [await bank.outcome(f"big:{n}", legs) for n in range(5)]
    assert outcomes == ["fresh"] * 4 + ["internal_error"]
    back = [debit(user, MAX_LEG_MSAT), credit(bank["channels"], MAX_LEG_MSAT)]
    assert [await bank.outcome(f"small:{n}", back) for n in range(5)] == ["fresh"] * 4 + ["insufficient_funds"]


async def test_a_frozen_account_spends_nothing_new_but_receives_and_keeps_promises(
    bank: Bank, shared_ledger_db: Database
) -> None:
    user = await bank.user(funds=1_000)
    await bank.post("ice:hold", [debit(user, 100), credit(bank["outbox"], 100)], "hold")
    await run_as(shared_ledger_db.owner_dsn, f"SELECT ledger.set_frozen({user}, true)")
    spend = [debit(user, 1), credit(bank["channels"], 1)]
    assert await bank.outcome("ice:post", spend) == "account_locked"
    assert await bank.outcome("ice:hold:2", spend, "hold") == "account_locked"
    assert await bank.outcome("ice:recv", [debit(bank["channels"], 5), credit(user, 5)]) == "fresh"
    assert await bank.outcome("ice:settle", spend, "settle", relates_to=["ice:hold"]) == "fresh"
    await run_as(shared_ledger_db.owner_dsn, f"SELECT ledger.set_frozen({user}, false)")
    assert await bank.outcome("ice:post", spend) == "fresh"


async def test_a_closed_account_is_empty_and_stays_so(bank: Bank, shared_ledger_db: Database) -> None:
    user, dsn = await bank.user(funds=1_000), shared_ledger_db.app_dsn
    close = f"SELECT ledger.close_account({user})"
    with pytest.raises(asyncpg.PostgresError) as full:
        await run_as(dsn, close)
    assert full.value.sqlstate == "LD424"
    assert json.loads(full.value.detail or "") == {"balance": 1_000, "held": 0, "incoming": 0}
    await bank.post("bye:hold", [debit(user, 1_000), credit(bank["outbox"], 1_000)], "hold")
    with pytest.raises(asyncpg.PostgresError) as held:
        await run_as(dsn, close)
    assert json.loads(held.value.detail or "") == {"balance": 1_000, "held": 1_000, "incoming": 0}
    await bank.post(
        "bye:settle", [debit(user, 1_000), credit(bank["channels"], 1_000)], "settle", relates_to=["bye:hold"]
    )
    await run_as(dsn, close)
    await run_as(dsn, close)  # a repeat changes nothing
    receive = [debit(bank["channels"], 5), credit(user, 5)]
    assert await bank.outcome("bye:recv", receive) == "account_closed"
    assert await bank.outcome("bye:promise", receive, "hold") == "account_closed"
    assert await bank.outcome("bye:send", [debit(user, 1), credit(bank["channels"], 1)]) == "account_closed"


async def test_a_receipt_and_a_closing_at_once_come_one_after_the_other(bank: Bank) -> None:
    for n in range(10):
        user = await bank.user()
        receive = [debit(bank["channels"], 5), credit(user, 5)]

        async def close(user: int = user) -> str:
            try:
                await bank.pool.execute("SELECT ledger.close_account($1)", user)
            except asyncpg.PostgresError as error:
                return str(error.sqlstate)
            return "closed"

        outcomes = await asyncio.gather(bank.outcome(f"either:{n}", receive), close())
        assert tuple(outcomes) in {("fresh", "LD424"), ("account_closed", "closed")}
