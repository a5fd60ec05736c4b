"""A block takes any version of a payout, wherever the next one stands: the books have the fee of that one."""

from collections.abc import Sequence

import pytest

from engine.bank.withdrawal.coin import list_reserved
from engine.domain.ids import PayoutId
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.payout.desk import PayoutDesk

pytestmark = pytest.mark.integration


async def _block_takes(desk: PayoutDesk, of: PayoutId, number: int) -> None:
    """This version and nothing else."""
    raw = (await desk.story(of)).versions[number - 1].raw
    assert raw is not None
    desk.bank.chain.mine(txs=[raw])
    await desk.bank.follow()


async def _assert_it_ends_with(desk: PayoutDesk, of: PayoutId, number: int, user: Depositor, had_sat: int) -> None:
    """Deep in a block; nothing of the others is left."""
    await desk.step(of, times=3)  # book what was sent, see the block, book what it has
    await _assert_books_have(desk, of, number)
    await desk.mine(6)
    await desk.step(of, times=2)
    story = await desk.story(of)
    assert (story.payout.status, story.payout.confirmed_version, story.payout.problem) == ("final", number, None)
    await _assert_books_have(desk, of, number)
    async with desk.bank.pool.acquire() as conn:
        assert await list_reserved(conn, of) == []
    assert await desk.spending.frozen() == frozenset()
    (member,) = story.members
    assert await desk.bank.money(user) == (had_sat - member.paid_sat - member.miner_fee_sat, 0)
    await desk.bank.prove()


async def _assert_books_have(desk: PayoutDesk, of: PayoutId, number: int) -> None:
    story = await desk.story(of)
    fee_sat = story.versions[number - 1].fee_sat
    assert story.payout.fee_booked_sat == fee_sat
    shares = sum(each.miner_fee_sat for each in story.members)
    assert await desk.bank.settled("exp:miner:withdraw") == fee_sat - shares


async def _booked(desk: PayoutDesk, of: PayoutId, rates: Sequence[int]) -> None:
    """A version for each rate, each one sent and booked."""
    for rate in rates:
        await desk.bumped(of, rate)
        await desk.step(of)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5], ids=["wanted", "planned", "drafted", "signed", "sent", "booked"])
async def test_a_block_takes_the_first_one_while_the_next_stands_here(
    payout_desk: PayoutDesk, saver: Depositor, steps: int
) -> None:
    had_sat, _ = await payout_desk.bank.money(saver)
    made, _ = await payout_desk.booked(saver, 50_000)
    await payout_desk.wants(made, 9_000)
    await payout_desk.step(made, times=steps)
    await _block_takes(payout_desk, made, 1)
    await _assert_it_ends_with(payout_desk, made, 1, saver, had_sat)


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_block_takes_one_of_three(payout_desk: PayoutDesk, saver: Depositor, number: int) -> None:
    had_sat, _ = await payout_desk.bank.money(saver)
    made, _ = await payout_desk.booked(saver, 50_000)
    await _booked(payout_desk, made, [9_000, 20_000])
    await _block_takes(payout_desk, made, number)
    await _assert_it_ends_with(payout_desk, made, number, saver, had_sat)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
async def test_another_chain_takes_another_version(
    payout_desk: PayoutDesk, saver: Depositor, before: int, after: int
) -> None:
    """Confirmed, taken back by a reorganisation, and confirmed again as something else, in one look."""
    had_sat, _ = await payout_desk.bank.money(saver)
    made, _ = await payout_desk.booked(saver, 50_000)
    await _booked(payout_desk, made, [9_000])
    await _block_takes(payout_desk, made, before)
    await payout_desk.step(made, times=2)
    await _assert_books_have(payout_desk, made, before)
    raw = (await payout_desk.story(made)).versions[after - 1].raw
    assert raw is not None
    payout_desk.bank.chain.reorg(1, with_=[raw])
    await payout_desk.bank.follow()
    await _assert_it_ends_with(payout_desk, made, after, saver, had_sat)


async def test_a_block_is_gone_and_the_payout_is_bumped_and_confirmed_again(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    had_sat, _ = await payout_desk.bank.money(saver)
    made, txid = await payout_desk.booked(saver, 50_000)
    await payout_desk.mine()
    await payout_desk.step(made)
    payout_desk.bank.chain.reorg(1, without=[txid])
    await payout_desk.bank.follow()
    await payout_desk.step(made)
    assert (await payout_desk.story(made)).payout.status == "broadcast"
    await _assert_books_have(payout_desk, made, 1)
    await _booked(payout_desk, made, [9_000])
    await payout_desk.mine()
    await _assert_it_ends_with(payout_desk, made, 2, saver, had_sat)
