"""An operator's bump of a payout that the node does not have is done all the same."""

import pytest

from engine.domain.deposit import Outpoint
from infra.local.bitcoin_rpc import HOT
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.hot_wallet import by_hand
from tests.helpers.payout.desk import PayoutDesk

pytestmark = pytest.mark.integration


async def test_a_bump_of_a_payout_that_the_mempool_does_not_take_is_planned(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    """Somebody has spent its coin by hand, and nobody has mined that: it is outbid. A higher rate bids more."""
    chain = payout_desk.bank.chain
    made = await payout_desk.formed(saver, 50_000)
    await payout_desk.step(made, times=2)
    (spent,) = (await payout_desk.story(made)).current.inputs
    by_hand.spend(chain, [(spent.outpoint.txid, spent.outpoint.vout)], 20_000)
    await payout_desk.step(made)
    state = await payout_desk.state(made)
    assert state.needs_operator
    assert "(outbid)" in state.waits_for
    await payout_desk.wants(made, 40_000)
    await payout_desk.step(made, times=4)
    story = await payout_desk.story(made)
    assert [each.broadcast_at is not None for each in story.versions] == [False, True]
    assert story.payout.bump_to_sat_kvb is None
    await payout_desk.step(made)
    await payout_desk.mine()
    await payout_desk.step(made)
    assert (await payout_desk.story(made)).payout.confirmed_version == 2
    assert chain.call("gettxout", spent.outpoint.txid, spent.outpoint.vout) is None


async def test_a_payout_below_the_floor_pays_what_an_operator_wants(payout_desk: PayoutDesk, saver: Depositor) -> None:
    """More than the floor asks for."""
    chain = payout_desk.bank.chain
    made = await payout_desk.formed(saver, 50_000)
    await payout_desk.step(made, times=2)
    await payout_desk.wants(made, 50_000)
    chain.restart("-minrelaytxfee=0.0002")
    await payout_desk.step(made, times=4)
    assert [each.rate_sat_kvb for each in (await payout_desk.story(made)).versions] == [3_000, 50_000]
    chain.restart()


async def test_a_child_whose_parent_was_replaced_waits_without_an_operator_and_ends(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    """Its fee is booked while it may come, and taken back when the other version of its parent lies deep."""
    bank = payout_desk.bank
    made, _ = await payout_desk.booked(saver, 50_000)
    young = await payout_desk.child(made, 9_000)
    await payout_desk.step(young, times=4)
    own = (await payout_desk.story(young)).payout.fee_booked_sat
    assert own > 0
    await payout_desk.bumped(made, 60_000)
    await payout_desk.step(made)
    for _ in range(2):
        await payout_desk.step(young)
        state = await payout_desk.state(young)
        assert (state.needs_operator, state.waits_for) == (False, f"a block that takes it and its parent {made}")
    await payout_desk.mine()
    await payout_desk.step(made)
    await payout_desk.step(young)
    assert not (await payout_desk.state(young)).ended
    await payout_desk.mine(6)
    await payout_desk.step(made)
    await payout_desk.step(young)
    story = await payout_desk.story(young)
    assert (story.payout.status, story.payout.fee_booked_sat) == ("dissolved", 0)
    spent = (await payout_desk.story(made)).versions[-1].fee_sat
    shares = sum(each.miner_fee_sat for each in (await payout_desk.story(made)).members)
    assert await bank.settled("exp:miner:withdraw") == spent - shares
    await bank.prove()


async def test_a_child_is_confirmed_with_its_parent_and_its_change_can_be_spent(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    chain = payout_desk.bank.chain
    made, txid = await payout_desk.booked(saver, 50_000)
    young = await payout_desk.child(made, 9_000)
    await payout_desk.step(young, times=4)
    assert await payout_desk.spending.mempool_entry(txid) is not None
    together = await payout_desk.spending.mempool_entry(await payout_desk.txid(young))
    assert together is not None
    assert together.ancestors_fee_sat * 1000 >= 9_000 * together.ancestors_vbytes
    await payout_desk.mine(7)
    await payout_desk.step(made, times=2)
    await payout_desk.step(young, times=2)
    for each in (made, young):
        assert (await payout_desk.story(each)).payout.status == "final"
    change = Outpoint(txid=await payout_desk.txid(young), vout=0)
    assert change.txid in {each["txid"] for each in chain.call("listunspent", wallet=HOT)}
    await payout_desk.bank.prove()
