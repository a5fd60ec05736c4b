"""Connections to Postgres that break, at every place and in every way: what is raised, and what the next one gets."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import get_args

import asyncpg
import pytest
import pytest_asyncio

from engine.domain.errors import OutcomeUnknown, Refused, Unavailable
from engine.ledger import database
from engine.ledger.database import Pool, borrowed, open_pool, snapshot, transaction, translated
from tests.fixtures.postgres import Database
from tests.fixtures.postgres_line import Break, BrokenLine, broken_line
from tests.helpers.api import ADMIN, running_api

pytestmark = pytest.mark.integration

WRITE = "INSERT INTO bank.accounts(id) VALUES ('acct_' || gen_random_uuid())"


@pytest_asyncio.fixture
async def line(shared_ledger_db: Database) -> AsyncIterator[BrokenLine]:
    async with broken_line(shared_ledger_db.app_dsn) as line:
        yield line


@pytest_asyncio.fixture
async def pool(line: BrokenLine) -> AsyncIterator[Pool]:
    pool = await open_pool(line.dsn, min_size=1, max_size=1, command_timeout_s=1)
    yield pool
    pool.terminate()


async def in_a_statement(pool: Pool) -> None:
    async with transaction(pool) as conn:
        await conn.fetchval("SELECT $1::int /* here */", 1)


async def in_an_execution(pool: Pool) -> None:
    async with transaction(pool) as conn:
        await conn.fetchrow("SELECT $1::text", "an argument")


async def in_a_plain_statement(pool: Pool) -> None:
    async with transaction(pool) as conn:
        await conn.execute("SELECT 1 /* here */")


async def in_many(pool: Pool) -> None:
    async with transaction(pool) as conn:
        await conn.executemany("SELECT $1::int /* here */", [(1,), (2,)])


async def in_a_savepoint(pool: Pool) -> None:
    async with transaction(pool) as conn:
        await conn.execute("SELECT 1")
        async with conn.transaction():
            await conn.fetch("SELECT $1::int /* here */", 1)


async def in_a_transaction(pool: Pool) -> None:
    async with transaction(pool) as conn:
        await conn.execute(WRITE)


async def alone(pool: Pool) -> None:
    async with borrowed(pool) as conn:
        await conn.fetchrow("SELECT $1::int /* here */", 1)


async def at_the_pool(pool: Pool) -> None:
    async with borrowed(pool) as conn:
        await conn.fetch("SELECT 1 /* here */")


async def in_a_snapshot(pool: Pool) -> None:
    async with snapshot(pool) as conn:
        await conn.fetchval("SELECT 1 /* here */")


async def in_a_cursor(pool: Pool) -> None:
    async with snapshot(pool) as conn:
        async for _row in conn.cursor("SELECT generate_series(1, 100) /* here */", prefetch=7):
            pass


Place = Callable[[Pool], Awaitable[None]]
PLACES: list[tuple[Place, bytes]] = [
    *((place, b"/* here */") for place in (in_a_statement, in_a_plain_statement, in_many, in_a_savepoint)),
    *((place, b"/* here */") for place in (alone, at_the_pool, in_a_snapshot, in_a_cursor)),
    (in_an_execution, b"an argument"),
    *((place, b"BEGIN") for place in (in_a_transaction, in_a_snapshot)),
    *((place, b"SAVEPOINT") for place in (in_a_savepoint,)),
    *((place, b"COMMIT;") for place in (in_a_snapshot,)),
]
HOWS: tuple[Break, ...] = get_args(Break)
SILENT: set[Break] = {"freeze", "fatal", "garbage"}
"""It takes the limit of a statement, here a second, until these are noticed: they are met in a few places only."""
FEW = {
    (in_a_statement, b"/* here */"),
    (alone, b"/* here */"),
    (in_a_cursor, b"/* here */"),
    (in_a_transaction, b"BEGIN"),
}
CASES = [(*each, how) for each in PLACES for how in HOWS if how not in SILENT or each in FEW]


@pytest.mark.parametrize(("place", "word", "how"), CASES, ids=lambda each: getattr(each, "__name__", None))
async def test_before_commit_nothing_happened_and_the_next_one_gets_a_good_line(
    line: BrokenLine, pool: Pool, place: Place, word: bytes, how: Break
) -> None:
    line.will_break(how, word)
    with pytest.raises(Unavailable):
        await place(pool)
    assert line.broken == 1
    await place(pool)


@pytest.mark.parametrize("how", HOWS)
async def test_in_commit_nobody_knows(line: BrokenLine, pool: Pool, how: Break) -> None:
    async def count() -> int:
        async with borrowed(pool) as conn:
            found: int = await conn.fetchval("SELECT count(*) FROM bank.accounts")
        return found

    before = await count()
    line.will_break(how, b"COMMIT;")
    with pytest.raises(OutcomeUnknown):
        await in_a_transaction(pool)
    assert await count() - before == (how in {"cut_after", "half_an_answer"})
    await in_a_transaction(pool)


@pytest.mark.parametrize("how", HOWS)
async def test_an_error_raised_in_the_block_stays_when_it_cannot_be_rolled_back(
    line: BrokenLine, pool: Pool, how: Break
) -> None:
    error = Refused("no") if how in SILENT else asyncio.CancelledError()
    line.will_break(how, b"ROLLBACK")
    with pytest.raises(type(error)):
        async with transaction(pool):
            raise error
    assert line.broken == 1
    await in_a_transaction(pool)


@pytest.mark.parametrize("place", [in_a_statement, alone, in_a_snapshot])
async def test_a_line_that_was_told_its_end_and_not_closed_serves_nobody(
    line: BrokenLine, pool: Pool, place: Place
) -> None:
    await place(pool)
    line.tell_all()
    await asyncio.sleep(0.05)  # the driver reads it while nothing is asked
    with pytest.raises(Unavailable):
        await place(pool)
    await place(pool)


async def test_a_cancelled_task_on_a_broken_line_is_cancelled(line: BrokenLine, pool: Pool) -> None:
    for how in sorted(set(HOWS) - SILENT):
        line.will_break(how, b"pg_sleep")

        async def wait() -> None:
            async with transaction(pool) as conn:
                await conn.execute("SELECT pg_sleep(10)")

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, Unavailable)):
            await task
        await in_a_transaction(pool)


async def test_a_server_that_is_not_there_or_is_another(unused_tcp_port: int, shared_ledger_db: Database) -> None:
    with pytest.raises(Unavailable):
        await open_pool(f"postgresql://x@127.0.0.1:{unused_tcp_port}/x")

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for query in ("", "?sslmode=require", "?sslmode=prefer"):
            with pytest.raises(Unavailable):
                await open_pool(f"postgresql://x@127.0.0.1:{port}/x{query}")
    with pytest.raises(Unavailable):
        await open_pool(shared_ledger_db.app_dsn.replace("/millrace_test", "/no_such_database"))


async def by_a_statement_of_the_pool(pool: Pool) -> None:
    with translated():
        await pool.fetchval("SELECT 1")


@pytest.mark.parametrize("use", [by_a_statement_of_the_pool, alone, in_a_transaction, in_a_snapshot])
async def test_nobody_waits_for_ever_while_all_connections_are_in_use(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, use: Callable[[Pool], Awaitable[None]]
) -> None:
    monkeypatch.setattr(database, "_ACQUIRE_S", 0.05)
    async with borrowed(pool):
        with pytest.raises(Unavailable):
            await use(pool)
    await use(pool)


async def test_sessions_killed_under_load_answer_no_500(shared_ledger_db: Database, tmp_path: Path) -> None:
    answers: Counter[int] = Counter()
    made: dict[str, str] = {}
    async with running_api(
        shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0
    ) as api:
        user = await api.open_account()
        killer = await asyncpg.connect(shared_ledger_db.superuser_dsn)
        is_over = False

        async def ask() -> None:
            while not is_over:
                key = secrets.token_hex(8)
                for _ in range(20):
                    headers = {**ADMIN, "Idempotency-Key": key}
                    answer = await api.http.post("/v1/accounts", json={"external_id": key}, headers=headers)
                    answers[answer.status_code] += 1
                    if answer.status_code == 201:
                        made[key] = answer.json()["id"]
                        break
                for path in ("/v1/account", "/v1/payments", f"/v1/wallets/{user.wallet_id}/statement?format=csv"):
                    answers[(await user.get(path)).status_code] += 1

        asking = [asyncio.create_task(ask()) for _ in range(12)]
        for _ in range(60):
            await killer.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND usename IS NOT NULL AND pid <> pg_backend_pid()
                      AND application_name = 'millrace'"""
            )
            await asyncio.sleep(0.01)
        is_over = True
        await asyncio.gather(*asking)
        await killer.close()
        there = await api.database.fetch("SELECT external_id, id FROM bank.accounts WHERE external_id IS NOT NULL")
    assert answers[503] > 0, answers
    assert set(answers) <= {200, 201, 503}, answers
    assert made.items() <= {row["external_id"]: row["id"] for row in there}.items()
