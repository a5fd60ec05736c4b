"""Whoever touches a deposit at the same moment, in every order: pump, single, page, payment and closing, on PostgreSQL.

Each order is a world of its own: a user, and a deposit as the pump has written it. At its end the books follow once
more, as they do when the pump finds a step due; then money and rows must be what one after the other would have left.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from engine.bank.chain.sighting import Watched
from engine.domain.deposit import Sight
from engine.domain.errors import Unavailable
from engine.domain.ids import DepositId
from engine.ledger.database import Pool
from tests.fixtures.postgres import Database
from tests.helpers.deposit.stage import AMOUNT, SPENT, TIP, Stage, Work, World, moved, opened, output

pytestmark = [pytest.mark.property, pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module")
async def stage(shared_ledger_db: Database, pytestconfig: pytest.Config) -> AsyncIterator[Stage]:
    """Deadlocks would be seen by the scheduler: nobody could go on."""
    async with opened(shared_ledger_db, reduced=not pytestconfig.getoption("--whole-length")) as stage:
        yield stage


PLACES = {
    "mempool": (Sight.MEMPOOL, None, "pending", (0, AMOUNT, 0)),
    "mined": (Sight.MINED, TIP, "pending", (0, AMOUNT, 0)),
    "deep": (Sight.MINED, TIP - 5, "credited", (AMOUNT, 0, 0)),
    "gone": (Sight.GONE, None, "dropped", (0, 0, 0)),
}
"""Where it is, and what becomes of one that was not credited before: its status, and its owner's money."""


def booking(stage: Stage, way: str, deposit: DepositId) -> Callable[[Pool], Work]:
    """The deposit's next step: by its own workflow, or in a page."""
    if way == "single":
        return lambda pool: stage.single(pool, deposit)
    return lambda pool: stage.page(pool, [deposit])


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
        return [lambda pool: stage.record(pool, [moved(seen, later, place)], tip=tip), booking(stage, way, deposit)]

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
        return [booking(stage, way, deposit), lambda pool: stage.spend(pool, owner, SPENT)]

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
        return [booking(stage, way, deposit), lambda pool: stage.close(pool, owner)]

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


async def test_the_newest_of_two_pumps_alone_writes(stage: Stage) -> None:
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
