"""Deposits without bitcoind: the test writes what the chain shows, and the real activity books it."""

import hashlib
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from activities.deposit.deposit import Deposits
from engine.bank.chain.deposit import get_rows_in_tx, write_booked_in_tx
from engine.bank.fee_schedule import FeeBook
from engine.bank.rulebook import read_current, set_in_tx
from engine.contracts.deposit import DepositRef, DepositState
from engine.domain.deposit import DepositStatus
from engine.domain.ids import AccountId, DepositId, WalletId, new_id
from engine.ledger.account import get_account_id
from engine.ledger.chart import Chart, user
from engine.ledger.database import Pool, transaction
from engine.ledger.postings.deposit import released
from engine.ledger.store import post_new_in_tx
from tests.helpers.api import User

REQUIRED, DEEP = 3, 6
_numbers = itertools.count(1)

_ROW = """
INSERT INTO bank.deposits (id, txid, vout, address, wallet_id, account_id, amount_sat, status, sight, required, deep,
       below_minimum, over_limit, workflow_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $8 THEN 'below_minimum' ELSE 'pending' END, 'mempool', $9, $10, $8, $11,
        $12)"""
_CHAIN = """
INSERT INTO bank.chains (wallet, network, anchor_height, anchor_hash, tip_height, tip_hash, tip_work, adopted_height)
VALUES ('hot', 'regtest', 0, repeat('0', 64), 0, repeat('0', 64), repeat('0', 64), 0) ON CONFLICT DO NOTHING"""
_PLACE = """
UPDATE bank.deposits SET sight = $2, block_height = $3::int,
       block_hash = CASE WHEN $3::int IS NOT NULL THEN repeat('b', 64) END
 WHERE id = $1"""


@dataclass
class Depositor:
    """Each of these is what a pump sees; the books follow at once."""

    pool: Pool
    ids: Chart = field(default_factory=Chart)

    def __post_init__(self) -> None:
        self.deposits = Deposits(self.pool, self.ids)

    async def reach(self, height: int, *, problem: str | None = None) -> None:
        """The tip is at this height. Nothing is booked yet."""
        async with transaction(self.pool) as conn:
            await conn.execute(_CHAIN)
            await conn.execute(
                "UPDATE bank.chains SET tip_height = $1, problem = $2, reported_at = clock_timestamp()", height, problem
            )

    async def charge(self, content: list[dict[str, Any]]) -> None:
        """The next version of the fees, for deposits alone."""
        async with transaction(self.pool) as conn:
            version = (await read_current(conn, "fees")).version + 1
            await set_in_tx(conn, "fees", {"deposit": content}, version=version, note="test", set_by="test")

    async def see(
        self,
        owner: User | None,
        amount_sat: int,
        *,
        address: str = "bcrt1qsomebody",
        below_minimum: bool = False,
        over_limit: bool = False,
        height: int | None = None,
    ) -> DepositId:
        """In the mempool, or first of all in a block. `over_limit`: as if it exceeded a limit."""
        found, number = DepositId(new_id("dep")), next(_numbers)
        async with transaction(self.pool) as conn:
            await conn.execute(
                _ROW,
                found,
                hashlib.sha256(found.encode()).hexdigest(),
                number % 3,
                address,
                owner.wallet_id if owner else None,
                owner.id if owner else None,
                amount_sat,
                below_minimum,
                REQUIRED,
                DEEP,
                over_limit,
                f"deposit-{number}",
            )
            if height is not None:
                await conn.execute(_PLACE, found, "mined", height)
        await self.deposits.advance_deposit(DepositRef(deposit=found))
        return found

    async def book(self, found: DepositId, height: int) -> DepositState:
        """In this block, and as deep as it must be."""
        await self.reach(height + REQUIRED - 1)
        return await self._place(found, "mined", height)

    async def take_back(self, found: DepositId) -> int:
        """Out of the chain and of the mempool; gives what is owed for it, in msat."""
        return (await self._place(found, "gone", None)).receivable_msat

    async def show_again(self, found: DepositId) -> DepositState:
        """In the mempool again."""
        return await self._place(found, "mempool", None)

    async def show_other(self, found: DepositId, amount_sat: int) -> DepositState:
        """In the mempool as another transaction of its sender, which pays this."""
        await self.pool.execute(
            "UPDATE bank.deposits SET txid = $2, amount_sat = $3 WHERE id = $1", found, token_hex(32), amount_sat
        )
        return await self.show_again(found)

    async def drop(self, found: DepositId) -> DepositState:
        """Neither in a block nor in the mempool."""
        return await self._place(found, "gone", None)

    async def release(self, found: DepositId, *, to: User) -> None:
        """Two operators have decided that it goes to this user, who pays our fee."""
        async with transaction(self.pool) as conn:
            (row,) = await get_rows_in_tx(conn, [found])
            assert row.booked.place in ("pending", "suspense")
            version = (await read_current(conn, "fees")).version
            charge = await FeeBook().charge(conn, "deposit", row.amount_msat, level=0, version=version)
            posting = released(
                await self.ids.load(conn),
                row.deposited,
                place=row.booked.place,
                owner=await get_account_id(conn, user(WalletId(to.wallet_id))),
                charge=charge,
                number=row.booked.confs,
                actor="operators",
            )
            await post_new_in_tx(conn, posting)
            released_row = row.now_booked(
                status=DepositStatus.CREDITED,
                wallet_id=WalletId(to.wallet_id),
                account_id=AccountId(to.id),
                release_ref=posting.ref,
                fee_msat=charge.fee_msat,
                fee_version=charge.version,
                fee_level=charge.level,
                credited_at=datetime.now(UTC),
            )
            await write_booked_in_tx(conn, [released_row])

    async def _place(self, found: DepositId, sight: str, height: int | None) -> DepositState:
        async with transaction(self.pool) as conn:
            await conn.execute(_PLACE, found, sight, height)
        return await self.deposits.advance_deposit(DepositRef(deposit=found))
