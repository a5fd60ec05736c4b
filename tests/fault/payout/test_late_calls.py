"""A step of a payout is taken by a call that was thought dead, after another call has taken it and gone on.

The late call is held before each thing that it asks of PostgreSQL or of bitcoind, one after the other. The other call
runs to its end, and beyond: a later version is out when the late one goes on. Or the call dies there, and the next one
finds what it has left. Each payee is paid once, the books and the wallet agree, and no coin stays locked.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from activities.payout.story import Step
from engine.domain.ids import PayoutId
from tests.fixtures.postgres import Database
from tests.helpers.chain import Chain
from tests.helpers.hot_wallet import by_hand
from tests.helpers.payout.stage import Fate, Stage, opened_stage

pytestmark = [pytest.mark.fault, pytest.mark.timeout(420)]


@pytest_asyncio.fixture
async def stage(ledger_db: Database, chain: Chain) -> AsyncIterator[Stage]:
    async with opened_stage(ledger_db.app_dsn, chain) as stage:
        yield stage


@pytest.mark.parametrize("fate", ["goes on", "dies"])
async def test_forming(stage: Stage, fate: Fate) -> None:
    async def prepared() -> None:
        await stage.opened()

    async def others(_: PayoutId | None) -> None:
        await stage.desk.form()
        for row in await stage.bank.pool.fetch("SELECT id FROM bank.payouts WHERE status = 'planned'"):
            await stage.steps_until(row["id"])

    assert await stage.sweep(prepared, others, fate) > 10
    for row in await stage.bank.pool.fetch("SELECT id FROM bank.payouts WHERE status = 'planned'"):
        await stage.steps_until(row["id"])
    await stage.assert_each_is_paid_once()


@pytest.mark.parametrize("fate", ["goes on", "dies"])
@pytest.mark.parametrize("step", [Step.DRAFT, Step.SIGN, Step.SEND, Step.BOOK])
async def test_a_step_while_a_later_version_is_sent_and_booked(stage: Stage, step: Step, fate: Fate) -> None:
    async def others(made: PayoutId | None) -> None:
        assert made is not None
        await stage.booked_and_bumped(made)

    assert await stage.sweep(lambda: stage.at(step), others, fate) > 8
    await stage.assert_each_is_paid_once()


@pytest.mark.parametrize("fate", ["goes on", "dies"])
async def test_the_plan_of_a_version_that_pays_more(stage: Stage, fate: Fate) -> None:
    async def prepared() -> PayoutId:
        made = await stage.at(Step.WATCH)
        await stage.wants_bump(made)
        return made

    async def others(made: PayoutId | None) -> None:
        assert made is not None
        if len((await stage.desk.story(made)).versions) == 1:
            await stage.desk.step(made)
        await stage.steps_until(made)
        assert len((await stage.desk.story(made)).versions) == 2

    assert await stage.sweep(prepared, others, fate) > 8
    await stage.assert_each_is_paid_once()


@pytest.mark.parametrize("fate", ["goes on", "dies"])
async def test_a_block_has_it_and_it_lies_deep(stage: Stage, fate: Fate) -> None:
    """The late call finds the block; the other one finds it too, and ends the payout."""

    async def prepared() -> PayoutId:
        made = await stage.at(Step.WATCH)
        await stage.wants_bump(made)
        await stage.desk.step(made)
        await stage.mined_alone(made)
        return made

    async def others(made: PayoutId | None) -> None:
        assert made is not None
        await stage.mined(6)
        await stage.steps_until(made, Step.NONE)

    assert await stage.sweep(prepared, others, fate) > 8
    await stage.assert_each_is_paid_once()


@pytest.mark.parametrize("fate", ["goes on", "dies"])
async def test_the_end_of_a_payout_that_lies_deep(stage: Stage, fate: Fate) -> None:
    """Of two versions the first is in a block: the second has a coin more, which is free again."""

    async def prepared() -> PayoutId:
        made = await stage.at(Step.WATCH, 85_000)
        await stage.wants_bump(made, 60_000)
        for _ in range(2):
            await stage.desk.step(made)
        assert [len(each.inputs) for each in (await stage.desk.story(made)).versions] == [1, 2]
        await stage.mined_alone(made)
        await stage.mined(5)
        await stage.desk.step(made)
        return made

    async def others(made: PayoutId | None) -> None:
        assert made is not None
        await stage.steps_until(made, Step.NONE)

    assert await stage.sweep(prepared, others, fate) > 8
    await stage.assert_each_is_paid_once()


@pytest.mark.parametrize("fate", ["goes on", "dies"])
async def test_a_draft_whose_coin_is_spent_by_hand(stage: Stage, fate: Fate) -> None:
    """One of two. The members go back into the queue, and are paid by others. The late call knows nothing of it."""

    async def others(made: PayoutId | None) -> None:
        assert made is not None
        story = await stage.desk.story(made)
        if story.step is not Step.DRAFT:  # the late call has stored it
            await stage.steps_until(made)
            return
        coin = story.current.inputs[0]
        spent = (coin.outpoint.txid, coin.outpoint.vout)
        raw = await asyncio.to_thread(by_hand.back_to_itself, stage.bank.chain, [spent])
        await asyncio.to_thread(lambda: stage.bank.chain.mine(txs=[raw]))
        await stage.desk.step(made)
        assert (await stage.desk.story(made)).payout.status == "dissolved"
        (again,) = await stage.desk.form()
        await stage.steps_until(again)

    assert await stage.sweep(lambda: stage.at(Step.DRAFT, 150_000), others, fate) > 4
    await stage.assert_each_is_paid_once()
