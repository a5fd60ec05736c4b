"""Accounts, reads, and what a broken line means for the money."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from engine.domain.errors import Conflict, InvariantBroken, NotFound, OutcomeUnknown, Unavailable
from engine.ledger.account import get_account_id, open_account_in_tx
from engine.ledger.book import credit, debit
from engine.ledger.database import open_pool, transaction
from engine.ledger.store import post_in_tx
from engine.views.balance import get_balance_at, list_trial_balance
from tests.fixtures.postgres import Database
from tests.helpers.ledger.bank import Bank, make, run_as, running_bank

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database) -> AsyncIterator[Bank]:
    async with running_bank(shared_ledger_db) as bank:
        yield bank


async def test_opening_an_account_again_finds_it_and_never_changes_it(bank: Bank) -> None:
    async with transaction(bank.pool) as conn:
        first = await open_account_in_tx(conn, "liab:user:twice", "liability", floor=0)
        assert await open_account_in_tx(conn, "liab:user:twice", "liability", floor=0) == first
        assert await get_account_id(conn, "liab:user:twice") == first
        for other in ({"kind": "asset"}, {"currency": "USD"}, {"mode": "append"}, {"floor": 5}):
            content = {"kind": "liability", "currency": "BTC", "floor": 0, "mode": "locked"} | other
            with pytest.raises(Conflict):
                async with conn.transaction():
                    await open_account_in_tx(conn, "liab:user:twice", **content)  # type: ignore[arg-type]
        with pytest.raises(NotFound):
            await get_account_id(conn, "liab:user:nobody")


async def test_many_can_open_one_account_at_the_same_time(bank: Bank) -> None:
    async def open_it() -> int:
        async with transaction(bank.pool) as conn:
            return await open_account_in_tx(conn, "liab:user:rush", "liability", floor=0)

    assert len(set(await asyncio.gather(*(open_it() for _ in range(10))))) == 1


@pytest.mark.parametrize(
    "content",
    [
        {"code": "liab:user:nofloor", "kind": "liability"},
        {"code": "liab:user:asset", "kind": "asset", "floor": 0},
        {"code": "asset:append-floor", "kind": "asset", "floor": 0, "mode": "append"},
        {"code": "bad code", "kind": "asset"},
        {"code": "asset:x", "kind": "wish"},
        {"code": "asset:y", "kind": "asset", "currency": "btc"},
    ],
    ids=str,
)
async def test_an_account_that_breaks_the_chart_is_not_opened(bank: Bank, content: dict[str, object]) -> None:
    with pytest.raises(InvariantBroken):
        async with transaction(bank.pool) as conn:
            await open_account_in_tx(conn, **content)  # type: ignore[arg-type]


async def test_the_past_can_be_read_and_the_trial_balance_sums_to_zero(bank: Bank) -> None:
    before = datetime.now(UTC)
    user = await bank.user(funds=700)
    between = await bank.pool.fetchval("SELECT clock_timestamp()")
    await bank.post("past:1", [debit(user, 200), credit(bank["channels"], 200)])
    async with bank.pool.acquire() as conn:
        times = (before, between, datetime.now(UTC) + timedelta(seconds=5))
        assert [await get_balance_at(conn, user, at) for at in times] == [0, -700, -500]
        for at in (None, between):
            rows = await list_trial_balance(conn, at)
            for currency in {row.currency for row in rows}:
                assert sum(row.settled_msat for row in rows if row.currency == currency) == 0
                assert sum(row.held_msat for row in rows if row.currency == currency) == 0


async def test_a_posting_outside_of_a_transaction_is_refused(bank: Bank) -> None:
    async with bank.pool.acquire() as conn:
        with pytest.raises(InvariantBroken):
            await post_in_tx(conn, make("outside", [debit(1, 1), credit(2, 1)]))
        with pytest.raises(InvariantBroken):
            await open_account_in_tx(conn, "liab:user:out", "liability", floor=0)


async def test_a_lost_connection_before_commit_booked_nothing(bank: Bank, shared_ledger_db: Database) -> None:
    user = await bank.user(funds=100)
    legs = [debit(user, 100), credit(bank["channels"], 100)]
    with pytest.raises(Unavailable):  # noqa: PT012 - the whole block is the story
        async with transaction(bank.pool) as conn:
            await post_in_tx(conn, make("lost:1", legs))
            await run_as(shared_ledger_db.superuser_dsn, f"SELECT pg_terminate_backend({conn.get_server_pid()}, 5000)")
            await post_in_tx(conn, make("lost:2", legs))
    assert await bank.balance(user) == (100, 0, 0)
    assert await bank.outcome("lost:1", legs) == "fresh"


async def test_a_connection_lost_during_commit_leaves_the_outcome_unknown_and_a_repeat_finds_out(
    bank: Bank, shared_ledger_db: Database
) -> None:
    user = await bank.user(funds=100)
    legs = [debit(user, 100), credit(bank["channels"], 100)]
    with pytest.raises(OutcomeUnknown):  # noqa: PT012 - the whole block is the story
        async with transaction(bank.pool) as conn:
            await post_in_tx(conn, make("lost:3", legs))
            await run_as(shared_ledger_db.superuser_dsn, f"SELECT pg_terminate_backend({conn.get_server_pid()}, 5000)")
    assert await bank.outcome("lost:3", legs) in {"fresh", "repeat"}
    assert await bank.balance(user) == (0, 0, 0)


async def test_a_database_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await open_pool("postgresql://nobody@127.0.0.1:1/none")
