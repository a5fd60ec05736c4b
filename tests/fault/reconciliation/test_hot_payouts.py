"""The hot wallet against the books while payouts go out beside accidents: nothing is found but what is planted."""

import asyncio

import pytest

from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.chain import Chain
from tests.helpers.hot_wallet import by_hand
from tests.helpers.hot_wallet.comparison import HotReconciliation
from tests.helpers.hot_wallet.traffic import Traffic, compared, named, until_found
from tests.helpers.withdrawal.withdrawer import Asked, Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


async def until_confirmed(hot: HotBank, out: Withdrawer, asked: list[Asked]) -> None:
    """Blocks come. A step that a killed worker had begun is taken again after a minute."""

    async def look() -> bool | None:
        await hot.mine()
        return True if {(await out.row(each))["status"] for each in asked} == {"confirmed"} else None

    await eventually(look, "all to be confirmed", limit_s=120)


async def test_nothing_is_found_while_payouts_go_out_in_storms_and_a_theft_beside_them_is(
    hot: HotBank, chain: Chain
) -> None:
    out, traffic = Withdrawer(hot), Traffic(hot)
    await out.set_rules()
    alice = await hot.user()
    for amount_sat in (2_000_000, 1_500_000, 1_000_000):
        await hot.pay(alice, amount_sat)
    await hot.mine(6)
    await hot.shows(alice, "credited", 4_500_000)
    async with compared(hot) as found:
        asked = []
        for number in range(3):
            asked.append(await out.ask(alice, 50_000 + number))
            await traffic.storm(number)
        await hot.worker.kill()
        asked.append(await out.ask(alice, 60_000))
        sent = await out.reaches(asked[-1], "broadcast")
        await asyncio.to_thread(chain.evict, sent["txid"])
        await traffic.storm(3)
        await until_confirmed(hot, out, asked)
    assert named(found) == set()
    await until_found(hot, set())

    coins = (await hot.bitcoind.read_coins()).coins
    coin = next(each for each in coins if each.confirmations > 6 and not each.locked)
    spender, left_sat = await asyncio.to_thread(by_hand.spend, chain, [(coin.txid, coin.vout)], coin.amount_sat // 2)
    planted = {("coin_spent", spender, left_sat)}
    async with compared(hot) as found:
        last = await out.ask(alice, 70_000)
        await out.reaches(last, "broadcast")
        await hot.mine()
        await out.reaches(last, "confirmed")
    assert named(found) <= planted
    await until_found(hot, planted)
    await HotReconciliation(hot).correct(left_sat, reference=spender)
    await until_found(hot, set())
    await hot.mine(6)
