"""Coins are joined by rule on a real node: once, while fees are low, nobody waits, and enough stay free."""

import asyncio
from typing import Any

import pytest

from engine.bank.withdrawal.coin import list_free, list_reserved
from engine.contracts.payout import PayoutRef
from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.withdrawal.withdrawal import Speed
from infra.local.bitcoin_rpc import HOT
from tests.helpers.deposit.depositor import WALLET, Depositor
from tests.helpers.hot_wallet import by_hand
from tests.helpers.payout.desk import PayoutDesk
from tests.helpers.withdrawal.rules import set_rules

pytestmark = pytest.mark.integration

COINS, JOINED = 12, 8


async def _many(desk: PayoutDesk) -> list[Depositor]:
    """Two owners of six small coins each."""
    bank = desk.bank
    users = [await bank.user() for _ in range(2)]
    addresses = [await bank.address(each) for each in users]
    bank.chain.pay_many([(addresses[number % 2], 20_000 + number) for number in range(COINS)])
    bank.chain.mine(6)
    await bank.follow()
    return users


async def _free(desk: PayoutDesk) -> int:
    """Also what earlier tests have left in the wallet."""
    async with desk.bank.pool.acquire() as conn:
        return len(await list_free(conn, WALLET, min_depth=1, limit=1000))


async def _rule(desk: PayoutDesk, *, spare: int = JOINED - 1, **changed: Any) -> None:
    """So many coins are spare."""
    rule = {"enabled": True, "below_rate": 3_000, "above_coins": await _free(desk) - spare}
    await set_rules(desk.bank.pool, consolidation=rule | changed, bump={"after_blocks": 1, "after_s": 1, "most": 10})


async def test_small_coins_are_joined_once_and_enough_stay_free(payout_desk: PayoutDesk) -> None:
    desk = payout_desk
    await _many(desk)
    await _rule(desk)
    free = await _free(desk)
    (ref,) = (await desk.look(Speed.SLOW)).payouts
    assert await _free(desk) == free - JOINED
    assert (await desk.look(Speed.SLOW)).payouts == [], "it is under way"
    made = ref.payout_id
    await desk.step(made, times=4)
    story = await desk.story(made)
    assert (story.payout.kind, story.payout.status, len(story.current.inputs)) == (
        "consolidation",
        "broadcast",
        JOINED,
    )
    assert (await desk.look(Speed.SLOW)).payouts == []
    await desk.mine()
    await desk.step(made)
    assert await _free(desk) == free - JOINED + 1
    assert (await desk.look(Speed.SLOW)).payouts == [], "no more coins than stay free"
    assert await desk.bank.settled("exp:miner:withdraw") == story.current.fee_sat
    await desk.bank.prove()


@pytest.mark.parametrize("changed", [{"enabled": False}, {"below_rate": 2_999}, {"spare": 0}])
async def test_coins_are_left_as_they_are_unless_the_rule_wants_it(
    payout_desk: PayoutDesk, changed: dict[str, Any]
) -> None:
    await _many(payout_desk)
    await _rule(payout_desk, **changed)
    assert (await payout_desk.look(Speed.SLOW)).payouts == []


async def test_only_the_batcher_of_slow_ones_joins_coins(payout_desk: PayoutDesk) -> None:
    await _many(payout_desk)
    await _rule(payout_desk)
    for speed in (Speed.FAST, Speed.STANDARD):
        assert (await payout_desk.look(speed)).payouts == []


async def test_nothing_is_joined_while_somebody_waits(payout_desk: PayoutDesk) -> None:
    """He asks for more than there is, of another speed."""
    (alice, _bob) = await _many(payout_desk)
    await _rule(payout_desk)
    await payout_desk.opened(alice, 100_000, speed=Speed.STANDARD)
    assert (await payout_desk.look(Speed.SLOW)).payouts == []


async def test_a_withdrawal_goes_with_the_coins_that_are_left(payout_desk: PayoutDesk) -> None:
    (alice, _bob) = await _many(payout_desk)
    await _rule(payout_desk)
    (ref,) = (await payout_desk.look(Speed.SLOW)).payouts
    made = await payout_desk.formed(alice, 50_000)
    async with payout_desk.bank.pool.acquire() as conn:
        assert set(await list_reserved(conn, made)).isdisjoint(await list_reserved(conn, ref.payout_id))
    for each in (made, ref.payout_id):
        await payout_desk.step(each, times=4)
    await payout_desk.mine(7)
    for each in (made, ref.payout_id):
        await payout_desk.step(each, times=2)
        assert (await payout_desk.story(each)).payout.status == "final"
    await payout_desk.bank.prove()


