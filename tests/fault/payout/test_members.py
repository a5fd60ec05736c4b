"""Payouts of many members on a real node: who is paid where, and what each has paid for it."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from engine.domain.withdrawal.script import output_script, output_weight
from engine.ledger.account import get_account_id
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import CAPITAL
from engine.ledger.database import transaction
from engine.ledger.store import post_new_in_tx
from engine.views.balance import get_balance
from tests.fixtures.hot_bank import HotBank
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.withdrawal.withdrawer import Asked, Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

OURS = "exp:miner:withdraw"
LATER_S = 3600
KINDS = {
    "p2pkh": "76a914{:040x}88ac",
    "p2sh": "a914{:040x}87",
    "p2wpkh": "0014{:040x}",
    "p2wsh": "0020{:064x}",
    "p2tr": "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    "a later witness version": "5210{:032x}",
}
_numbers = itertools.count(1)


async def address_of(hot: HotBank, kind: str) -> str:
    """By the node, so that scripts are read by two who do not know each other."""
    script = KINDS[kind].format(next(_numbers))
    told = await asyncio.to_thread(hot.chain.call, "decodescript", script)
    assert output_script(told["address"]).hex() == script
    return str(told["address"])


async def went(out: Withdrawer, asked: Sequence[Asked]) -> list[Any]:
    return [await out.reaches(each, "broadcast") for each in asked]


async def assert_shared(out: Withdrawer, rows: Sequence[Any], ours_sat: int) -> list[tuple[str, int]]:
    """The members of one payout pay its fee by weight, and each has its output. Returns all outputs."""
    (txid,) = {row["txid"] for row in rows}
    fee_sat, outputs = await out.transaction(txid)
    shares = [row["miner_fee_sat"] for row in rows]
    assert sum(shares) + ours_sat == fee_sat
    weights = [output_weight(bytes(row["script"])) for row in rows]
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share * sum(weights) - sum(shares) * weight) < sum(weights), "not the largest remainder"
    for row in rows:
        assert outputs[row["vout"]] == (bytes(row["script"]).hex(), row["paid_sat"])
    assert len({row["vout"] for row in rows}) == len(rows)
    assert len(outputs) - len(rows) in (0, 1)
    return outputs


async def test_members_of_every_kind_of_address_pay_the_fee_of_the_transaction_exactly(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules(window_s=LATER_S)
    alice, bob = await out.funded(700_000), await out.funded(300_000, 250_000)
    before = await hot.settled(OURS)
    asked = []
    for number, (user, kind) in enumerate(itertools.product((alice, bob), KINDS)):
        asked.append(await out.ask(user, 30_000 + number, address=await address_of(hot, kind)))
    await out.flush()
    rows = await went(out, asked)
    outputs = await assert_shared(out, rows, 0)
    assert len(outputs) == len(rows) + 1, "there is change"
    await hot.prove()
    assert await hot.settled(OURS) == before
    await hot.mine()
    for number, each in enumerate(asked):
        row = await out.reaches(each, "confirmed")
        assert row["paid_sat"] == 30_000 + number
    for user, users in ((alice, rows[: len(KINDS)]), (bob, rows[len(KINDS) :])):
        had = 700_000 if user is alice else 550_000
        taken = sum(row["paid_sat"] + row["miner_fee_sat"] + row["service_fee_msat"] // 1000 for row in users)
        assert await hot.money(user) == (had - taken, 0)


async def test_one_address_is_paid_as_often_as_it_was_asked_for(hot: HotBank) -> None:
    """By two users, and by one of them twice the same amount: three outputs, three places, one transaction."""
    out = Withdrawer(hot)
    await out.set_rules(window_s=LATER_S)
    alice, bob = await out.funded(200_000), await out.funded(200_000)
    address = await out.foreign()
    asked = [await out.ask(alice, 40_000, address=address) for _ in range(2)]
    asked.append(await out.ask(bob, 40_000, address=address))
    asked.append(await out.ask(bob, 50_000, address=address))
    await out.flush()
    rows = await went(out, asked)
    await assert_shared(out, rows, 0)
    assert await out.received(address) == 170_000
    await hot.mine()
    assert [(await out.reaches(each, "confirmed"))["vout"] for each in asked] == [row["vout"] for row in rows]
    assert await out.received(address) == 170_000


async def test_a_member_whose_cap_is_below_its_share_waits_and_the_others_go_without_him(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules(window_s=LATER_S)
    alice = await out.funded(300_000)
    asked = [await out.ask(alice, 20_000 + number) for number in range(2)]
    poor = await out.ask(alice, 30_000, max_fee_sat=100)
    asked.append(await out.ask(alice, 25_000))
    await out.flush()
    await assert_shared(out, await went(out, asked), 0)
    row = await out.row(poor)
    assert row["status"] == "queued"
    assert "above its cap" in row["waits_for"]
    await hot.mine()
    for each in asked:
        await out.reaches(each, "confirmed")
    await poor.workflow.execute_update("cancel")
    await out.reaches(poor, "cancelled")
    assert await out.received(poor.address) == 0


async def test_more_than_a_payout_may_hold_go_in_several(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules(window_s=LATER_S, max_outputs=3)
    alice = await out.funded(200_000, 200_000, 200_000)
    asked = [await out.ask(alice, 20_000 + number) for number in range(8)]
    await out.flush()
    rows = await went(out, asked)
    payouts = [[row for row in rows if row["payout_id"] == payout] for payout in {row["payout_id"] for row in rows}]
    assert sorted(len(each) for each in payouts) == [2, 3, 3]
    for together in payouts:
        await assert_shared(out, together, 0)
    await hot.mine()
    for number, each in enumerate(asked):
        await out.reaches(each, "confirmed")
        assert await out.received(each.address) == 20_000 + number
    await out.set_rules(max_outputs=200)


async def test_coins_that_are_too_many_for_one_payout_are_spent_by_several(hot: HotBank) -> None:
    out = Withdrawer(hot)
    content = {"min_depth": 1, "useful_change_sat": 2_000, "long_term_rate": 3_000, "max_inputs": 2}
    await out.set_rules(window_s=LATER_S, coins=content)
    async with out.frozen_by_hand():
        alice = await out.funded(*[30_000] * 8)
        asked = [await out.ask(alice, 45_000) for _ in range(4)]
        await out.flush()
        rows = await went(out, asked)
        assert len({row["txid"] for row in rows}) == 4
        for each in asked:
            assert len(await out.inputs(each)) == 2
        await hot.mine()
        for each in asked:
            await out.reaches(each, "confirmed")
            assert await out.received(each.address) == 45_000
    await out.set_rules(coins=content | {"useful_change_sat": 10_000, "long_term_rate": 10_000, "max_inputs": 200})


async def balances(hot: HotBank, user: Depositor) -> tuple[int, int]:
    """What can be spent, and all that is on the account, in msat."""
    async with hot.pool.acquire() as conn:
        balance = await get_balance(conn, user.ledger_account_id)
    return balance.available_msat, balance.settled_msat


async def spend_msat(hot: HotBank, user: Depositor, amount_msat: int) -> None:
    """It leaves the bank in some other way."""
    async with transaction(hot.pool) as conn:
        legs = [debit(user.ledger_account_id, amount_msat), credit(await get_account_id(conn, CAPITAL), amount_msat)]
        posting = Posting(ref=f"spent:{user.id}", template="test", phase="post", actor="test", legs=legs)
        await post_new_in_tx(conn, posting)


@pytest.mark.parametrize("odd_msat", [0, 1, 999])
async def test_a_whole_balance_leaves_exactly_nothing(hot: HotBank, odd_msat: int) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(150_000)
    if odd_msat:
        await spend_msat(hot, alice, 1000 - odd_msat)
    whole_sat = 150_000 if not odd_msat else 149_999
    asked = await out.ask(alice, None, fee_from="amount", max_fee_sat=9_000)
    row = await out.reaches(asked, "broadcast")
    assert row["miner_fee_sat"] < 9_000
    fee_sat = row["service_fee_msat"] // 1000
    assert row["service_fee_msat"] % 1000 == odd_msat
    assert row["paid_sat"] == whole_sat - row["miner_fee_sat"] - fee_sat
    assert await balances(hot, alice) == (0, 0)
    await hot.mine()
    await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == row["paid_sat"]
    assert await balances(hot, alice) == (0, 0)


async def test_fees_from_the_amount_take_exactly_the_amount(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(150_000)
    asked = await out.ask(alice, 60_000, fee_from="amount")
    row = await out.reaches(asked, "broadcast")
    assert row["paid_sat"] == 60_000 - row["miner_fee_sat"] - row["service_fee_msat"] // 1000
    assert await hot.money(alice) == (90_000, 0)
    await hot.mine()
    await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == row["paid_sat"]


async def test_an_excess_too_small_for_change_is_ours_and_in_the_books(hot: HotBank) -> None:
    """One coin that is a little more than it takes: shares, and what we add, are the fee of the transaction."""
    out = Withdrawer(hot)
    await out.set_rules()
    async with out.frozen_by_hand():
        alice = await out.funded(100_000)
        before = await hot.settled(OURS)
        asked = await out.ask(alice, 99_000, max_fee_sat=1_000)
        row = await out.reaches(asked, "broadcast")
        await out.payout_is(asked, "booked_ref IS NOT NULL")
        ours_sat = await hot.settled(OURS) - before
        outputs = await assert_shared(out, [row], ours_sat)
        assert len(outputs) == 1
        assert ours_sat > 0
        await hot.prove()
    await hot.mine()
    await out.reaches(asked, "confirmed")
