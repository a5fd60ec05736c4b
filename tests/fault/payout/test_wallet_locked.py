"""The hot wallet is encrypted, and locked when a payout is to be signed: an operator hears of it, and unlocks it."""

import asyncio

import pytest

from infra.local.bitcoin_rpc import HOT
from tests.fixtures.hot_bank import HotBank
from tests.helpers.running_workflow import calls_operators
from tests.helpers.withdrawal.withdrawer import Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

AMOUNT_SAT, UNLOCKED_S = 50_000, 3600
WORDS = "correct horse battery staple"


async def test_payouts_wait_for_a_locked_wallet_and_go_on_when_it_is_unlocked(hot: HotBank) -> None:
    """Three of them, one by one. A lock that comes before the broadcast of a signed one changes nothing."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000, 100_000, 100_000)
    await asyncio.to_thread(hot.chain.call, "encryptwallet", WORDS, wallet=HOT)
    asked = [await out.ask(alice, AMOUNT_SAT) for _ in range(2)]
    for each in asked:
        row = await out.payout_is(each, "p.status = 'planned' AND problem LIKE '%is locked; unlock it there%'")
        assert (await out.row(each))["status"] == "batched"
        await calls_operators(hot, row["workflow_id"])
    await asyncio.to_thread(hot.chain.call, "walletpassphrase", WORDS, UNLOCKED_S, wallet=HOT)
    for each in asked:
        await out.reaches(each, "broadcast")
        await out.payout_is(each, "problem IS NULL")
    await hot.dies("send before call")
    asked.append(await out.ask(alice, AMOUNT_SAT))
    await hot.died()
    await asyncio.to_thread(hot.chain.call, "walletlock", wallet=HOT)
    await out.reaches(asked[-1], "broadcast")
    await hot.mine()
    rows = [await out.reaches(each, "confirmed") for each in asked]
    for each in asked:
        assert await out.received(each.address) == AMOUNT_SAT
        assert len(await out.versions(each)) == 1
    left_sat = 300_000 - sum(AMOUNT_SAT + row["miner_fee_sat"] for row in rows)
    assert await hot.money(alice) == (left_sat, 0)
