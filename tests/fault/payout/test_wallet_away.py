"""The hot wallet is not loaded, or gone, at each step of a payout: operators hear of it, and it goes on by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.contracts import workflow_ids
from engine.domain.withdrawal.withdrawal import Speed
from infra.local.bitcoin_rpc import HOT
from tests.fixtures.hot_bank import HotBank
from tests.helpers.deposit.depositor import WALLET, Depositor
from tests.helpers.deposit.worker import Point
from tests.helpers.running_workflow import calls_operators
from tests.helpers.withdrawal.withdrawer import Asked, Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

AMOUNT_SAT = 50_000
BATCHER = workflow_ids.batcher(WALLET, Speed.FAST)


@asynccontextmanager
async def wallet_gone(hot: HotBank) -> AsyncIterator[None]:
    """Unloaded, and its file is elsewhere, as after a disk was not mounted. Afterwards it is there, and not loaded."""
    folder = hot.chain.node.wallet_file(HOT).parent
    elsewhere = folder.with_name(f"{HOT}-elsewhere")
    async with hot.worker.away():
        await asyncio.to_thread(hot.chain.call, "unloadwallet", HOT, False)
        folder.rename(elsewhere)
    yield
    elsewhere.rename(folder)


async def paid_once(out: Withdrawer, alice: Depositor, asked: Asked) -> None:
    await out.reaches(asked, "broadcast")
    await out.hot.mine()
    row = await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == AMOUNT_SAT
    assert len(await out.versions(asked)) == 1
    assert await out.hot.money(alice) == (100_000 - AMOUNT_SAT - row["miner_fee_sat"], 0)
    await out.payout_is(asked, "problem IS NULL")


@pytest.mark.parametrize(
    "point",
    ["form before commit", "draft before commit", "sign before commit", "send before call", "book after commit"],
)
async def test_a_wallet_that_is_unloaded_is_loaded(hot: HotBank, point: Point) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    await hot.dies(point)
    asked = await out.ask(alice, AMOUNT_SAT)
    await hot.died()
    async with hot.worker.away():
        await asyncio.to_thread(hot.chain.call, "unloadwallet", HOT, False)
    await paid_once(out, alice, asked)


@pytest.mark.parametrize("point", ["draft before commit", "sign before commit", "send before call"])
async def test_a_payout_whose_wallet_is_gone(hot: HotBank, point: Point) -> None:
    """A signed one is sent without it, and then cannot be watched."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    await hot.dies(point)
    asked = await out.ask(alice, AMOUNT_SAT)
    await hot.died()
    async with wallet_gone(hot):
        row = await out.payout_is(asked, "problem LIKE '%has no wallet hot%'")
        await calls_operators(hot, row["workflow_id"])
        await hot.problem("wallet_missing")
    await paid_once(out, alice, asked)


async def test_a_queue_whose_wallet_is_gone(hot: HotBank) -> None:
    """What an operator wanted at once is not forgotten meanwhile. A block ends the batcher's pause."""
    out = Withdrawer(hot)
    await out.set_rules(window_s=3600)
    alice = await out.funded(100_000)
    async with wallet_gone(hot):
        asked = await out.ask(alice, AMOUNT_SAT)
        await out.flush()
        await calls_operators(hot, BATCHER)
        assert (await out.row(asked))["status"] == "queued"
    await hot.problem(None)
    await hot.mine()
    await paid_once(out, alice, asked)
