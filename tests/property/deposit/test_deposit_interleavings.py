"""Whoever touches a deposit at the same moment, in every order: pump, single, page, payment and closing, on PostgreSQL.

Each order is a world of its own: a user, and a deposit as the pump has written it. At its end the books follow once
more, as they do when the pump finds a step due; then money and rows must be what one after the other would have left.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities.deposit.deposit import Deposits
from engine.bank.account.account import NewAccount, list_wallets, open_bank_account_in_tx
from engine.bank.account.account_status import change_in_tx
from engine.bank.chain import cursor, due, sighting
from engine.bank.chain.sighting import SeenOutput, Watched
from engine.contracts.deposit import DepositPage, DepositRef
from engine.domain.deposit import Block, Outpoint, Sight, parse_rules
from engine.domain.errors import EngineError, Refused, Unavailable
from engine.domain.ids import AccountId, BlockHash, DepositId, Txid
from engine.domain.money import Sat
from engine.ledger.account import get_account_id
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import CAPITAL, Chart
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import Connection, Pool, open_pool, transaction
from engine.ledger.store import post_new_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.schedule import Run, Seat, explore, nothing, open_seat

pytestmark = [pytest.mark.property, pytest.mark.timeout(600)]

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
_ZERO = "0" * 64
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
        fork, blocks = Block(height=TIP - 10, hash=BlockHash(_ZERO)), [Block(height=tip, hash=BlockHash("b" * 64))]
        async with transaction(pool) as conn:
            await cursor.move_in_tx(
                conn, "hot", epoch or self.epoch, fork=fork, blocks=blocks, work=_ZERO, rescanned=None
            )
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


def output(
    address: str, sight: Sight, height: int | None, *, conflicts: tuple[str, ...] = (), txid: str | None = None
) -> SeenOutput:
    outpoint = Outpoint(txid=Txid(txid or f"{next(_numbers):064x}"), vout=0)
    block = None if height is None else Block(height=height, hash=BlockHash(f"{height:064x}"))
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


@pytest_asyncio.fixture(scope="module")
async def stage(shared_ledger_db: Database, pytestconfig: pytest.Config) -> AsyncIterator[Stage]:
    """Deadlocks would be seen by the scheduler: nobody could go on."""
    observer = await asyncpg.connect(shared_ledger_db.superuser_dsn)
    await observer.execute(
        """INSERT INTO bank.chains(wallet, network, anchor_height, anchor_hash, tip_height, tip_hash, tip_work,
                                   adopted_height) VALUES ('hot', 'regtest', 0, $1, 100, $1, $1, 0)""",
        _ZERO,
    )
    pool = await open_pool(shared_ledger_db.app_dsn, max_size=4)
    seats = [await open_seat(shared_ledger_db.app_dsn, STEPS) for _ in "AB"]
    yield Stage(pool, seats, observer, reduced=not pytestconfig.getoption("--whole-length"))
    async with pool.acquire() as conn:
        assert await find_broken_rules(conn) == []
    for each in (*(seat.pool for seat in seats), pool):
        await each.close()
    await observer.close()


PLACES = {
    "mempool": (Sight.MEMPOOL, None, "pending", (0, AMOUNT, 0)),
    "mined": (Sight.MINED, TIP, "pending", (0, AMOUNT, 0)),
    "deep": (Sight.MINED, TIP - 5, "credited", (AMOUNT, 0, 0)),
    "gone": (Sight.GONE, None, "dropped", (0, 0, 0)),
}
"""Where it is, and what becomes of one that was not credited before: its status, and its owner's money."""


