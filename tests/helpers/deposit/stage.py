"""Deposits of which several hands do something at once, over seats of the scheduler (`tests/helpers/schedule.py`).

stage = Stage(pool, seats, observer, reduced=True)
await stage.play(make, works, check)     # every order of two works, each in a world of its own
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from temporalio.testing import ActivityEnvironment

from activities.deposit.decision import DepositDecisions
from activities.deposit.deposit import Deposits
from engine.bank.account.account import NewAccount, list_wallets, open_bank_account_in_tx
from engine.bank.account.account_status import change_in_tx
from engine.bank.chain import cursor, due, sighting
from engine.bank.chain.deposit_decision import NewDepositDecision, propose_in_tx
from engine.bank.chain.sighting import SeenOutput, Watched
from engine.contracts.deposit import DecideDeposit, DepositApproval, DepositPage, DepositRef
from engine.domain.deposit import Block, Outpoint, Sight, parse_rules
from engine.domain.deposit_decision import DepositDecisionKind
from engine.domain.errors import EngineError, Refused
from engine.domain.ids import AccountId, DepositDecisionId, DepositId, Txid, new_id
from engine.domain.money import Msat, Sat
from engine.ledger.account import get_account_id
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import CAPITAL, Chart
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import Connection, Pool, open_pool, transaction
from engine.ledger.store import post_new_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.schedule import Run, Seat, explore, nothing, open_seat

STEPS = {
    "UPDATE bank.chains SET tip_height": "moves the tip",
    "epoch = epoch + 1": "takes over",
    "SELECT FROM bank.deposits d": "locks what was seen",
    "SET final_at": "leaves the deep alone",
    "FROM bank.deposits WHERE id = ANY": "locks its row",
    "max(tip_height)": "reads the tip",
    "SELECT available FROM ledger.balances": "looks what is left",
    "FROM ledger.post": "posts",
    "set_frozen": "locks the account",
    "close_account": "closes the account",
    "COMMIT;": "commits",
}
TIP, AMOUNT, SPENT = 100, Sat(50_000), Sat(30_000)
RULES = parse_rules({"confirmations": [{"confirmations": 3}]})
ZERO = "0" * 64
_numbers = itertools.count(1)
Work = Coroutine[Any, Any, Any]


@dataclass
class Owner:
    """A user of one order."""

    account: AccountId
    ledger_account: int


@dataclass
class World:
    """One order's deposits, in the order in which they were seen."""

    owners: list[Owner] = field(default_factory=list)
    outputs: list[SeenOutput] = field(default_factory=list)
    deposits: list[DepositId] = field(default_factory=list)


