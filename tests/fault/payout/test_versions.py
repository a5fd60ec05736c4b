"""A payout has many versions, and whichever a block takes: each payee is paid once, and the books have its fee."""

import asyncio

import pytest

from engine.domain.withdrawal.decision import WithdrawalDecisionKind
from tests.fixtures.hot_bank import HotBank
from tests.helpers.withdrawal.withdrawer import Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


async def test_the_first_version_is_confirmed_although_a_bump_was_sent(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(200_000)
    asked = await out.ask(alice, 50_000)
    await out.reaches(asked, "broadcast")
    await out.decided(asked, WithdrawalDecisionKind.BUMP, 20_000)
    first, second = await out.sent_versions(asked, 2)
    await out.payout_is(asked, f"fee_booked_sat = {second['fee_sat']}")
    await hot.prove()
    await asyncio.to_thread(lambda: hot.chain.mine(txs=[first["raw"]]))
    await out.payout_is(
        asked, f"p.status = 'confirmed' AND confirmed_version = 1 AND fee_booked_sat = {first['fee_sat']}"
    )
    row = await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == 50_000
    assert await hot.money(alice) == (150_000 - row["miner_fee_sat"], 0)


async def test_a_block_takes_the_first_version_before_the_bump_is_sent(hot: HotBank) -> None:
    """The worker dies between the bump's signature and its broadcast; meanwhile a block comes."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(200_000)
    asked = await out.ask(alice, 50_000)
    await out.reaches(asked, "broadcast")
    await out.payout_is(asked, "p.status = 'broadcast'")
    await hot.dies("sign after commit")
    await out.decided(asked, WithdrawalDecisionKind.BUMP, 20_000)
    await hot.died()
    async with hot.worker.away():
        await hot.mine()
    await out.reaches(asked, "confirmed")
    row = await out.payout_is(asked, "p.status = 'confirmed' AND problem IS NULL")
    assert row["confirmed_version"] == 1
    assert await out.received(asked.address) == 50_000


@pytest.mark.parametrize("coins", [1, 2])
async def test_a_coin_spent_by_hand_is_left_out_and_the_payee_is_paid_once(hot: HotBank, coins: int) -> None:
    """Spent at the node, in a block, after the payout is signed. Others pay; for the only one once that is deep."""
    out = Withdrawer(hot)
    await out.set_rules(deep=3)
    alice = await out.funded(900_000, 900_000, 900_000)
    await hot.dies("sign after commit")
    asked = await out.ask(alice, 850_000 * coins)
    await hot.died()
    async with hot.worker.away():
        inputs = await out.inputs(asked)
        assert len(inputs) == coins
        by_hand = await out.spend_by_hand(inputs[0])
        await asyncio.to_thread(lambda: hot.chain.mine(txs=[by_hand]))
    if coins == 1:
        await out.payout_is(asked, "problem IS NOT NULL")
        await hot.mine(2)
    await out.reaches(asked, "broadcast")
    assert len(await out.versions(asked)) == 2
    await hot.mine()
    await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == 850_000 * coins


async def test_below_a_raised_floor_it_pays_more(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(200_000)
    await hot.dies("sign after commit")
    asked = await out.ask(alice, 50_000)
    await hot.died()
    async with hot.worker.away():
        await asyncio.to_thread(hot.chain.restart, "-minrelaytxfee=0.0002")
    await out.reaches(asked, "broadcast")
    versions = await out.versions(asked)
    assert versions[0]["broadcast_at"] is None
    assert versions[-1]["rate_sat_kvb"] >= 20_000
    await hot.mine()
    row = await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == 50_000
    assert await hot.money(alice) == (150_000 - row["miner_fee_sat"], 0)
    await asyncio.to_thread(hot.chain.restart)


async def test_a_reorganisation_takes_a_payout_back_and_it_is_confirmed_again(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(200_000)
    asked = await out.ask(alice, 50_000)
    txid = (await out.reaches(asked, "broadcast"))["txid"]
    await hot.mine()
    await out.reaches(asked, "confirmed")
    await asyncio.to_thread(lambda: hot.chain.reorg(1, without=[txid]))
    await out.reaches(asked, "broadcast")
    await hot.prove()
    await hot.mine()
    await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == 50_000
    assert len(await out.versions(asked)) == 1


async def test_a_deposit_under_a_payout_disappears_and_it_is_built_again(hot: HotBank) -> None:
    """The coin's own transaction is paid elsewhere on the new chain. Other coins pay once that lies deep."""
    out = Withdrawer(hot)
    await out.set_rules(deep=3)
    alice = await hot.user()
    sent = await hot.pay(alice, 400_000)
    await hot.mine()
    await hot.shows(alice, "credited", 400_000)
    asked = await out.ask(alice, 350_000)
    await out.reaches(asked, "broadcast")
    inputs = await out.inputs(asked)
    assert sent.outpoint in inputs
    conflict = await asyncio.to_thread(hot.chain.double_spend, sent)
    await asyncio.to_thread(lambda: hot.chain.reorg(1, with_=[conflict]))
    await hot.shows(alice, "reversed")
    await out.funded(500_000)
    await hot.mine(3)
    await out.sent_versions(asked, 2)
    await hot.mine()
    await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == 350_000
    assert [status for status, _amount in await hot.receivables(alice)] == ["open"]
