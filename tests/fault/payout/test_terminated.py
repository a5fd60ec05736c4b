"""Batchers, payouts and withdrawals that are ended by hand, in each state, and Temporal's data lost.

A worker begins batchers, the janitor and the pump payouts, the janitor withdrawals. Each payee is paid once.
"""

import asyncio
from contextlib import suppress

import pytest
from temporalio.service import RPCError

from engine.contracts import workflow_ids
from engine.domain.withdrawal.withdrawal import Speed
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.deposit.depositor import WALLET, Depositor
from tests.helpers.deposit.worker import Point
from tests.helpers.running_workflow import runs, terminate, tidied
from tests.helpers.withdrawal.withdrawer import Asked, Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

AMOUNT_SAT = 50_000
BATCHER = workflow_ids.batcher(WALLET, Speed.FAST)
STUCK: dict[Point, str] = {
    "draft before commit": "planned",
    "sign before commit": "planned",
    "send before call": "signed",
    "sent before commit": "signed",
    "book before commit": "signed",
}
"""Where the worker dies, and what the payout is by then."""


async def paid_once(out: Withdrawer, alice: Depositor, asked: Asked, *, had_sat: int = 100_000) -> None:
    """A block comes, and everything about it is as if nothing had happened."""
    await out.reaches(asked, "broadcast")
    await out.hot.mine()
    row = await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == AMOUNT_SAT
    assert len(await out.versions(asked)) == 1
    assert await out.hot.money(alice) == (had_sat - AMOUNT_SAT - row["miner_fee_sat"], 0)


async def test_a_batcher_that_waits_for_a_window(hot: HotBank) -> None:
    """Twice: with nobody in its queue, and with somebody whose window is open."""
    out = Withdrawer(hot)
    await out.set_rules(window_s=5)
    alice = await out.funded(100_000)
    await terminate(hot, BATCHER)
    asked = await out.ask(alice, AMOUNT_SAT)

    async def back() -> bool | None:
        return True if await runs(hot, BATCHER) else None

    await eventually(back, "the batcher to be begun again")
    await terminate(hot, BATCHER)
    await paid_once(out, alice, asked)


@pytest.mark.parametrize("point", ["form before commit", "form after commit"])
async def test_a_batcher_whose_worker_dies_at_this_point(hot: HotBank, point: Point) -> None:
    """Nobody who was there knows what it has planned."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    await hot.dies(point)
    asked = await out.ask(alice, AMOUNT_SAT)
    await hot.died()
    await terminate(hot, BATCHER)
    await paid_once(out, alice, asked)


@pytest.mark.parametrize("begins", ["janitor", "block"])
@pytest.mark.parametrize("point", STUCK)
async def test_a_payout_that_was_not_booked(hot: HotBank, point: Point, begins: str) -> None:
    """The worker that dies takes nobody's step for some seconds: meanwhile the workflow is ended."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    await hot.dies(point)
    asked = await out.ask(alice, AMOUNT_SAT)
    await hot.died()
    payout = await out.payout_of(asked)
    await terminate(hot, payout["workflow_id"])
    assert (await out.payout_of(asked))["status"] == STUCK[point]
    if begins == "janitor":
        await tidied(hot, payout["workflow_id"])
    else:
        await hot.mine()
    await paid_once(out, alice, asked)


async def test_a_payout_that_waits_for_blocks(hot: HotBank) -> None:
    """Ended when it waits for a block, for a reorganisation that takes it back, and for its depth."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    asked = await out.ask(alice, AMOUNT_SAT)
    row = await out.reaches(asked, "broadcast")
    workflow_id = (await out.payout_is(asked, "p.status = 'broadcast'"))["workflow_id"]
    await terminate(hot, workflow_id)
    await hot.mine()
    await out.reaches(asked, "confirmed")
    await terminate(hot, workflow_id)
    await asyncio.to_thread(lambda: hot.chain.reorg(1, without=[row["txid"]]))
    await out.payout_is(asked, "p.status = 'broadcast'")
    await terminate(hot, workflow_id)
    await paid_once(out, alice, asked)
    await terminate(hot, workflow_id)
    await hot.mine(6)
    await out.payout_is(asked, "p.status = 'final'")


async def test_a_withdrawal_that_is_queued_can_be_cancelled_afterwards(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules(window_s=600)
    alice = await out.funded(100_000)
    stays, goes = await out.ask(alice, AMOUNT_SAT), await out.ask(alice, 20_000)
    for each in (stays, goes):
        await terminate(hot, each.workflow.id)
    await tidied(hot, stays.workflow.id, goes.workflow.id)
    await (await hot.temporal()).get_workflow_handle(goes.workflow.id).execute_update("cancel")
    await out.reaches(goes, "cancelled")
    await out.flush()
    await paid_once(out, alice, stays)


@pytest.mark.parametrize("point", ["form after commit", "sign after commit", "book after commit"])
async def test_a_withdrawal_that_has_its_payout(hot: HotBank, point: Point) -> None:
    """Its payout goes on without it, and the janitor begins it again."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    await hot.dies(point)
    asked = await out.ask(alice, AMOUNT_SAT)
    await hot.died()
    await terminate(hot, asked.workflow.id)
    await tidied(hot, asked.workflow.id)
    await paid_once(out, alice, asked)

    async def ended() -> bool | None:
        return None if await runs(hot, asked.workflow.id) else True

    await eventually(ended, "the withdrawal's workflow to end")


