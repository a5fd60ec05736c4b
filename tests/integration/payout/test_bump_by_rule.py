"""A payout that no block takes pays more by rule, at our cost, and only so often: then operators are called."""

from typing import Any

import pytest

from engine.domain.ids import PayoutId
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.payout.desk import PayoutDesk
from tests.helpers.withdrawal.rules import set_rules

pytestmark = pytest.mark.integration

_NEVER_S, _NEVER = 30 * 86_400, 1008


async def _rule(desk: PayoutDesk, **changed: Any) -> None:
    rule = {"after_blocks": _NEVER, "after_s": _NEVER_S, "most": 2} | changed
    await set_rules(desk.bank.pool, bump=rule)


async def _empty_block(desk: PayoutDesk) -> None:
    """The miner takes nobody."""
    chain = desk.bank.chain
    chain.mine(txs=[])
    await desk.bank.follow()


async def _versions(desk: PayoutDesk, of: PayoutId) -> int:
    return len((await desk.story(of)).versions)


async def test_after_so_many_blocks_it_pays_more_and_only_we_do(payout_desk: PayoutDesk, saver: Depositor) -> None:
    await _rule(payout_desk, after_blocks=2)
    made, _ = await payout_desk.booked(saver, 50_000)
    first = await payout_desk.story(made)
    payout_desk.fees.rate_sat_kvb = 9_000
    await _empty_block(payout_desk)
    await payout_desk.step(made, times=2)
    assert await _versions(payout_desk, made) == 1
    await _empty_block(payout_desk)
    await payout_desk.step(made, times=5)  # plan, draft, sign, send, book
    story = await payout_desk.story(made)
    assert [each.rate_sat_kvb for each in story.versions] == [3_000, 9_000]
    assert [(each.paid_sat, each.miner_fee_sat) for each in story.members] == [
        (each.paid_sat, each.miner_fee_sat) for each in first.members
    ]
    shares = sum(each.miner_fee_sat for each in story.members)
    assert await payout_desk.bank.settled("exp:miner:withdraw") == story.current.fee_sat - shares
    payout_desk.fees.rate_sat_kvb = 20_000
    await _empty_block(payout_desk)
    await payout_desk.step(made, times=2)
    assert await _versions(payout_desk, made) == 2, "blocks count from the version in force"
    await payout_desk.mine(7)
    await payout_desk.step(made, times=2)
    assert (await payout_desk.story(made)).payout.status == "final"
    assert await payout_desk.bank.settled("exp:miner:withdraw") == story.current.fee_sat - shares
    await payout_desk.bank.prove()


async def test_after_so_many_seconds_it_pays_more(payout_desk: PayoutDesk, saver: Depositor) -> None:
    await _rule(payout_desk)
    made, _ = await payout_desk.booked(saver, 50_000)
    payout_desk.fees.rate_sat_kvb = 9_000
    await payout_desk.step(made, times=2)
    assert await _versions(payout_desk, made) == 1
    await _rule(payout_desk, after_s=1)
    await payout_desk.bank.pool.fetchval("SELECT pg_sleep(1.1)")
    await payout_desk.step(made)
    assert await _versions(payout_desk, made) == 2


async def test_a_rate_that_has_not_risen_is_no_reason(payout_desk: PayoutDesk, saver: Depositor) -> None:
    await _rule(payout_desk, after_blocks=1, most=0)
    made, _ = await payout_desk.booked(saver, 50_000)
    for _ in range(2):
        await _empty_block(payout_desk)
        await payout_desk.step(made)
    assert await _versions(payout_desk, made) == 1
    assert not (await payout_desk.state(made)).needs_operator


async def test_after_the_most_bumps_operators_are_called_and_may_go_on(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    await _rule(payout_desk, after_blocks=1, most=1)
    made, _ = await payout_desk.booked(saver, 50_000)
    for rate in (9_000, 20_000):
        payout_desk.fees.rate_sat_kvb = rate
        await _empty_block(payout_desk)
        await payout_desk.step(made, times=5)
    assert await _versions(payout_desk, made) == 2
    state = await payout_desk.state(made)
    assert (state.needs_operator, state.waits_for) == (
        True,
        "it has paid more 1 times by rule, and waits again: 20000 sat per 1,000 vB would be right now",
    )
    payout_desk.fees.rate_sat_kvb = 3_000
    await payout_desk.step(made)
    assert not (await payout_desk.state(made)).needs_operator, "its rate is right again"
    payout_desk.fees.rate_sat_kvb = 20_000
    await payout_desk.step(made)
    await payout_desk.bumped(made, 20_000)
    await payout_desk.step(made)
    state = await payout_desk.state(made)
    assert (state.needs_operator, state.waits_for) == (False, "a block")
    await payout_desk.mine()
    await payout_desk.step(made)
    assert (await payout_desk.story(made)).payout.confirmed_version == 3
    await payout_desk.bank.prove()