@pytest.mark.parametrize("way", ["single", "page"])
@pytest.mark.parametrize(
    ("before", "after"),
    [("mempool", "deep"), ("mempool", "gone"), ("mined", "gone"), ("deep", "gone"), ("deep", "mined")],
)
async def test_a_look_and_a_booking_of_one_deposit_in_every_order(
    stage: Stage, before: str, after: str, way: str
) -> None:
    """After the look the chain may be shorter: what was deep is not."""
    sight, height, _status, _money = PLACES[before]
    later, later_height, status, money = PLACES[after]

    async def make() -> World:
        return await stage.world(sight=sight, height=height)

    def works(world: World) -> list[Callable[[Pool], Work]]:
        (seen,), (deposit,) = world.outputs, world.deposits
        tip = TIP - 2 if (before, after) == ("deep", "mined") else TIP
        place = later_height if tip == TIP else tip
        book = (
            (lambda pool: stage.single(pool, deposit))
            if way == "single"
            else (lambda pool: stage.page(pool, [deposit]))
        )
        return [lambda pool: stage.record(pool, [moved(seen, later, place)], tip=tip), book]

    async def check(world: World, results: list[Any]) -> None:
        assert results == [None, None]
        await stage.follow(world)
        (owner,), (deposit,) = world.owners, world.deposits
        was_credited = await stage.pool.fetchval("SELECT confs FROM bank.deposits WHERE id = $1", deposit) > 0
        if was_credited and after == "mined":  # booked before the look, and it is still in a block
            assert await stage.money(owner) == (AMOUNT, 0, 0)
        else:
            expected = "reversed" if was_credited and after == "gone" else status
            assert (await stage.status(deposit), await stage.money(owner)) == (expected, money)

    await stage.play(make, works, check)


async def test_a_replacement_and_a_booking_in_every_order(stage: Stage) -> None:
    async def make() -> World:
        return await stage.world()

    def works(world: World) -> list[Callable[[Pool], Work]]:
        (seen,), (deposit,) = world.outputs, world.deposits
        other = output(seen.address, Sight.MINED, TIP - 5, conflicts=(seen.outpoint.txid,))
        return [lambda pool: stage.record(pool, [other], tip=TIP), lambda pool: stage.single(pool, deposit)]

    async def check(world: World, results: list[Any]) -> None:
        assert results == [None, None]
        await stage.follow(world)
        (owner,), (deposit,) = world.owners, world.deposits
        assert (await stage.status(deposit), await stage.money(owner)) == ("credited", (AMOUNT, 0, 0))
        rows = await stage.pool.fetchval("SELECT count(*) FROM bank.deposits WHERE account_id = $1", owner.account)
        assert rows == 1

    await stage.play(make, works, check)


async def test_a_page_and_a_single_booking_of_one_deposit_in_every_order(stage: Stage) -> None:
    async def make() -> World:
        return await stage.world(sight=Sight.MINED, height=TIP - 5)

    def works(world: World) -> list[Callable[[Pool], Work]]:
        (deposit,) = world.deposits
        return [lambda pool: stage.page(pool, [deposit]), lambda pool: stage.single(pool, deposit)]

    async def check(world: World, results: list[Any]) -> None:
        assert results == [None, None]
        await stage.follow(world)
        assert await stage.money(world.owners[0]) == (AMOUNT, 0, 0)

    await stage.play(make, works, check)


async def test_two_pages_whose_owners_cross_do_not_wait_for_each_other(stage: Stage) -> None:
    """Alice and Bob have a deposit in each page, and not in the same order."""

    async def make() -> World:
        world = await stage.world(owners=2, sight=Sight.MINED, height=TIP - 5)
        more = [output(each.address, Sight.MINED, TIP - 5) for each in world.outputs]
        await stage.record(stage.pool, more, tip=TIP)
        for each in more:
            world.deposits.append(
                await stage.pool.fetchval("SELECT id FROM bank.deposits WHERE txid = $1", each.outpoint.txid)
            )
        return world

    def works(world: World) -> list[Callable[[Pool], Work]]:
        alice, bob, alice_again, bob_again = world.deposits
        crossed = [alice, bob_again] if (alice < bob_again) != (alice_again < bob) else [alice, bob]
        rest = [each for each in world.deposits if each not in crossed]
        return [lambda pool: stage.page(pool, crossed), lambda pool: stage.page(pool, rest)]

    async def check(world: World, results: list[Any]) -> None:
        assert results == [None, None]
        assert [await stage.money(each) for each in world.owners] == [(2 * AMOUNT, 0, 0)] * 2

    await stage.play(make, works, check)


