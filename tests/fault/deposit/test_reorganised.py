"""Reorganisations of every depth, with the pump and the workflows at work."""

import asyncio

import pytest

from tests.fixtures.hot_bank import HotBank

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


@pytest.mark.parametrize("depth", [1, 2, 6, 12])
async def test_a_reorganisation_takes_back_what_it_must(hot: HotBank, depth: int) -> None:
    """Of deposits in the block that goes first; some spent, some of them paid elsewhere on the new chain."""
    kept, waits, stolen, spent, lost = [await hot.user() for _ in range(5)]
    sent = {user: await hot.pay(user, 50_000) for user in (kept, waits, stolen, spent, lost)}
    await hot.mine()
    await hot.mine(depth - 1) if depth > 1 else None
    for user in sent:
        await hot.shows(user, "credited", 50_000)
    for user in (spent, lost):
        await hot.spend(user, 30_000)
    await hot.at_rest()
    old = await asyncio.to_thread(hot.chain.tip)
    without = [sent[user].txid for user in (waits, spent)]
    conflicts = [await asyncio.to_thread(hot.chain.double_spend, sent[user]) for user in (stolen, lost)]
    await asyncio.to_thread(lambda: hot.chain.reorg(depth, without=without, with_=conflicts))
    await hot.shows(kept, "credited", 50_000)
    await hot.shows(waits, "reversed", incoming=50_000)
    await hot.shows(stolen, "reversed")
    await hot.shows(spent, "reversed", incoming=50_000)
    await hot.shows(lost, "reversed")
    for user in (spent, lost):
        assert await hot.receivables(user) == [("open", 30_000)]
    await hot.mine()
    await hot.shows(waits, "credited", 50_000)
    await hot.shows(spent, "credited", 20_000)
    assert await hot.receivables(spent) == [("repaid", 30_000)]
    await hot.shows(lost, "reversed")
    await asyncio.to_thread(hot.chain.come_back, old)
    for user in (kept, waits, stolen):
        await hot.shows(user, "credited", 50_000)
    for user in (spent, lost):
        await hot.shows(user, "credited", 20_000)
        assert await hot.receivables(user) == [("repaid", 30_000)]


async def test_a_transaction_that_leaves_the_mempool_and_comes_back(hot: HotBank) -> None:
    alice = await hot.user()
    sent = await hot.pay(alice, 50_000)
    for _ in range(2):
        await hot.shows(alice, "pending", incoming=50_000)
        content = await asyncio.to_thread(hot.chain.evict, sent.txid)
        await hot.shows(alice, "dropped")
        await asyncio.to_thread(hot.chain.return_, content)
    await hot.shows(alice, "pending", incoming=50_000)
    await hot.mine()
    await hot.shows(alice, "credited", 50_000)
    assert len(await hot.rows(alice)) == 1


async def test_a_transaction_that_was_evicted_comes_back_in_a_block(hot: HotBank) -> None:
    alice = await hot.user()
    sent = await hot.pay(alice, 50_000)
    await hot.shows(alice, "pending", incoming=50_000)
    content = await asyncio.to_thread(hot.chain.evict, sent.txid)
    await hot.shows(alice, "dropped")
    await asyncio.to_thread(lambda: hot.chain.mine(txs=[content]))
    await hot.shows(alice, "credited", 50_000)


async def test_blocks_go_and_come_many_times(hot: HotBank) -> None:
    """The same block, left and taken up again: each time the money is taken back and credited once."""
    alice = await hot.user()
    sent = await hot.pay(alice, 50_000)
    await hot.mine()
    with_it = await asyncio.to_thread(hot.chain.tip)
    conflict = await asyncio.to_thread(hot.chain.double_spend, sent)
    without_it = (await asyncio.to_thread(lambda: hot.chain.reorg(1, with_=[conflict])))[-1]
    for _ in range(3):
        await asyncio.to_thread(hot.chain.come_back, with_it)
        with_it = await asyncio.to_thread(hot.chain.tip)
        await hot.shows(alice, "credited", 50_000)
        await asyncio.to_thread(hot.chain.come_back, without_it)
        without_it = await asyncio.to_thread(hot.chain.tip)
        await hot.shows(alice, "reversed")
    await asyncio.to_thread(hot.chain.come_back, with_it)
    await hot.shows(alice, "credited", 50_000)
    assert len(await hot.rows(alice)) == 1


async def test_a_page_of_deposits_is_taken_back_and_credited_again(hot: HotBank) -> None:
    """Many in one block: they share their workflows, until what was spent needs one of its own."""
    users = [await hot.user() for _ in range(4)]
    addresses = [await hot.address(users[number % 4]) for number in range(28)]
    sent = await asyncio.to_thread(hot.chain.pay_many, [(address, 2_000) for address in addresses])
    await hot.mine(2)
    for user in users:
        await hot.shows(user, "credited", 14_000)
    await hot.spend(users[0], 13_000)
    old = await asyncio.to_thread(hot.chain.tip)
    conflict = await asyncio.to_thread(hot.chain.double_spend, sent[0])
    await asyncio.to_thread(lambda: hot.chain.reorg(2, with_=[conflict]))
    for user in users:
        await hot.shows(user, "reversed")
    owed = await hot.receivables(users[0])
    assert sum(amount for _status, amount in owed) == 13_000
    await asyncio.to_thread(hot.chain.come_back, old)
    await hot.shows(users[0], "credited", 1_000)
    for user in users[1:]:
        await hot.shows(user, "credited", 14_000)
    assert {status for status, _amount in await hot.receivables(users[0])} == {"repaid"}
    assert await hot.settled("exp:loss") == 0
