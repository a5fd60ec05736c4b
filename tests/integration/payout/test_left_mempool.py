"""A payout leaves the mempool, or the node asks for more: the same bytes again, or a version above the floor."""

import pytest

from engine.domain.ids import PayoutId, Txid
from infra.local.bitcoin_rpc import HOT
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.payout.desk import PayoutDesk

pytestmark = pytest.mark.integration

_FLOOR = 20_000
_RAISED = "-minrelaytxfee=0.0002"


async def _leave(desk: PayoutDesk, txid: Txid) -> None:
    """It expires, and the wallet does not send it again by itself."""
    desk.bank.chain.evict(txid)
    desk.bank.chain.call("abandontransaction", txid, wallet=HOT)
    await desk.bank.follow()


async def _rates(desk: PayoutDesk, of: PayoutId) -> list[tuple[int, bool]]:
    """(sat per 1,000 vB, sent) of each version."""
    return [(each.rate_sat_kvb, each.broadcast_at is not None) for each in (await desk.story(of)).versions]


async def test_one_that_expires_is_sent_again_as_often_as_it_does(payout_desk: PayoutDesk, saver: Depositor) -> None:
    made, txid = await payout_desk.booked(saver, 50_000)
    for _ in range(2):
        await _leave(payout_desk, txid)
        assert await payout_desk.spending.mempool_entry(txid) is None
        await payout_desk.step(made)
        assert await payout_desk.spending.mempool_entry(txid) is not None
    assert await _rates(payout_desk, made) == [(3_000, True)]
    await payout_desk.mine()
    await payout_desk.step(made)
    assert (await payout_desk.story(made)).payout.status == "confirmed"
    await payout_desk.bank.prove()


async def test_a_mempool_that_is_lost_takes_the_same_bytes(payout_desk: PayoutDesk, saver: Depositor) -> None:
    made, txid = await payout_desk.booked(saver, 50_000)
    payout_desk.bank.chain.restart("-persistmempool=0")
    await payout_desk.step(made)
    assert await payout_desk.spending.mempool_entry(txid) is not None
    assert await _rates(payout_desk, made) == [(3_000, True)]


@pytest.mark.parametrize("steps", [0, 1, 2], ids=["planned", "drafted", "signed"])
async def test_a_floor_that_rises_before_it_is_sent_is_reached(
    payout_desk: PayoutDesk, saver: Depositor, steps: int
) -> None:
    made = await payout_desk.formed(saver, 50_000)
    await payout_desk.step(made, times=steps)
    payout_desk.bank.chain.restart(_RAISED)
    await payout_desk.step(made, times=8 - steps)  # draft, sign, refused; draft, sign, send, book; watch
    (first, was_sent), *later = await _rates(payout_desk, made)
    assert (first, was_sent) == (3_000, False)
    assert [sent for rate, sent in later if rate >= _FLOOR] == [True]
    assert not (await payout_desk.state(made)).needs_operator
    await payout_desk.mine()
    await payout_desk.step(made)
    story = await payout_desk.story(made)
    assert story.payout.confirmed_version == 2
    shares = sum(each.miner_fee_sat for each in story.members)
    assert await payout_desk.bank.settled("exp:miner:withdraw") == story.current.fee_sat - shares
    await payout_desk.bank.prove()
    payout_desk.bank.chain.restart()


async def test_a_floor_above_the_estimate_is_paid_at_once(payout_desk: PayoutDesk, saver: Depositor) -> None:
    payout_desk.bank.chain.restart(_RAISED)
    made = await payout_desk.formed(saver, 50_000)
    await payout_desk.step(made, times=4)
    ((rate, was_sent),) = await _rates(payout_desk, made)
    assert rate >= _FLOOR
    assert was_sent
    payout_desk.bank.chain.restart()


async def test_a_floor_that_rises_over_one_in_the_mempool_is_reached(payout_desk: PayoutDesk, saver: Depositor) -> None:
    """The node reads its mempool at its start, and leaves it out."""
    made, txid = await payout_desk.booked(saver, 50_000)
    payout_desk.bank.chain.restart(_RAISED)
    assert await payout_desk.spending.mempool_entry(txid) is None
    await payout_desk.step(made, times=5)
    (first, later) = await _rates(payout_desk, made)
    assert first == (3_000, True)
    assert later[0] >= _FLOOR
    assert later[1]
    story = await payout_desk.story(made)
    assert story.payout.fee_booked_sat == story.current.fee_sat
    await payout_desk.bank.prove()
    payout_desk.bank.chain.restart()


async def test_a_floor_that_rose_and_fell_takes_the_same_bytes(payout_desk: PayoutDesk, saver: Depositor) -> None:
    """Looked at only afterwards."""
    made, txid = await payout_desk.booked(saver, 50_000)
    payout_desk.bank.chain.restart(_RAISED, "-persistmempool=0")
    payout_desk.bank.chain.restart()
    await payout_desk.step(made)
    assert await payout_desk.spending.mempool_entry(txid) is not None
    assert await _rates(payout_desk, made) == [(3_000, True)]
