"""The checks of the books find what the database would never let happen: its guards are taken away, damage is done."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

from engine.domain.limit import Count
from engine.ledger.book import Counted, credit, debit
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import open_pool
from engine.views.balance import list_trial_balance
from engine.views.table import ledger
from tests.fixtures.postgres import Database, copy_of_template, migrate
from tests.fixtures.stack import eventually
from tests.helpers.ledger.bank import Bank, open_bank, run_as

pytestmark = pytest.mark.integration

UNGUARDED = "SET LOCAL session_replication_role = replica"  # no triggers and no foreign keys, as in a bad restore


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database) -> AsyncIterator[Bank]:
    pool = await open_pool(shared_ledger_db.app_dsn)
    bank = await open_bank(pool)
    bank.ids["user"] = user = await bank.user(funds=1_000)
    counted = Counted(user, [Count("send", 100), Count("send:USD", 7)])
    await bank.post("h:1", [debit(user, 100), credit(bank["outbox"], 100)], "hold", counted=counted)
    await bank.post("h:2", [debit(user, 200), credit(bank["outbox"], 200)], "hold")
    settle = [debit(user, 90), credit(bank["channels"], 90)]
    await bank.post("s:1", settle, "settle", relates_to=["h:1"])
    yield bank
    assert await bank.broken() == []
    await pool.close()


async def broken_after(database: Database, *damage: str) -> list[str]:
    """What the checks say of books that were damaged, in a transaction that takes the damage back."""
    conn = await asyncpg.connect(database.superuser_dsn)
    try:
        running = conn.transaction(isolation="repeatable_read")
        await running.start()
        for statement in damage:
            await conn.execute(statement)
        broken = await find_broken_rules(conn)
        await running.rollback()
    finally:
        await conn.close()
    return broken


@pytest.mark.parametrize(
    ("rule", "damage"),
    [
        ("1 balanced", "UPDATE ledger.entries SET amount = amount + 1 WHERE seq = 1"),
        ("2 balances", "UPDATE ledger.balances SET settled = settled - 1"),
        ("2 balances", "UPDATE ledger.balances SET version = version + 1"),
        ("2 balances", "UPDATE ledger.balances SET floor = -5"),
        ("2 a row", "DELETE FROM ledger.balances"),
        ("2 history", "UPDATE ledger.entries SET balance_after = balance_after + 1 WHERE version = 2"),
        ("2 history", "UPDATE ledger.entries SET version = NULL, balance_after = NULL WHERE version = 2"),
        ("2 time", "UPDATE ledger.entries SET posted_at = posted_at + interval '1 day' WHERE version = 2"),
        ("3 floor", "UPDATE ledger.entries SET amount = sign(amount) * 5000 WHERE transfer_id = 2"),
        ("4 holds", "UPDATE ledger.balances SET held_dr = held_dr - 5, held_cr = 5, settled = settled"),
        ("4 holds", "DELETE FROM ledger.resolutions"),
        ("5 resolutions", "UPDATE ledger.transfers SET expires_at = '2020-01-01' WHERE external_ref = 'h:1'"),
        ("5 resolutions", "UPDATE ledger.resolutions SET target_id = 1"),
        ("5 phases", "UPDATE ledger.transfers SET phase = 'void' WHERE external_ref = 's:1'"),
        ("5 phases", "DELETE FROM ledger.entries WHERE transfer_id = 1"),
        ("6 equation", "UPDATE ledger.entries SET amount = amount + 1 WHERE seq = 1"),
        ("7 facts", "UPDATE ledger.entries SET currency = 'USD' WHERE seq = 1"),
        ("7 facts", "DELETE FROM ledger.transfers WHERE external_ref = 'h:2'"),
        ("limits", "UPDATE ledger.counters SET amount = amount - 1 WHERE window_s = 604800"),
        ("limits", "UPDATE ledger.counters SET amount = 100 WHERE kind = 'send'"),  # as if nothing had been given back
        ("limits", "DELETE FROM ledger.counters WHERE kind = 'send:USD'"),
    ],
)
async def test_damage_is_found_and_named(bank: Bank, shared_ledger_db: Database, rule: str, damage: str) -> None:
    broken = await broken_after(shared_ledger_db, UNGUARDED, damage)
    assert any(message.startswith(f"rule {rule}") for message in broken), broken


async def test_two_transfers_for_one_fact_are_found(bank: Bank, shared_ledger_db: Database) -> None:
    broken = await broken_after(
        shared_ledger_db,
        "ALTER TABLE ledger.transfers DROP CONSTRAINT one_transfer_per_fact",
        UNGUARDED,
        "UPDATE ledger.transfers SET external_ref = 'h:1' WHERE external_ref = 'h:2'",
    )
    assert any("reference h:1 has 2 transfers" in message for message in broken)


async def test_the_view_and_the_read_of_the_trial_balance_agree(bank: Bank) -> None:
    async with bank.pool.acquire() as conn:
        read = [(row.code, row.settled_msat, row.held_msat) for row in await list_trial_balance(conn)]
        view = await conn.fetch("SELECT code, settled, held FROM ledger.trial_balance ORDER BY currency, code")
    assert read == [(row["code"], int(row["settled"]), int(row["held"])) for row in view]


async def test_the_classes_agree_with_the_migrated_database(ledger_db: Database) -> None:
    expected = sqlalchemy.MetaData()
    for table in SQLModel.metadata.tables.values():
        if table.schema == "ledger":
            table.to_metadata(expected)
    assert len(expected.tables) == 8

    def differences(connection: sqlalchemy.Connection) -> list[object]:
        options = {"include_schemas": True, "include_name": lambda name, kind, _: kind != "schema" or name == "ledger"}
        context = MigrationContext.configure(connection, opts={"compare_type": True, **options})
        found = [
            one for many in compare_metadata(context, expected) for one in (many if isinstance(many, list) else [many])
        ]
        # Indexes, constraints and comments belong to the migrations alone.
        return [one for one in found if not str(one[0]).endswith(("index", "constraint", "fk", "comment"))]

    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(ledger_db.owner_dsn))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
    assert ledger.Account.__tablename__ == "accounts"


async def test_migrating_again_changes_nothing(ledger_db: Database) -> None:
    await asyncio.to_thread(migrate, ledger_db.owner_dsn)


async def test_a_migration_that_fails_leaves_nothing_behind(postgres_server: str) -> None:
    async with copy_of_template(postgres_server) as database:
        await run_as(
            database.superuser_dsn,
            "CREATE FUNCTION fail() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''power cut''; END'",
            "CREATE EVENT TRIGGER fail ON ddl_command_start WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION fail()",
        )
        with pytest.raises(Exception, match="power cut"):
            await asyncio.to_thread(migrate, database.owner_dsn)
        await run_as(database.superuser_dsn, "DROP EVENT TRIGGER fail", "DROP FUNCTION fail()")
        await asyncio.to_thread(migrate, database.owner_dsn)


async def test_the_checks_outlast_the_time_that_other_statements_have(ledger_db: Database) -> None:
    """They wait here for a lock as they would for a big book; the pool gives its statements a second."""
    pool = await open_pool(ledger_db.app_dsn, min_size=0, max_size=1, command_timeout_s=1)
    other = await asyncpg.connect(ledger_db.superuser_dsn)
    watcher = await asyncpg.connect(ledger_db.superuser_dsn)  # A transaction sees one moment of what the others do.

    async def waits_for_long() -> bool | None:
        query = """SELECT true FROM pg_stat_activity
                    WHERE wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '1.5 s'"""
        return True if checking.done() or await watcher.fetchval(query) else None

    try:
        async with pool.acquire() as conn:
            async with other.transaction():
                await other.execute("LOCK TABLE ledger.entries")
                checking = asyncio.create_task(find_broken_rules(conn))
                await eventually(waits_for_long, "a rule to take longer than a statement may")
                assert not checking.done()
            assert await checking == []
    finally:
        await watcher.close()
        await other.close()
        await pool.close()


async def test_a_new_connection_to_near_empty_tables_never_scans_a_whole_table(ledger_db: Database) -> None:
    """The trap: PostgreSQL plans by the size a table has, and a connection keeps such plans while the table grows."""
    pool = await open_pool(ledger_db.app_dsn, max_size=1)
    bank = await open_bank(pool)
    user = await bank.user(funds=1_000)
    for n in range(12):
        legs = [debit(user, 10), credit(bank["outbox"], 10)]
        await bank.post(
            f"scan:hold:{n}", legs, "hold", counted=Counted(user, [Count("send", 5, {86_400: 1_000, 604_800: 1_000})])
        )
        await bank.post(
            f"scan:hold:{n}", legs, "hold", counted=Counted(user, [Count("send", 5, {86_400: 1_000, 604_800: 1_000})])
        )
        if n % 2:
            await bank.post(f"scan:void:{n}", phase="void", relates_to=[f"scan:hold:{n}"])
        else:
            settle = [debit(user, 10), credit(bank["channels"], 10)]
            await bank.post(f"scan:settle:{n}", settle, "settle", relates_to=[f"scan:hold:{n}"])
    await pool.fetch("SELECT pg_stat_force_next_flush()")
    await pool.close()
    conn = await asyncpg.connect(ledger_db.superuser_dsn)
    query = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE schemaname = 'ledger' AND seq_scan > 0"
    before = {"accounts"}  # open_account has no such settings: it is called once in the life of an account
    try:
        assert {row["relname"] for row in await conn.fetch(query)} <= before
    finally:
        await conn.close()
