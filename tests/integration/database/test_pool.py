"""A connection that goes back to the pool carries nothing of who had it: no query is needed to make that so.

One connection serves everything that the API and the activities do with the books, then it is looked at from inside.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.domain.errors import Refused
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import Connection, Pool, open_pool, snapshot, transaction
from engine.views.export import export_book
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, User, running_api
from tests.helpers.payer import Payers

pytestmark = pytest.mark.integration

_CARRIED = """
SELECT 'setting ' || name || ' = ' || setting FROM pg_settings WHERE source = 'session' AND setting <> reset_val
 UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
 UNION ALL SELECT 'listens to ' || channel FROM pg_listening_channels() channel
 UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
 UNION ALL SELECT 'temporary ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
 UNION ALL SELECT 'posting' WHERE current_setting('ledger.posting', true) = 'on'"""


async def carried(conn: Connection) -> list[str]:
    return [row[0] for row in await conn.fetch(_CARRIED)]


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Payers]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        pool = await open_pool(ledger_db.app_dsn, min_size=1, max_size=1)
        api.change(pool=pool)
        bank = Payers(api, pool)
        await bank.prepare()
        yield bank
        await pool.close()


async def test_after_everything_that_moves_money_nothing_is_left(bank: Payers) -> None:
    backend = await bank.pool.fetchval("SELECT pg_backend_pid()")
    alice, bob = await bank.api.open_account(username="alice"), await bank.api.open_account()
    await bank.fund(alice, 10**9)
    await asyncio.gather(*(bank.pay(alice, bob, 1_000) for _ in range(5)))
    opened = await bank.pay(alice, None, 10_000)
    await bank.settle(opened, fee_msat=10)
    assert (await bank.outcome(alice, bob, 10**12)) == "insufficient_funds"
    await ask_for_everything(bank.api, alice)
    await export(bank.pool)
    async with bank.pool.acquire() as conn:
        assert await find_broken_rules(conn) == []
    async with bank.pool.acquire() as conn:
        assert await conn.fetchval("SELECT pg_backend_pid()") == backend, "all of it was this connection"
        assert await carried(conn) == []


async def ask_for_everything(api: Api, user: User) -> None:
    made = await user.post("/v1/invoices", {"wallet_id": user.wallet_id, "amount_msat": 5_000}, key="once")
    assert made.status_code == 201, made.text
    assert (await user.post(f"/v1/invoices/{made.json()['id']}/cancel")).status_code == 200
    own = ["/v1/limits", "/v1/payments", "/v1/invoices", f"/v1/wallets/{user.wallet_id}"]
    own += [f"/v1/wallets/{user.wallet_id}/transactions", f"/v1/wallets/{user.wallet_id}/statement?format=csv"]
    admin = ["/v1/admin/ledger/trial-balance", "/v1/admin/limits", "/v1/admin/fees", "/metrics"]
    for path in own:
        assert (await user.get(path)).status_code == 200, path
    for path in admin:
        assert (await api.http.get(path, headers=ADMIN)).status_code == 200, path
    version = (await api.http.get("/v1/admin/limits", headers=ADMIN)).json()["version"] + 1
    limits = {"content": {"levels": {"0": {"internal": {"day_sat": 10**9}}}}, "note": "test", "version": version}
    assert (await api.http.put("/v1/admin/limits", json=limits, headers=ADMIN)).status_code == 200


async def export(pool: Pool) -> None:
    """To its end, and once left in its middle."""
    assert [piece async for piece in export_book(pool, "csv", None, None)]
    pieces = export_book(pool, "csv", None, None)
    await anext(pieces)
    await pieces.aclose()


async def test_a_transaction_that_broke_or_was_left_is_over(bank: Payers) -> None:
    async def leave(error: BaseException) -> None:
        async with transaction(bank.pool) as conn:
            await conn.execute("SET LOCAL work_mem = '1MB'; SELECT pg_advisory_xact_lock(1)")
            raise error

    for error in (Refused("no"), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await leave(error)
        async with bank.pool.acquire() as after:
            assert not after.is_in_transaction()
            assert await carried(after) == []
    async with snapshot(bank.pool) as conn:
        assert "setting transaction_read_only = on" in await carried(conn), "while it lasts"
    async with bank.pool.acquire() as after:
        assert await carried(after) == []


@pytest.mark.parametrize(
    ("deed", "found"),
    [
        ("SET work_mem = '1MB'", "setting work_mem = 1024"),
        ("SELECT pg_advisory_lock(1)", "advisory lock"),
        ("LISTEN news", "listens to news"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "cursor c"),
        ("SELECT set_config('ledger.posting', 'on', false)", "posting"),
    ],
)
async def test_a_setting_that_a_connection_would_carry_is_seen(bank: Payers, deed: str, found: str) -> None:
    async with bank.pool.acquire() as conn:
        await conn.execute(deed)
        assert await carried(conn) == [found]
        await conn.close()
