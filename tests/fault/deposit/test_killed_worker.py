"""Workers that die at every step of a deposit, while blocks come: each step is done, and done once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fixtures.hot_bank import HotBank
from tests.helpers.deposit.worker import Point

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

ORDERS: list[tuple[Point, set[str]]] = [
    ("record before commit", {"seen", "taken back"}),
    ("record after commit", {"credited", "taken back"}),
    ("wake before start", {"seen", "credited again"}),
    ("wake after start", {"credited", "taken back"}),
    ("advance before commit", {"credited", "taken back"}),
    ("advance after commit", {"seen", "credited again"}),
]


@pytest.mark.parametrize(("point", "steps"), ORDERS)
async def test_a_worker_dies_at_this_point(hot: HotBank, point: Point, steps: set[str]) -> None:
    alice = await hot.user()

    @asynccontextmanager
    async def dying(step: str) -> AsyncIterator[None]:
        if step in steps:
            await hot.dies(point)
        yield
        await hot.died()

    async with dying("seen"):
        sent = await hot.pay(alice, 50_000)
    await hot.shows(alice, "pending", incoming=50_000)
    async with dying("credited"):
        await hot.mine()
    await hot.shows(alice, "credited", 50_000)
    async with dying("taken back"):
        await asyncio.to_thread(lambda: hot.chain.reorg(1, without=[sent.txid]))
    await hot.shows(alice, "reversed", incoming=50_000)
    async with dying("credited again"):
        await hot.mine()
    await hot.shows(alice, "credited", 50_000)
    row = (await hot.rows(alice))[0]
    assert (row["holds"], row["confs"]) == (2, 2)


async def test_all_die_again_and_again_while_blocks_come(hot: HotBank) -> None:
    """The worker, bitcoind and the connections to the books, in turn and all at once; deposits come all the time."""
    users = [await hot.user() for _ in range(3)]

    async def bitcoind() -> None:
        await asyncio.to_thread(hot.chain.kill)
        await asyncio.to_thread(hot.chain.start)

    accidents = [[hot.worker.kill], [bitcoind], [hot.cut_database], [hot.worker.kill, bitcoind, hot.cut_database]]
    with hot.chain.mining(0.2):
        for number, accident in enumerate(accidents):
            for user in users:
                await hot.pay(user, 10_000 + number)
            height = await hot.height()
            await asyncio.gather(*(each() for each in accident))
            await hot.passes(height + 1)
    await hot.mine()
    for user in users:
        await hot.shows(user, "credited", 40_006)
        assert [row["confs"] for row in await hot.rows(user)] == [1] * len(accidents)


async def test_many_in_one_block_and_a_worker_that_dies_at_their_page(hot: HotBank) -> None:
    users = [await hot.user() for _ in range(4)]
    addresses = [await hot.address(users[number % 4]) for number in range(28)]
    await hot.dies("advance before commit")
    await asyncio.to_thread(hot.chain.pay_many, [(address, 2_000) for address in addresses])
    await hot.died()
    for user in users:
        await hot.shows(user, "pending", incoming=14_000)
    await hot.dies("advance after commit")
    await hot.mine()
    await hot.died()
    for user in users:
        await hot.shows(user, "credited", 14_000)
        assert not any(row["alone"] for row in await hot.rows(user))
