"""While an operator holds a payout nothing new of it is signed or sent; what is out already is looked after."""

import pytest

from engine.domain.ids import PayoutId, Txid
from infra.local.bitcoin_rpc import HOT
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.payout.desk import PayoutDesk

pytestmark = pytest.mark.integration


async def _numbers(desk: PayoutDesk, of: PayoutId) -> list[tuple[bool, bool, bool]]:
    """(drafted, signed, sent) of each version."""
    return [
        (each.psbt is not None, each.raw is not None, each.broadcast_at is not None)
        for each in (await desk.story(of)).versions
    ]


async def _leave(desk: PayoutDesk, txid: Txid) -> None:
    """The mempool has lost it, and the wallet does not send it again by itself."""
    desk.bank.chain.evict(txid)
    desk.bank.chain.call("abandontransaction", txid, wallet=HOT)
    await desk.bank.follow()


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_payout_on_hold_takes_no_step_before_it_is_sent(
    payout_desk: PayoutDesk, saver: Depositor, steps: int
) -> None:
    made = await payout_desk.formed(saver, 50_000)
    await payout_desk.step(made, times=steps)
    before = await _numbers(payout_desk, made)
    await payout_desk.held(made)
    await payout_desk.step(made, times=3)
    assert await _numbers(payout_desk, made) == before
    state = await payout_desk.state(made)
    assert (state.step_due, state.needs_operator, state.waits_for) == (False, True, "an operator, who holds it")
    await payout_desk.held(made, on_hold=False)
    await payout_desk.step(made, times=4 - steps)
    assert (await payout_desk.story(made)).payout.booked_ref is not None


async def test_a_payout_on_hold_is_booked_and_confirmed_when_it_was_sent_already(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    made, _ = await payout_desk.sent(saver, 50_000)
    await payout_desk.held(made)
    await payout_desk.step(made)
    assert (await payout_desk.story(made)).payout.status == "broadcast"
    await payout_desk.mine()
    await payout_desk.step(made)
    assert (await payout_desk.story(made)).payout.status == "confirmed"
    await payout_desk.mine(6)
    await payout_desk.step(made)
    assert (await payout_desk.story(made)).payout.status == "final"


async def test_a_payout_on_hold_sends_the_same_bytes_again_and_pays_no_more(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    """An operator's bump was decided before the hold: it waits for the end of the hold."""
    made, txid = await payout_desk.booked(saver, 50_000)
    await payout_desk.wants(made, 9_000)
    await payout_desk.held(made)
    await payout_desk.step(made, times=2)
    await _leave(payout_desk, txid)
    await payout_desk.step(made)
    assert await payout_desk.spending.mempool_entry(txid) is not None
    assert len(await _numbers(payout_desk, made)) == 1
    await payout_desk.held(made, on_hold=False)
    await payout_desk.step(made, times=4)
    assert await _numbers(payout_desk, made) == [(True, True, True)] * 2


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_later_version_waits_for_the_end_of_a_hold_and_the_sent_one_may_be_confirmed(
    payout_desk: PayoutDesk, saver: Depositor, steps: int
) -> None:
    """Planned, drafted or signed: it is not sent. The first version is, again, when it has left the mempool."""
    made, txid = await payout_desk.booked(saver, 50_000)
    await payout_desk.wants(made, 9_000)
    await payout_desk.step(made, times=steps)
    before = await _numbers(payout_desk, made)
    await payout_desk.held(made)
    await _leave(payout_desk, txid)
    await payout_desk.step(made, times=3)
    assert await _numbers(payout_desk, made) == before
    assert await payout_desk.spending.mempool_entry(txid) is not None
    state = await payout_desk.state(made)
    assert (state.step_due, state.needs_operator) == (False, True)
    await payout_desk.mine()
    await payout_desk.step(made)
    assert (await payout_desk.story(made)).payout.confirmed_version == 1
    await payout_desk.bank.prove()


async def test_a_payout_on_hold_is_not_lifted_to_a_floor_that_has_risen(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    """The node refuses the same bytes. Operators are told why, and the end of the hold lets it pay more."""
    chain = payout_desk.bank.chain
    made, _ = await payout_desk.booked(saver, 50_000)
    await payout_desk.held(made)
    chain.restart("-minrelaytxfee=0.0002", "-persistmempool=0")
    await payout_desk.step(made, times=2)
    assert len(await _numbers(payout_desk, made)) == 1
    state = await payout_desk.state(made)
    assert state.needs_operator
    assert "does not take it (below_floor)" in state.waits_for
    await payout_desk.held(made, on_hold=False)
    await payout_desk.step(made, times=4)
    versions = (await payout_desk.story(made)).versions
    assert [each.rate_sat_kvb >= 20_000 for each in versions] == [False, True]
    assert versions[1].broadcast_at is not None
    chain.restart()