async def test_batchers_at_once_plan_one_consolidation(payout_desk: PayoutDesk) -> None:
    await _many(payout_desk)
    await _rule(payout_desk)
    looks = await asyncio.gather(*(payout_desk.look(Speed.SLOW) for _ in range(6)))
    found: list[PayoutRef] = [each for one in looks for each in one.payouts]
    assert len({each.payout_id for each in found}) == 1
    assert await payout_desk.bank.pool.fetchval("SELECT count(*) FROM bank.payouts") == 1


async def test_coins_that_an_operator_has_frozen_are_not_joined(payout_desk: PayoutDesk) -> None:
    await _many(payout_desk)
    await _rule(payout_desk)
    chain = payout_desk.bank.chain
    frozen = [{"txid": each["txid"], "vout": each["vout"]} for each in chain.call("listunspent", wallet=HOT)[:3]]
    chain.call("lockunspent", False, frozen, wallet=HOT)
    (ref,) = (await payout_desk.look(Speed.SLOW)).payouts
    async with payout_desk.bank.pool.acquire() as conn:
        joined = await list_reserved(conn, ref.payout_id)
    assert len(joined) == JOINED - len(frozen)
    assert set(joined).isdisjoint(Outpoint(txid=Txid(each["txid"]), vout=each["vout"]) for each in frozen)
    chain.call("lockunspent", True, wallet=HOT)


async def test_no_rule_bumps_a_consolidation_and_an_operator_may(payout_desk: PayoutDesk) -> None:
    await _many(payout_desk)
    await _rule(payout_desk)
    (ref,) = (await payout_desk.look(Speed.SLOW)).payouts
    await payout_desk.step(ref.payout_id, times=4)
    txid = await payout_desk.txid(ref.payout_id)
    payout_desk.fees.rate_sat_kvb = 20_000
    payout_desk.bank.chain.call("generateblock", payout_desk.bank.chain.address(), [])
    await payout_desk.bank.follow()
    await payout_desk.step(ref.payout_id, times=2)
    assert await payout_desk.txid(ref.payout_id) == txid
    assert await payout_desk.bumped(ref.payout_id, 20_000) != txid


async def test_a_floor_above_the_rate_of_the_rule_is_waited_for(payout_desk: PayoutDesk) -> None:
    """The node does not take it meanwhile. Operators see why; nothing is paid beyond the rule."""
    await _many(payout_desk)
    await _rule(payout_desk)
    (ref,) = (await payout_desk.look(Speed.SLOW)).payouts
    await payout_desk.step(ref.payout_id, times=2)
    chain = payout_desk.bank.chain
    chain.restart("-minrelaytxfee=0.0002")
    await payout_desk.step(ref.payout_id, times=2)
    assert len((await payout_desk.story(ref.payout_id)).versions) == 1
    assert "(below_floor)" in (await payout_desk.state(ref.payout_id)).waits_for
    chain.restart()
    await payout_desk.step(ref.payout_id, times=2)
    story = await payout_desk.story(ref.payout_id)
    assert (story.payout.status, story.payout.problem, len(story.versions)) == ("broadcast", None, 1)


async def test_a_floor_within_the_rule_is_reached(payout_desk: PayoutDesk) -> None:
    await _many(payout_desk)
    await _rule(payout_desk, below_rate=20_000)
    (ref,) = (await payout_desk.look(Speed.SLOW)).payouts
    await payout_desk.step(ref.payout_id, times=2)
    chain = payout_desk.bank.chain
    chain.restart("-minrelaytxfee=0.00005")
    await payout_desk.step(ref.payout_id, times=5)
    story = await payout_desk.story(ref.payout_id)
    assert (story.payout.status, len(story.versions)) == ("broadcast", 2)
    chain.restart()


@pytest.mark.parametrize("steps", [2, 4])
async def test_one_whose_coin_was_spent_by_hand_ends_when_that_is_deep(payout_desk: PayoutDesk, steps: int) -> None:
    """Signed, or booked: nobody is owed anything, so it is not built again. The other coins are free."""
    desk, chain = payout_desk, payout_desk.bank.chain
    await _many(desk)
    await _rule(desk)
    (ref,) = (await desk.look(Speed.SLOW)).payouts
    made = ref.payout_id
    await desk.step(made, times=steps)
    free, spent = await _free(desk), (await desk.story(made)).current.inputs[0].outpoint
    chain.mine(txs=[by_hand.back_to_itself(chain, [(spent.txid, spent.vout)])])
    await desk.bank.follow()
    await desk.step(made)
    state = await desk.state(made)
    assert (state.needs_operator, state.ended) == (True, False)
    assert "it ends as soon as that is final" in state.waits_for
    await desk.mine(6)
    await desk.step(made)
    story = await desk.story(made)
    assert (story.payout.status, story.payout.fee_booked_sat, len(story.versions)) == ("dissolved", 0, 1)
    assert await desk.bank.settled("exp:miner:withdraw") == 0
    assert await _free(desk) >= free + JOINED - 1
    assert chain.call("listlockunspent", wallet=HOT) == []
    await desk.bank.prove()
