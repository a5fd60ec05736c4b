"""Hands at the node: coins are frozen or spent there between the steps of a payout, or its policy is changed."""

import asyncio

import pytest

from tests.fixtures.hot_bank import HotBank
from tests.helpers.deposit.worker import Point
from tests.helpers.withdrawal.withdrawer import Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


@pytest.mark.parametrize("point", ["form after commit", "draft after commit"])
async def test_a_coin_spent_by_hand_before_anything_is_signed_is_replaced_by_another(
    hot: HotBank, point: Point
) -> None:
    """The payout is dissolved, and its member has a place in another one at once."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(300_000, 300_000)
    await hot.dies(point)
    asked = await out.ask(alice, 250_000)
    await hot.died()
    async with hot.worker.away():
        first = await out.payout_of(asked)
        by_hand = await out.spend_by_hand(*await out.inputs(asked))
        await asyncio.to_thread(lambda: hot.chain.mine(txs=[by_hand]))
    row = await out.reaches(asked, "broadcast")
    assert row["payout_id"] != first["id"]
    assert await hot.pool.fetchval("SELECT status FROM bank.payouts WHERE id = $1", first["id"]) == "dissolved"
    assert not await hot.pool.fetchval("SELECT count(*) FROM bank.coin_reservations WHERE payout_id = $1", first["id"])
    await hot.mine()
    await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == 250_000


async def test_a_coin_frozen_by_hand_is_not_chosen(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await hot.user()
    frozen = await hot.pay(alice, 600_000)
    await hot.mine()
    await hot.shows(alice, "credited", 600_000)
    async with out.frozen_by_hand():
        other = await hot.pay(alice, 300_000)
        await hot.mine()
        await hot.shows(alice, "credited", 900_000)
        asked = await out.ask(alice, 250_000)
        await out.reaches(asked, "broadcast")
        assert await out.inputs(asked) == [other.outpoint]
        locked = await asyncio.to_thread(hot.chain.call, "listlockunspent", wallet="hot")
        assert {"txid": frozen.txid, "vout": frozen.vout} in locked
        await hot.mine()
        await out.reaches(asked, "confirmed")


async def test_a_freeze_after_the_plan_comes_too_late(hot: HotBank) -> None:
    """The coin is the payout's: whoever wants to stop it holds the payout. Paid once, and nothing stays locked."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(300_000)
    await hot.dies("form after commit")
    asked = await out.ask(alice, 250_000)
    await hot.died()
    async with hot.worker.away():
        inputs = await out.inputs(asked)
        frozen = [{"txid": each.split(":")[0], "vout": int(each.split(":")[1])} for each in inputs]
        await asyncio.to_thread(hot.chain.call, "lockunspent", False, frozen, True, wallet="hot")
    row = await out.reaches(asked, "broadcast")
    assert await out.inputs(asked) == inputs
    assert row["txid"] in await asyncio.to_thread(hot.chain.mempool)
    await hot.mine()
    await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == 250_000


async def test_an_output_that_the_node_does_not_relay_fails_alone(hot: HotBank) -> None:
    """An operator has raised what the node calls dust. Two small ones fail, their money is back; the others go."""
    out = Withdrawer(hot)
    await out.set_rules(window_s=3600)
    alice = await out.funded(300_000)
    await asyncio.to_thread(hot.chain.restart, "-dustrelayfee=0.001")
    small = [await out.ask(alice, amount_sat) for amount_sat in (4_000, 5_000)]
    large = [await out.ask(alice, amount_sat) for amount_sat in (40_000, 50_000)]
    await out.flush()
    for each in small:
        row = await out.reaches(each, "failed")
        assert row["failure_code"] == "output_refused"
        assert "dust" in row["failure_detail"]
    rows = []
    for each in large:
        rows.append(await out.reaches(each, "broadcast"))
    assert rows[0]["txid"] == rows[1]["txid"]
    await hot.mine()
    taken_sat = 0
    for each, amount_sat in zip(large, (40_000, 50_000), strict=True):
        row = await out.reaches(each, "confirmed")
        assert await out.received(each.address) == amount_sat
        taken_sat += amount_sat + row["miner_fee_sat"] + row["service_fee_msat"] // 1000
    assert await hot.money(alice) == (300_000 - taken_sat, 0)
    await asyncio.to_thread(hot.chain.restart)
