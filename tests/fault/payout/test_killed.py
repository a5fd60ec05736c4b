"""Workers, bitcoind, the line between them and the connections to the books die at each step of a payout."""

import asyncio

import pytest

from infra.local.bitcoin_rpc import HOT
from tests.fixtures.chain_line import Mode
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.deposit.worker import Point
from tests.helpers.withdrawal.withdrawer import Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

POINTS: list[Point] = [
    "form before commit",
    "form after commit",
    "draft before commit",
    "draft after commit",
    "sign before commit",
    "sign after commit",
    "send before call",
    "send after call",
    "sent before commit",
    "sent after commit",
    "book before commit",
    "book after commit",
]


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_that_dies_at_this_point_pays_once(hot: HotBank, point: Point) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    await hot.dies(point)
    asked = await out.ask(alice, 50_000)
    await hot.died()
    await out.reaches(asked, "broadcast")
    await hot.mine()
    row = await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == 50_000
    assert len(await out.versions(asked)) == 1
    assert await hot.money(alice) == (50_000 - row["miner_fee_sat"], 0)
    assert row["payout_id"] == (await out.payout_of(asked))["id"]


@pytest.mark.parametrize("point", POINTS)
async def test_bitcoind_and_the_worker_die_together(hot: HotBank, point: Point) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    await hot.dies(point)
    asked = await out.ask(alice, 50_000)
    await hot.died()
    async with hot.worker.away():
        await asyncio.to_thread(hot.chain.kill)
    await hot.cut_database()
    await asyncio.to_thread(hot.chain.start)
    await out.reaches(asked, "broadcast")
    version = (await out.versions(asked))[0]
    if version["txid"] not in hot.chain.mempool():  # its mempool was lost; the same bytes are sent again
        await hot.mine()
    await _until_in_mempool_or_block(hot, version["txid"])
    await hot.mine()
    await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == 50_000
    assert len(await out.versions(asked)) == 1


@pytest.mark.parametrize("mode", ["lost", "cut", "503", "silent"])
async def test_no_answer_to_a_broadcast_is_asked_again(hot: HotBank, mode: Mode) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    hot.chain.line.methods, hot.chain.line.mode = {"sendrawtransaction"}, mode
    asked = await out.ask(alice, 50_000)

    async def met() -> bool | None:
        return True if hot.chain.line.hits >= 2 else None

    await eventually(met, "two broadcasts")
    hot.chain.line.reset()
    await out.reaches(asked, "broadcast")
    await hot.mine()
    await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == 50_000
    assert len(await out.versions(asked)) == 1


async def _until_in_mempool_or_block(hot: HotBank, txid: str) -> None:
    async def look() -> bool | None:
        def known() -> bool:
            told = hot.chain.call("gettransaction", txid, wallet=HOT)
            return bool(told["confirmations"] > 0 or txid in hot.chain.mempool())

        return True if await asyncio.to_thread(known) else None

    await eventually(look, "the payout to be sent again", limit_s=45)
