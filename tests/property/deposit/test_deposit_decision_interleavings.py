"""Two operators decide about a deposit while the chain moves under it: every order, on a real PostgreSQL."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from engine.domain.deposit import Sight
from engine.domain.deposit_decision import DepositDecisionKind
from engine.ledger.database import Pool
from tests.fixtures.postgres import Database
from tests.helpers.deposit.stage import AMOUNT, SPENT, TIP, Stage, Work, World, moved, opened

pytestmark = [pytest.mark.property, pytest.mark.timeout(600)]

_PARKED = """
SELECT coalesce(sum(e.amount), 0)::bigint FROM ledger.transfers t JOIN ledger.entries e ON e.transfer_id = t.id
  JOIN ledger.accounts a ON a.id = e.account_id
 WHERE starts_with(t.external_ref, 'chain:' || $1) AND a.code = 'liab:deposits-pending' AND e.layer = 0"""
"""What is left there of a transaction's deposits: orders that were given up leave theirs."""


@pytest_asyncio.fixture(scope="module")
async def stage(shared_ledger_db: Database, pytestconfig: pytest.Config) -> AsyncIterator[Stage]:
    async with opened(shared_ledger_db, reduced=not pytestconfig.getoption("--whole-length")) as stage:
        yield stage


async def held(stage: Stage) -> World:
    """More than the limits let in, and booked."""
    world = await stage.world(sight=Sight.MINED, height=TIP - 5)
    await stage.pool.execute("UPDATE bank.deposits SET over_limit = true WHERE id = $1", world.deposits[0])
    await stage.follow(world)
    assert await stage.status(world.deposits[0]) == "held"
    return world


async def test_a_release_while_a_reorganisation_takes_the_deposit_back_leaves_nothing(stage: Stage) -> None:
    decision: Any = None

    async def make() -> World:
        nonlocal decision
        world = await held(stage)
        decision = await stage.propose(world.deposits[0], DepositDecisionKind.RELEASE)
        return world

    def works(world: World) -> list[Callable[[Pool], Work]]:
        (seen,), (deposit,) = world.outputs, world.deposits

        async def lose(pool: Pool) -> None:
            await stage.record(pool, [moved(seen, Sight.GONE)], tip=TIP)
            await stage.single(pool, deposit)

        return [lose, lambda pool: stage.decide(pool, deposit, decision)]

    async def check(world: World, results: list[Any]) -> None:
        assert results in ([None, "done"], [None, "deposit_not_waiting"])
        await stage.follow(world)
        assert await stage.status(world.deposits[0]) == ("reversed" if results[1] == "done" else "dropped")
        assert await stage.money(world.owners[0]) == (0, 0, 0)
        assert await stage.pool.fetchval(_PARKED, world.outputs[0].outpoint.txid) == 0

    await stage.play(make, works, check)


async def test_a_debt_is_forgiven_or_repaid_and_never_both(stage: Stage) -> None:
    decision: Any = None

    async def make() -> World:
        nonlocal decision
        world = await stage.world(sight=Sight.MINED, height=TIP - 5)
        await stage.follow(world)
        assert await stage.spend(stage.pool, world.owners[0], SPENT)
        await stage.record(stage.pool, [moved(world.outputs[0], Sight.GONE)], tip=TIP)
        await stage.follow(world)
        assert await stage.money(world.owners[0]) == (0, 0, SPENT)
        decision = await stage.propose(world.deposits[0], DepositDecisionKind.FORGIVE)
        return world

    def works(world: World) -> list[Callable[[Pool], Work]]:
        (seen,), (deposit,) = world.outputs, world.deposits

        async def come_back(pool: Pool) -> None:
            await stage.record(pool, [moved(seen, Sight.MINED, TIP - 5)], tip=TIP)
            await stage.single(pool, deposit)

        return [come_back, lambda pool: stage.decide(pool, deposit, decision)]

    async def check(world: World, results: list[Any]) -> None:
        assert results in ([None, "done"], [None, "deposit_not_waiting"])
        await stage.follow(world)
        left = AMOUNT if results[1] == "done" else AMOUNT - SPENT
        assert await stage.money(world.owners[0]) == (left, 0, 0)

    await stage.play(make, works, check)


async def test_two_operators_who_approve_at_once_release_once(stage: Stage) -> None:
    decision: Any = None

    async def make() -> World:
        nonlocal decision
        world = await held(stage)
        decision = await stage.propose(world.deposits[0], DepositDecisionKind.RELEASE)
        return world

    def works(world: World) -> list[Callable[[Pool], Work]]:
        (deposit,) = world.deposits

        def decided_by(who: str) -> Callable[[Pool], Work]:
            return lambda pool: stage.decide(pool, deposit, decision, who)

        return [decided_by(who) for who in ("two", "three")]

    async def check(world: World, results: list[Any]) -> None:
        assert sorted(results) == ["decision_made", "done"]
        assert await stage.status(world.deposits[0]) == "credited"
        assert await stage.money(world.owners[0]) == (AMOUNT, 0, 0)

    await stage.play(make, works, check)
