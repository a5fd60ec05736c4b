"""The wallet has too few coins that may be spent: who waits, who goes beside him, and what a refill changes."""

import asyncio
from typing import Any

import pytest

from activities.payout.forming import PATIENCE_S
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.withdrawal.withdrawer import Asked, Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


async def waits(out: Withdrawer, asked: Asked, word: str) -> Any:
    """Wait until its row says why it waits."""

    async def look() -> Any:
        row = await out.row(asked)
        return row if row["status"] == "queued" and word in (row["waits_for"] or "") else None

    return await eventually(look, f"{asked.id} to wait: {word}")


async def make_older(out: Withdrawer, asked: Asked, by_s: int) -> None:
    """As if it had been asked for so long ago."""
    await out.meddle(
        "UPDATE bank.withdrawals SET created_at = created_at - make_interval(secs => $2) WHERE id = $1", asked.id, by_s
    )


@pytest.mark.parametrize("alone", ["nobody", "the old one", "the young ones"])
async def test_the_oldest_waits_smaller_ones_go_for_an_hour_and_a_refill_pays_all(hot: HotBank, alone: str) -> None:
    """Whether they could share a payout or not."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    async with out.frozen_by_hand():
        bob = await out.funded(30_000)
        old = await out.ask(alice, 80_000, alone=alone == "the old one")
        await waits(out, old, "do not pay it")
        young = await out.ask(bob, 10_000, alone=alone == "the young ones")
        await out.reaches(young, "broadcast")
        await waits(out, old, "do not pay it")
        await hot.mine()
        await out.reaches(young, "confirmed")

        await make_older(out, old, PATIENCE_S + 1)
        later = await out.ask(bob, 5_000, alone=alone == "the young ones")
        await waits(out, later, "an older one")
        await waits(out, old, "do not pay it")

        carol = await hot.user()
        for _ in range(2):
            await hot.pay(carol, 100_000)
        await hot.mine()
        await hot.shows(carol, "credited", 200_000)
        await out.reaches(old, "broadcast")
        row = await out.reaches(later, "broadcast")
        assert row["waits_for"] is None
        await hot.mine()
        for each, amount_sat in ((old, 80_000), (young, 10_000), (later, 5_000)):
            await out.reaches(each, "confirmed")
            assert await out.received(each.address) == amount_sat


async def test_change_pays_the_next_one_as_soon_as_it_has_its_block(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    async with out.frozen_by_hand():
        alice = await out.funded(100_000)
        first = await out.ask(alice, 20_000)
        await out.reaches(first, "broadcast")
        second = await out.ask(alice, 20_000)
        await waits(out, second, "do not pay it")
        await hot.mine()
        await out.reaches(second, "broadcast")
        await hot.mine()
        await out.reaches(second, "confirmed")
        assert await out.received(first.address) == await out.received(second.address) == 20_000


async def test_a_coin_that_is_unfrozen_is_used(hot: HotBank) -> None:
    """The node tells nobody of it: the batcher looks again by itself, and at an operator's word at once."""
    out = Withdrawer(hot)
    await out.set_rules()
    async with out.frozen_by_hand():
        alice = await hot.user()
        sent = await hot.pay(alice, 100_000)
        async with out.frozen_by_hand(sent.outpoint):
            await hot.mine()
            await hot.shows(alice, "credited", 100_000)
            asked = await out.ask(alice, 20_000)
            await waits(out, asked, "do not pay it")
        await out.flush()
        await out.reaches(asked, "broadcast")
        assert await out.inputs(asked) == [sent.outpoint]
        await hot.mine()
        await out.reaches(asked, "confirmed")


async def test_a_cap_below_the_present_share_waits_until_the_rate_has_fallen(hot: HotBank) -> None:
    """Alone it takes about 430 sat at 3 sat/vB, and 150 at 1. Others go meanwhile."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000, 100_000)
    poor = await out.ask(alice, 20_000, max_fee_sat=250, alone=True)
    rich = await out.ask(alice, 20_000)
    await out.reaches(rich, "broadcast")
    assert (await waits(out, poor, "above its cap"))["payout_id"] is None
    async with hot.worker.away():
        later = hot.make_worker("later", MILLRACE_FIXED_FEE_RATE="1000")
        at_work = asyncio.create_task(later.supervise())
        await hot.mine()
        row = await out.reaches(poor, "broadcast")
        assert row["miner_fee_sat"] <= 250
        await out.reaches(rich, "confirmed")
        at_work.cancel()
        await later.kill()
    await hot.mine()
    await out.reaches(poor, "confirmed")
    assert await out.received(poor.address) == 20_000