class Stage:
    """Where every order is played."""

    def __init__(self, pool: Pool, seats: Sequence[Seat], observer: Connection, *, reduced: bool) -> None:
        self.pool, self.seats, self.observer, self.reduced = pool, seats, observer, reduced
        self.environment = ActivityEnvironment()
        self.deposits = Deposits(pool, Chart())
        self.epoch = 0

    async def world(self, *, owners: int = 1, sight: Sight = Sight.MEMPOOL, height: int | None = None) -> World:
        """Users with a deposit each, as the pump has just written it; nothing is booked."""
        world = World()
        for _ in range(owners):
            account = AccountId(f"acct_{next(_numbers)}")
            async with transaction(self.pool) as conn:
                await open_bank_account_in_tx(conn, NewAccount(id=account, level=0))
                (wallet,) = await list_wallets(conn, account)
                await conn.execute(
                    """INSERT INTO bank.addresses(address, hd_index, made_height, wallet_id, account_id, purpose,
                              given_at) VALUES ($1, $2, 0, $3, $4, 'api', now())""",
                    f"address of {account}",
                    next(_numbers),
                    wallet.id,
                    account,
                )
            world.owners.append(Owner(account, wallet.ledger_account_id))
            world.outputs.append(output(f"address of {account}", sight, height))
        self.epoch = await self.take_over(self.pool)
        await self.record(self.pool, world.outputs, tip=TIP)
        for each in world.outputs:
            world.deposits.append(
                await self.pool.fetchval("SELECT id FROM bank.deposits WHERE txid = $1", each.outpoint.txid)
            )
        return world

    async def take_over(self, pool: Pool) -> int:
        async with pool.acquire() as conn:
            return await cursor.take_epoch(conn, "hot")

    async def record(
        self,
        pool: Pool,
        outputs: Sequence[SeenOutput],
        *,
        tip: int,
        watched: Sequence[Watched] = (),
        epoch: int | None = None,
    ) -> None:
        """As the pump writes one look."""
        fork, blocks = Block(height=TIP - 10, hash=ZERO), [Block(height=tip, hash="b" * 64)]
        async with transaction(pool) as conn:
            await cursor.move_in_tx(conn, "hot", epoch or self.epoch, fork=fork, blocks=blocks, work=ZERO, rescans=0)
            await sighting.record_in_tx(conn, outputs, watched, rules=RULES, alone_at_most=10)
        async with transaction(pool) as conn:
            await due.finish_shared_in_tx(conn, tip)

    async def single(self, pool: Pool, deposit: DepositId) -> None:
        await self.environment.run(Deposits(pool, Chart()).advance_deposit, DepositRef(deposit=deposit))

    async def page(self, pool: Pool, deposits: Sequence[DepositId]) -> None:
        page = DepositPage(deposits=list(deposits), height=TIP)
        await self.environment.run(Deposits(pool, Chart()).advance_deposits, page)

    async def spend(self, pool: Pool, owner: Owner, amount: int) -> bool:
        """Whether the payment was taken."""
        try:
            async with transaction(pool) as conn:
                legs = [
                    debit(owner.ledger_account, 1_000 * amount),
                    credit(await get_account_id(conn, CAPITAL), 1_000 * amount),
                ]
                ref = f"spent:{next(_numbers)}"
                await post_new_in_tx(conn, Posting(ref=ref, template="test", phase="post", actor="test", legs=legs))
        except Refused as refused:
            if refused.code not in ("insufficient_funds", "account_locked"):
                raise
            return False
        return True

    async def close(self, pool: Pool, owner: Owner) -> bool:
        """Whether the account could be closed."""
        try:
            async with transaction(pool) as conn:
                await change_in_tx(conn, owner.account, status="closed", level=None)
        except Refused as refused:
            if refused.code != "account_not_empty":
                raise
            return False
        return True

    async def propose(self, deposit: DepositId, kind: DepositDecisionKind) -> DepositDecisionId:
        """One operator asks for it. A receivable is the oldest that is open."""
        owed = await self.pool.fetchval(
            "SELECT id FROM bank.receivables WHERE deposit_id = $1 AND status = 'open' ORDER BY created_at LIMIT 1",
            deposit,
        )
        proposal = NewDepositDecision(
            id=DepositDecisionId(new_id("dec")),
            deposit_id=deposit,
            kind=kind,
            wallet_id=None,
            receivable_id=owed,
            amount_msat=Msat(1),
            reason="test",
            proposed_by=AccountId("one"),
        )
        async with transaction(self.pool) as conn:
            return await propose_in_tx(conn, proposal)

    async def decide(self, pool: Pool, deposit: DepositId, decision: DepositDecisionId, operator: str = "two") -> str:
        """Another operator approves it. Gives "done", or the code of the refusal."""
        approval = DepositApproval(decision=decision, operator=AccountId(operator), key_id="key")
        asked = DecideDeposit(deposit=deposit, approval=approval)
        try:
            await self.environment.run(DepositDecisions(pool, Chart()).decide_deposit, asked)
        except Refused as refused:
            return refused.code
        return "done"

    async def follow(self, world: World) -> None:
        """The pump finds what is due, and the books follow."""
        for deposit in world.deposits:
            await self.single(self.pool, deposit)
        async with self.pool.acquire() as conn:
            tip = await cursor.read_tip_height(conn)
            assert await due.find_due(conn, world.deposits, tip) == set()

    async def money(self, owner: Owner) -> tuple[int, int, int]:
        """Available, incoming and owed, in satoshi."""
        row = await self.pool.fetchrow(
            """SELECT b.available, b.held_cr, (SELECT coalesce(sum(r.amount_msat), 0)::bigint FROM bank.receivables r
                       WHERE r.account_id = $2 AND r.status = 'open') AS owed
                 FROM ledger.balances b WHERE b.account_id = $1""",
            owner.ledger_account,
            owner.account,
        )
        assert row is not None
        return row["available"] // 1_000, row["held_cr"] // 1_000, row["owed"] // 1_000

    async def status(self, deposit: DepositId) -> str:
        return str(await self.pool.fetchval("SELECT status FROM bank.deposits WHERE id = $1", deposit))

    async def play(
        self,
        make: Callable[[], Awaitable[World]],
        works: Callable[[World], Sequence[Callable[[Pool], Work]]],
        check: Callable[[World, list[Any]], Awaitable[None]],
    ) -> None:
        """Every order of these works; `check` gets what each has returned, or the error of the engine that it met."""
        world: World

        async def start(run: Run) -> Callable[[], Awaitable[None]]:
            nonlocal world
            world = await make()
            for name, seat, work in zip("AB", self.seats, works(world), strict=True):
                run.actor(name, seat).begins(work(seat.pool))
            return nothing

        async def ended(run: Run) -> None:
            for actor in run.actors:
                assert actor.task is not None
            results = [actor.task.exception() or actor.task.result() for actor in run.actors if actor.task]
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, EngineError):
                    raise result
            await check(world, results)

        assert await explore(self.observer, start, ended, reduced=self.reduced) > 1


@asynccontextmanager
async def opened(database: Database, *, reduced: bool) -> AsyncIterator[Stage]:
    """A bank that has followed a chain up to `TIP`. At the end its books must balance."""
    observer = await asyncpg.connect(database.superuser_dsn)
    await observer.execute(
        """INSERT INTO bank.chains(wallet, network, anchor_height, anchor_hash, tip_height, tip_hash, tip_work,
                                   adopted_height) VALUES ('hot', 'regtest', 0, $1, 100, $1, $1, 0)""",
        ZERO,
    )
    pool = await open_pool(database.app_dsn, max_size=4)
    seats = [await open_seat(database.app_dsn, STEPS) for _ in "AB"]
    yield Stage(pool, seats, observer, reduced=reduced)
    async with pool.acquire() as conn:
        assert await find_broken_rules(conn) == []
    for each in (*(seat.pool for seat in seats), pool):
        await each.close()
    await observer.close()


def output(
    address: str, sight: Sight, height: int | None, *, conflicts: tuple[str, ...] = (), txid: str | None = None
) -> SeenOutput:
    outpoint = Outpoint(txid=Txid(txid or f"{next(_numbers):064x}"), vout=0)
    block = None if height is None else Block(height=height, hash=f"{height:064x}")
    return SeenOutput(
        outpoint=outpoint,
        address=address,
        amount_sat=AMOUNT,
        coinbase=False,
        sight=sight,
        block=block,
        conflicts=conflicts,
        workflow_id=f"deposit-{outpoint}",
    )


def moved(seen: SeenOutput, sight: Sight, height: int | None = None) -> SeenOutput:
    """The same output at another place."""
    return output(seen.address, sight, height, txid=seen.outpoint.txid)
