"""A child whose parent was replaced before the child was sent: it waits, and asks for no step at once."""

import pytest

from tests.helpers.deposit.depositor import Depositor
from tests.helpers.payout.desk import PayoutDesk

pytestmark = pytest.mark.integration


async def test_an_orphaned_child_waits_for_blocks_and_is_not_tried_in_a_loop(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    parent, _ = await payout_desk.booked(saver, 50_000)
    child = await payout_desk.child(parent, 20_000)
    await payout_desk.step(child, times=2)
    await payout_desk.bumped(parent, 30_000)
    state = await payout_desk.advanced(child)
    assert (await payout_desk.story(child)).versions[0].broadcast_at is None
    assert (state.step_due, state.needs_operator, state.ended) == (False, False, False)
    assert "its parent" in state.waits_for
    await payout_desk.step(parent)
    for blocks in (1, 6):
        await payout_desk.mine(blocks)
        await payout_desk.step(parent, times=2)
    assert (await payout_desk.story(parent)).payout.status == "final"
    state = await payout_desk.advanced(child)
    assert (state.status, state.ended) == ("dissolved", True)
    await payout_desk.bank.prove()