async def test_a_look_at_several_deposits_and_a_page_of_them_do_not_wait_for_each_other(stage: Stage) -> None:
    """One is seen at another place, one is replaced, and one is only watched."""

    async def make() -> World:
        return await stage.world(owners=3)

    def works(world: World) -> list[Callable[[Pool], Work]]:
        order = sorted(range(3), key=lambda place: world.deposits[place], reverse=True)
        seen, replaced, watched = (world.outputs[place] for place in order)
        other = output(replaced.address, Sight.MINED, TIP - 5, conflicts=(replaced.outpoint.txid,))
        outputs = [moved(seen, Sight.MINED, TIP - 5), other]
        away = [Watched(txid=watched.outpoint.txid, sight=Sight.GONE, block=None)]
        return [
            lambda pool: stage.record(pool, outputs, tip=TIP, watched=away),
            lambda pool: stage.page(pool, world.deposits),
        ]

    async def check(world: World, results: list[Any]) -> None:
        assert results == [None, None]
        await stage.follow(world)
        assert sorted([await stage.money(each) for each in world.owners]) == [(0, 0, 0), *[(AMOUNT, 0, 0)] * 2]

    await stage.play(make, works, check)


@pytest.mark.parametrize("way", ["single", "page"])
async def test_a_payment_while_its_money_is_taken_back_is_owed_or_refused(stage: Stage, way: str) -> None:
    async def make() -> World:
        world = await stage.world(sight=Sight.MINED, height=TIP - 5)
        await stage.follow(world)
        await stage.record(stage.pool, [moved(world.outputs[0], Sight.GONE)], tip=TIP)
        return world

    def works(world: World) -> list[Callable[[Pool], Work]]:
        (deposit,), (owner,) = world.deposits, world.owners
        book = (
            (lambda pool: stage.single(pool, deposit))
            if way == "single"
            else (lambda pool: stage.page(pool, [deposit]))
        )
        return [book, lambda pool: stage.spend(pool, owner, SPENT)]

    async def check(world: World, results: list[Any]) -> None:
        booked, paid = results
        assert booked is None
        assert isinstance(paid, bool)
        await stage.follow(world)
        (owner,) = world.owners
        assert await stage.money(owner) == (0, 0, SPENT if paid else 0)
        status = await stage.pool.fetchval("SELECT status FROM bank.accounts WHERE id = $1", owner.account)
        assert status == ("locked" if paid else "active")

    await stage.play(make, works, check)


@pytest.mark.parametrize("way", ["single", "page"])
@pytest.mark.parametrize("place", ["mempool", "deep"])
async def test_a_closing_while_a_deposit_comes_in_is_refused_or_leaves_it_for_nobody(
    stage: Stage, place: str, way: str
) -> None:
    sight, height, status, money = PLACES[place]

    async def make() -> World:
        return await stage.world(sight=sight, height=height)

    def works(world: World) -> list[Callable[[Pool], Work]]:
        (deposit,), (owner,) = world.deposits, world.owners
        book = (
            (lambda pool: stage.single(pool, deposit))
            if way == "single"
            else (lambda pool: stage.page(pool, [deposit]))
        )
        return [book, lambda pool: stage.close(pool, owner)]

    async def check(world: World, results: list[Any]) -> None:
        booked, closed = results
        assert booked is None
        assert isinstance(closed, bool)
        await stage.follow(world)
        (owner,), (deposit,) = world.owners, world.deposits
        nobodys = "unattributed" if place == "deep" else "pending"
        assert await stage.status(deposit) == (nobodys if closed else status)
        assert await stage.money(owner) == ((0, 0, 0) if closed else money)

    await stage.play(make, works, check)


async def test_of_two_pumps_only_the_newest_writes(stage: Stage) -> None:
    async def make() -> World:
        return await stage.world()

    def works(world: World) -> list[Callable[[Pool], Work]]:
        (seen,), old = world.outputs, stage.epoch

        async def newest(pool: Pool) -> None:
            epoch = await stage.take_over(pool)
            await stage.record(pool, [moved(seen, Sight.MINED, TIP + 1)], tip=TIP + 1, epoch=epoch)

        return [lambda pool: stage.record(pool, [moved(seen, Sight.GONE)], tip=TIP - 1, epoch=old), newest]

    async def check(world: World, results: list[Any]) -> None:
        overtaken, newest = results
        assert newest is None
        if overtaken is not None:
            assert isinstance(overtaken, Unavailable)
            assert overtaken.code == "pump_overtaken"
        row = await stage.pool.fetchrow(
            "SELECT sight, block_height, (SELECT tip_height FROM bank.chains) AS tip FROM bank.deposits WHERE id = $1",
            world.deposits[0],
        )
        assert row is not None
        assert tuple(row) == ("mined", TIP + 1, TIP + 1)

    await stage.play(make, works, check)
