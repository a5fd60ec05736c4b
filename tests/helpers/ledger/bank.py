"""A small bank for ledger tests: a pool of the application's role, the accounts every story needs, short postings."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from engine.domain.errors import EngineError
from engine.ledger.account import open_account_in_tx
from engine.ledger.book import Leg, Posting, credit, debit
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import Pool, open_pool, transaction
from engine.ledger.store import Posted, post_in_tx
from engine.views.balance import get_balance
from tests.fixtures.postgres import Database

_numbers = itertools.count()

CHART = {
    "channels": ("asset:lnd:lnd-1:channels", "asset"),
    "hot": ("asset:hot", "asset"),
    "outbox": ("liab:outbox", "liability"),
    "payouts": ("liab:payout-queue", "liability"),
    "capital": ("equity:capital", "equity"),
    "ln_fee": ("income:ln-fee", "income"),
    "withdraw_fee": ("income:withdraw-fee", "income"),
    "routing": ("exp:ln-routing", "expense"),
    "loss": ("exp:loss", "expense"),
}


@dataclass(frozen=True, slots=True)
class Bank:
    """Accounts by short name, and the two things one does with them."""

    pool: Pool
    ids: dict[str, int]

    def __getitem__(self, name: str) -> int:
        return self.ids[name]

    async def user(self, funds: int = 0) -> int:
        """A new user's account with something on it."""
        async with transaction(self.pool) as conn:
            code = f"liab:user:wal_{next(_numbers)}"
            account_id = await open_account_in_tx(conn, code, "liability", floor=0)
        if funds:
            await self.post(f"fund:{account_id}", [debit(self["channels"], funds), credit(account_id, funds)])
        return account_id

    async def post(self, ref: str, legs: Sequence[Leg] = (), phase: str = "post", **more: Any) -> Posted:
        """One posting in a transaction of its own."""
        async with transaction(self.pool) as conn:
            return await post_in_tx(conn, make(ref, legs, phase, **more))

    async def outcome(self, ref: str, legs: Sequence[Leg] = (), phase: str = "post", **more: Any) -> str:
        """ "fresh", "repeat", or the code of the refusal."""
        try:
            posted = await self.post(ref, legs, phase, **more)
        except EngineError as error:
            return error.code
        return "fresh" if posted.fresh else "repeat"

    async def balance(self, account_id: int) -> tuple[int, int, int]:
        """Available, held out, incoming."""
        async with self.pool.acquire() as conn:
            balance = await get_balance(conn, account_id)
        return balance.available_msat, balance.held_out_msat, balance.incoming_msat

    async def broken(self) -> list[str]:
        async with self.pool.acquire() as conn:
            return await find_broken_rules(conn)


def make(ref: str, legs: Sequence[Leg] = (), phase: str = "post", **more: Any) -> Posting:
    """A posting with the parts that most tests do not care about."""
    return Posting(ref=ref, template="test", phase=phase, actor="test", legs=legs, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def running_bank(database: Database) -> AsyncIterator[Bank]:
    """A bank on this database; the rules of the books hold at the end."""
    pool = await open_pool(database.app_dsn, max_size=12)
    bank = await open_bank(pool)
    yield bank
    assert await bank.broken() == []
    await pool.close()


async def open_bank(pool: Pool) -> Bank:
    async with transaction(pool) as conn:
        ids = {name: await open_account_in_tx(conn, code, kind, mode="append") for name, (code, kind) in CHART.items()}
    return Bank(pool, ids)


async def run_as(dsn: str, *statements: str) -> None:
    """Run statements one by one on a connection of its own, all in one transaction."""
    conn = await asyncpg.connect(dsn)
    try:
        async with conn.transaction():
            for statement in statements:
                await conn.execute(statement)
    finally:
        await conn.close()
