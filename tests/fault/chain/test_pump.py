"""The chain pump on a block that was left, behind a node that has lost blocks, beside another one, on another chain."""

import asyncio

import pytest
from temporalio.testing import ActivityEnvironment

from activities.chain.chain import ChainPump
from activities.chain.fee_report import FeeReporter
from activities.chain.wake import Waker
from engine.clients.bitcoind.fees import FixedFees
from engine.contracts import workflow_ids
from engine.contracts.chain import ChainPumpInput
from engine.domain.errors import Unavailable
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.deposit.depositor import WALLET

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


@pytest.mark.parametrize("depth", [2, 12])
async def test_the_cursor_is_on_a_block_that_was_left(hot: HotBank, depth: int) -> None:
    """Everything happens while no worker runs: a reorganisation, a double spend, and a deposit nobody had seen."""
    taken, kept, unseen = [await hot.user() for _ in range(3)]
    sent = await hot.pay(taken, 50_000)
    await hot.pay(kept, 60_000)
    await hot.mine(depth)
    await hot.shows(kept, "credited", 60_000)
    await hot.shows(taken, "credited", 50_000)
    async with hot.worker.away():
        conflict = await asyncio.to_thread(hot.chain.double_spend, sent)
        await hot.pay(unseen, 70_000)
        await asyncio.to_thread(lambda: hot.chain.reorg(depth, with_=[conflict], extra=3))
        await hot.mine(7)
    await hot.shows(unseen, "credited", 70_000)
    await hot.shows(kept, "credited", 60_000)
    await hot.shows(taken, "reversed")
    assert (await hot.rows(unseen))[0]["final_at"] is not None


async def test_a_node_that_has_lost_blocks_takes_no_money_back(hot: HotBank) -> None:
    """Killed, it is behind. It builds other blocks: a reorganisation, as soon as they have more work."""
    lost, kept = await hot.user(), await hot.user()
    sent = await hot.pay(lost, 50_000)
    await hot.pay(kept, 60_000)
    conflict = await asyncio.to_thread(hot.chain.double_spend, sent)
    height = await asyncio.to_thread(hot.chain.height)
    await hot.mine(3, flush=False)
    await hot.shows(kept, "credited", 60_000)
    await hot.shows(lost, "credited", 50_000)
    await asyncio.to_thread(hot.chain.kill)
    await hot.problem("unreachable", "cut_off")
    await asyncio.to_thread(hot.chain.start)
    assert await asyncio.to_thread(hot.chain.height) == height, "the node has kept what it should have lost"
    await hot.problem("behind")
    await asyncio.to_thread(lambda: hot.chain.mine(txs=[conflict]))
    await hot.mine()
    await hot.reported_anew()
    await hot.problem("behind")
    for user, amount_sat in ((lost, 50_000), (kept, 60_000)):
        await hot.shows(user, "credited", amount_sat)
        assert [row["confs"] for row in await hot.rows(user)] == [1]
    await hot.mine(2)
    await hot.problem(None)
    await hot.shows(lost, "reversed")
    await hot.shows(kept, "credited", 60_000)


async def test_two_pumps_by_mistake(hot: HotBank) -> None:
    """A second one takes over, the first is refused and takes over in its turn; nothing is doubled."""
    client = await hot.temporal()
    second = ChainPump(
        hot.bitcoind,
        hot.pool,
        network="regtest",
        waker=Waker(hot.pool, client, 100),
        announcements=hot.chain.zmq,
        address_pool=10,
        fees=FeeReporter(FixedFees(hot.rpc, 2000), hot.pool),
    )
    overtaken = 0

    async def follow() -> None:
        nonlocal overtaken
        while True:
            try:
                await ActivityEnvironment().run(second.follow_chain, ChainPumpInput(wallet=WALLET))
            except Unavailable as refused:
                overtaken += refused.code == "pump_overtaken"

    following = asyncio.create_task(follow())
    users = [await hot.user() for _ in range(4)]
    for number, user in enumerate(users):
        sent = await hot.pay(user, 20_000 + number)
        await hot.mine()
        if number % 2:
            await asyncio.to_thread(hot.chain.reorg, 1, without=[sent.txid])
            await hot.mine()
        await hot.shows(user, "credited", 20_000 + number)

    async def refused() -> bool | None:
        return True if overtaken else None

    await eventually(refused, "the second pump to be overtaken")
    following.cancel()
    for user in users:
        (row,) = await hot.rows(user)
        assert row["confs"] in {1, 2}


async def test_a_pump_that_was_thought_dead(hot: HotBank) -> None:
    """It stands still for longer than its heartbeat may, while another process takes over; then it goes on."""
    alice, bob = await hot.user(), await hot.user()
    epoch = await hot.epoch_now()
    other = hot.make_worker("other")
    supervising = asyncio.create_task(other.supervise())
    try:
        with hot.worker.frozen():
            await hot.pay(alice, 50_000)
            await hot.mine()
            await hot.shows(alice, "credited", 50_000)
            assert await hot.epoch_now() > epoch
        await hot.pay(bob, 60_000)
        await hot.mine()
        await hot.shows(bob, "credited", 60_000)
    finally:
        supervising.cancel()
        await other.kill()
    assert [row["confs"] for row in await hot.rows()][-2:] == [1, 1]


async def test_a_node_on_another_chain_is_refused(hot: HotBank) -> None:
    """It has other blocks, and more of them. An operator is called, nothing is reversed, and the right one goes on."""
    alice = await hot.user()
    await hot.pay(alice, 50_000)
    await hot.mine()
    await hot.shows(alice, "credited", 50_000)
    await hot.at_rest()
    client, before = await hot.temporal(), await hot.height()
    await asyncio.to_thread(hot.chain.other_chain)
    await asyncio.to_thread(hot.chain.mine, before)
    await hot.problem("other_chain")

    async def called() -> bool | None:
        told = await client.get_workflow_handle(workflow_ids.chain_pump(WALLET)).describe()
        return True if told.search_attributes.get("NeedsOperator") == [True] else None

    await eventually(called, "an operator to be called")
    assert await hot.height() == before
    await hot.shows(alice, "credited", 50_000)
    await asyncio.to_thread(hot.chain.own_chain)
    await hot.problem(None)
    await hot.pay(alice, 60_000)
    await hot.mine()
    await hot.shows(alice, "credited", 110_000)
