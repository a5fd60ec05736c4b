"""What a migration makes of rows that an older release has left behind."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database, database_at, migrate

pytestmark = pytest.mark.integration

TURNS = importlib.import_module("infra.migrations.versions.0020_turns")
HASH = "ab" * 32


async def _ask(database: Database, query: str, *args: Any) -> list[asyncpg.Record]:
    conn = await asyncpg.connect(database.owner_dsn)
    try:
        rows: list[asyncpg.Record] = await conn.fetch(query, *args)
        return rows
    finally:
        await conn.close()


@pytest_asyncio.fixture
async def before_turns(postgres_server: str, postgres_template: str) -> AsyncIterator[Database]:
    """A database as the release before turns has left it, with a user and a node."""
    async with database_at(postgres_server, TURNS.down_revision) as database:
        await _ask(database, "INSERT INTO bank.accounts(id) VALUES ('a')")
        await _ask(database, "INSERT INTO bank.nodes(name, pubkey) VALUES ('lnd-1', '02' || repeat('ab', 32))")
        await _ask(
            database,
            """INSERT INTO bank.wallets(id, account_id, currency, ledger_account_id)
               VALUES ('w', 'a', 'BTC', ledger.open_account('liab:user:w', 'liability', 'BTC', 0, 'locked'))""",
        )
        yield database


async def _add(database: Database, name: str, status: str, attempt: int, payment_hash: str = HASH) -> None:
    await _ask(
        database,
        """INSERT INTO bank.payments(id, account_id, wallet_id, kind, status, destination, amount_msat, max_fee_msat,
               payment_hash, bolt11, node, attempt, workflow_id, failure_code, settled_at)
           VALUES ($1, 'a', 'w', 'lightning', $2, 'x', 1000, 10, $4, 'x', 'lnd-1', $3, 'w',
                   CASE $2 WHEN 'failed' THEN 'no_route' END, CASE $2 WHEN 'settled' THEN clock_timestamp() END)""",
        name,
        status,
        attempt,
        payment_hash,
    )


async def _attempts(database: Database) -> list[tuple[str, int]]:
    rows = await _ask(database, "SELECT id, attempt FROM bank.payments ORDER BY attempt, id")
    return [(row["id"], row["attempt"]) for row in rows]


async def test_failed_payments_that_shared_an_attempt_get_numbers_of_their_own(before_turns: Database) -> None:
    for name, status, attempt in (("p1", "failed", 1), ("p2", "failed", 1), ("p3", "failed", 1), ("p4", "settled", 2)):
        await _add(before_turns, name, status, attempt)
    await _add(before_turns, "other", "failed", 1, "cd" * 32)
    await asyncio.to_thread(migrate, before_turns.owner_dsn)
    assert await _attempts(before_turns) == [("other", 1), ("p1", 1), ("p4", 2), ("p2", 3), ("p3", 4)]
    with pytest.raises(asyncpg.UniqueViolationError, match="one_payment_of_an_attempt"):
        await _add(before_turns, "p5", "failed", 4)


@pytest.mark.parametrize("status", ["pending", "settled"])
async def test_one_that_may_be_paid_with_nothing_held_stops_the_migration_and_is_named(
    before_turns: Database, status: str
) -> None:
    await _add(before_turns, "p1", "failed", 1)
    await _add(before_turns, "p2", status, 1)
    with pytest.raises(Exception, match="nothing is held for these payments, which are not failed: p2"):
        await asyncio.to_thread(migrate, before_turns.owner_dsn)
    assert await _attempts(before_turns) == [("p1", 1), ("p2", 1)]
    ended = "UPDATE bank.payments SET status = 'failed', failure_code = 'x', settled_at = NULL WHERE id = 'p2'"
    await _ask(before_turns, ended)
    await asyncio.to_thread(migrate, before_turns.owner_dsn)
    assert await _attempts(before_turns) == [("p1", 1), ("p2", 2)]
