"""What a batcher is told by a look at its queue: when to look again, and that it is at the wrong wallet."""

import pytest

from engine.domain.withdrawal.withdrawal import Speed
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.payout.desk import PayoutDesk
from tests.helpers.withdrawal.rules import read_rules, set_rules

pytestmark = pytest.mark.integration


async def _window(desk: PayoutDesk, window_s: int) -> None:
    speeds = (await read_rules(desk.bank.pool))["speeds"]
    speeds["slow"]["window_s"] = window_s
    await set_rules(desk.bank.pool, speeds=speeds)


async def test_a_window_that_became_shorter_counts_for_those_who_wait(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    """The batcher sleeps until the end of no long window: it reads the rules again before."""
    await _window(payout_desk, 86_400)
    await payout_desk.opened(saver, 50_000, alone=False, speed=Speed.SLOW)
    look = await payout_desk.look(Speed.SLOW, flush=False)
    assert (look.payouts, look.waiting, look.again_in_s) == ([], 1, 600)
    await _window(payout_desk, 300)
    look = await payout_desk.look(Speed.SLOW, flush=False)
    assert look.again_in_s is not None
    assert 0 < look.again_in_s <= 300
    await _window(payout_desk, 0)
    assert len((await payout_desk.look(Speed.SLOW, flush=False)).payouts) == 1


async def test_nothing_is_planned_for_a_wallet_that_the_worker_cannot_spend_from(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    """The settings have another name now, and the batcher of the old one still runs."""
    assert (await payout_desk.look(Speed.FAST, wallet="old")).waiting == 0
    await payout_desk.opened(saver, 50_000)
    look = await payout_desk.look(Speed.FAST, wallet="old")
    assert (look.payouts, look.waiting, look.again_in_s, look.needs_operator) == ([], 1, 60, True)
    assert "spends from old" in (look.problem or "")
    assert len((await payout_desk.look(Speed.FAST)).payouts) == 1
