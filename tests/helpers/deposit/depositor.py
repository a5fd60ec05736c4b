"""Deposits without Temporal: the pump's looks, and the activities that workflows would run, called directly.

bank = await Depositors.open(pool, chain)
alice = await bank.user()
sent = chain.pay(await bank.address(alice), 50_000)
await bank.follow()
assert await bank.incoming(alice) == 50_000_000
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from temporalio.testing import ActivityEnvironment

from activities.chain.adoption import Adoption
from activities.chain.look import Look, Looker
from activities.chain.recording import Recorder
from activities.deposit.deposit import Deposits
from engine.bank.account.account import NewAccount, list_wallets, open_bank_account_in_tx
from engine.bank.chain import cursor
from engine.bank.chain.due import Due, list_due
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.rpc import Rpc
from engine.contracts.deposit import DepositPage, DepositRef
from engine.domain.ids import AccountId, WalletId
from engine.ledger.account import get_account_id
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import CAPITAL, Chart
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import Pool, open_pool, transaction
from engine.ledger.store import post_new_in_tx
from engine.views.balance import get_balance
from tests.helpers.chain import Chain

WALLET = "hot"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Depositor:
    """One user."""

    id: AccountId
    wallet_id: WalletId
    ledger_account_id: int


class Depositors:
    """A bank with a hot wallet on a real bitcoind, and real Postgres."""

    def __init__(self, pool: Pool, chain: Chain, rpc: Rpc) -> None:
        self.pool, self.chain = pool, chain
        self.bitcoind = Bitcoind(rpc, WALLET)
        self.looker, self.recorder = Looker(self.bitcoind, "regtest"), Recorder(self.bitcoind, pool)
        self.deposits = Deposits(pool, Chart())
        self.epoch = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, chain: Chain) -> AsyncIterator["Depositors"]:
        """With the wallet adopted."""
        rpc = Rpc(chain.line.url, chain.auth_file)
        pool = await open_pool(dsn, max_size=8)
        try:
            bank = cls(pool, chain, rpc)
            await Adoption(bank.bitcoind, pool, "regtest").adopt(WALLET)
            async with pool.acquire() as conn:
                bank.epoch = await cursor.take_epoch(conn, WALLET)
            yield bank
        finally:
            await rpc.close()
            await pool.close()

    async def user(self, *, level: int = 0) -> Depositor:
        account = AccountId(f"acct_{next(_numbers)}_{id(self)}")
        async with transaction(self.pool) as conn:
            await open_bank_account_in_tx(conn, NewAccount(id=account, level=level))
            (wallet,) = await list_wallets(conn, account)
        return Depositor(account, wallet.id, wallet.ledger_account_id)

    async def address(self, user: Depositor | None) -> str:
        """A new address of the hot wallet, given to this user; for None it stays in the pool."""
        address = await asyncio.to_thread(self.chain.address)
        owner = (user.wallet_id, user.id, "api") if user else (None, None, None)
        await self.pool.execute(
            """INSERT INTO bank.addresses(address, hd_index, made_height, wallet_id, account_id, purpose, given_at)
               VALUES ($1, $2, 0, $3, $4, $5, CASE WHEN $3::text IS NULL THEN NULL ELSE now() END)""",
            address,
            next(_numbers),
            *owner,
        )
        return address

    async def look(self) -> Look:
        """Look, and write it down; nothing is booked."""
        async with self.pool.acquire() as conn:
            chain = await cursor.find_chain(conn, WALLET)
            remembered = await cursor.list_blocks(conn, WALLET)
        assert chain is not None
        look = await self.looker.look(chain, remembered)
        await self.recorder.record(chain, self.epoch, look, whole=True)
        return look

    async def due(self, height: int) -> list[Due]:
        async with self.pool.acquire() as conn:
            return await list_due(conn, height, 100_000)

    async def follow(self) -> None:
        """Look, and book all that is due."""
        await asyncio.to_thread(self.chain.sync)
        look = await self.look()
        await self.book(look.tip.height)

    async def book(self, height: int) -> None:
        environment = ActivityEnvironment()
        due = await self.due(height)
        for each in due:
            if each.alone:
                await environment.run(self.deposits.advance_deposit, DepositRef(deposit=each.id))
        shared = [each.id for each in due if not each.alone]
        for start in range(0, len(shared), 100):
            page = DepositPage(deposits=shared[start : start + 100], height=height)
            await environment.run(self.deposits.advance_deposits, page)
        assert await self.due(height) == [], "what was booked is still due"

    async def rows(self, user: Depositor | None = None) -> list[asyncpg.Record]:
        """The deposits of a user, or all, the oldest first."""
        return await self.pool.fetch(
            "SELECT * FROM bank.deposits WHERE $1::text IS NULL OR account_id = $1 ORDER BY created_at, id",
            user and user.id,
        )

    async def row(self, user: Depositor | None = None) -> asyncpg.Record:
        """The only one."""
        (row,) = await self.rows(user)
        return row

    async def money(self, user: Depositor) -> tuple[int, int]:
        """Available and incoming, in satoshi."""
        async with self.pool.acquire() as conn:
            balance = await get_balance(conn, user.ledger_account_id)
        return balance.available_msat // 1000, balance.incoming_msat // 1000

    async def settled(self, code: str) -> int:
        """What an account has, debit +, in satoshi."""
        return (
            int(
                await self.pool.fetchval(
                    """SELECT coalesce(sum(e.amount), 0)
                         FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id
                    WHERE a.code = $1 AND e.layer = 0""",
                    code,
                )
            )
            // 1000
        )

    async def spend(self, user: Depositor, amount_sat: int) -> None:
        """It leaves the bank in some other way."""
        async with transaction(self.pool) as conn:
            legs = [
                debit(user.ledger_account_id, 1000 * amount_sat),
                credit(await get_account_id(conn, CAPITAL), 1000 * amount_sat),
            ]
            await post_new_in_tx(
                conn, Posting(ref=f"spent:{next(_numbers)}", template="test", phase="post", actor="test", legs=legs)
            )

    async def receivables(self, user: Depositor) -> list[tuple[str, int]]:
        rows = await self.pool.fetch("SELECT status, amount_msat FROM bank.receivables WHERE account_id = $1", user.id)
        return [(row["status"], row["amount_msat"] // 1000) for row in rows]

    async def prove(self) -> None:
        """The books balance, and the hot wallet in them is what bitcoind has, but for what is not booked yet."""
        async with self.pool.acquire() as conn:
            assert await find_broken_rules(conn) == []
        cut = await self.bitcoind.read_coins()
        confirmed = sum(coin.amount_sat for coin in cut.coins if coin.confirmations > 0 or coin.safe)  # own change
        waiting: Any = await self.pool.fetchval(
            """SELECT coalesce(sum(amount_sat), 0) FROM bank.deposits
                WHERE sight = 'mined' AND conf_ref IS NULL AND NOT coinbase"""
        )
        assert await self.settled("asset:hot") == confirmed - int(waiting)