async def test_a_withdrawal_whose_workflow_never_comes_back_is_confirmed(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    asked = await out.ask(alice, AMOUNT_SAT)
    await out.reaches(asked, "broadcast")
    await terminate(hot, asked.workflow.id)
    await paid_once(out, alice, asked)


async def test_a_withdrawal_that_waits_for_an_approval_waits_for_it_again(hot: HotBank) -> None:
    """Operators are called for it again: so says the proof after the test. Then its owner takes it back."""
    out = Withdrawer(hot)
    await out.set_rules(approval_above_sat=10_000)
    alice = await out.funded(100_000)
    asked = await out.ask(alice, AMOUNT_SAT)
    await terminate(hot, asked.workflow.id)
    await tidied(hot, asked.workflow.id)
    await hot.assert_all_is_right()
    await (await hot.temporal()).get_workflow_handle(asked.workflow.id).execute_update("cancel")
    await out.reaches(asked, "cancelled")
    assert await hot.money(alice) == (100_000, 0)
    await out.set_rules(approval_above_sat=10_000_000)


async def test_everything_is_ended_at_once_again_and_again(hot: HotBank) -> None:
    """Four withdrawals on their way, and every workflow of them and of the batcher ended five times."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(*[100_000] * 4)
    asked = [await out.ask(alice, AMOUNT_SAT, alone=bool(number % 2)) for number in range(4)]
    for _ in range(5):
        payouts = await hot.pool.fetch(
            "SELECT workflow_id FROM bank.payouts WHERE status NOT IN ('final', 'dissolved')"
        )
        for each in (BATCHER, *(row["workflow_id"] for row in payouts), *(each.workflow.id for each in asked)):
            with suppress(RPCError):  # it does not run
                await terminate(hot, each)
        await tidied(hot, BATCHER)
    for each in asked:
        await out.reaches(each, "broadcast")
    await hot.mine()
    rows = [await out.reaches(each, "confirmed") for each in asked]
    assert [await out.received(each.address) for each in asked] == [AMOUNT_SAT] * 4
    assert await hot.money(alice) == (400_000 - 4 * AMOUNT_SAT - sum(row["miner_fee_sat"] for row in rows), 0)


async def test_the_data_of_temporal_is_lost(hot: HotBank) -> None:
    """A fresh Temporal at the same address, while one is queued, one signed, one sent and one confirmed."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(*[100_000] * 4)
    confirmed = await out.ask(alice, AMOUNT_SAT)
    await out.reaches(confirmed, "broadcast")
    await hot.mine()
    await out.reaches(confirmed, "confirmed")
    sent = await out.ask(alice, AMOUNT_SAT)
    await out.payout_is(sent, "p.status = 'broadcast'")
    await hot.dies("sign after commit")
    signed = await out.ask(alice, AMOUNT_SAT)
    await hot.died()
    await out.set_rules(window_s=3)
    queued = await out.ask(alice, AMOUNT_SAT)
    await hot.environment.shutdown()
    hot.environment = await hot.start_temporal()
    await tidied(hot, (await out.payout_of(confirmed))["workflow_id"])
    for each in (sent, signed, queued):
        await out.reaches(each, "broadcast")
    await hot.mine()
    rows = [await out.reaches(each, "confirmed") for each in (confirmed, sent, signed, queued)]
    for each in (confirmed, sent, signed, queued):
        assert await out.received(each.address) == AMOUNT_SAT
        assert len(await out.versions(each)) == 1
    assert await hot.money(alice) == (400_000 - 4 * AMOUNT_SAT - sum(row["miner_fee_sat"] for row in rows), 0)
