"""The hot wallet against the books while deposits, reorganisations and accidents go on, with the pump at work.

What runs is the real worker in a process of its own. Comparisons run beside it all the time: they may see too little,
and never what is not there. What is planted in the midst of it is found, and nothing else.
"""

import asyncio

import pytest

from engine.domain.errors import Unavailable
from infra.local.bitcoin_rpc import HOT
from tests.fixtures.hot_bank import HotBank
from tests.helpers.chain import Chain
from tests.helpers.hot_wallet import by_hand
from tests.helpers.hot_wallet.comparison import HotReconciliation
from tests.helpers.hot_wallet.traffic import Found, Traffic, compared, named, until_found

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


async def test_nothing_is_found_in_storms_and_each_thing_that_is_planted_there(hot: HotBank, chain: Chain) -> None:
    traffic = Traffic(hot)
    async with compared(hot) as found:
        for number in range(4):
            await traffic.storm(number)
        await hot.worker.kill()
        await traffic.storm(4)
    assert named(found) == set()
    await until_found(hot, set())

    coin = next(each for each in (await hot.bitcoind.read_coins()).coins if each.confirmations > 6)
    spender, left_sat = await asyncio.to_thread(by_hand.spend, chain, [(coin.txid, coin.vout)], coin.amount_sat // 2)
    strange = await asyncio.to_thread(chain.pay, by_hand.change_address(chain), 77_000)
    await hot.mine()
    planted = {("coin_spent", spender, left_sat), ("coin_not_in_books", strange.outpoint, -77_000)}
    async with compared(hot) as found:
        for number in range(5, 8):
            await traffic.storm(number)
    assert named(found) <= planted | unmined(planted)
    await until_found(hot, planted)
    reconciliation = HotReconciliation(hot)
    await reconciliation.correct(left_sat, reference=spender)
    await reconciliation.correct(-77_000, reference=strange.outpoint)
    await until_found(hot, set())


def unmined(planted: Found) -> Found:
    """What is planted may be taken out of its block by a reorganisation: half of it is true then."""
    return {each for each in planted if each[0] == "coin_spent"}


async def test_a_bitcoind_that_dies_and_returns_leaves_nothing_to_find(hot: HotBank, chain: Chain) -> None:
    traffic = Traffic(hot)
    async with compared(hot) as found:
        await traffic.storm(1)
        await asyncio.to_thread(chain.kill)
        with pytest.raises(Unavailable):
            await HotReconciliation(hot).compare()
        await asyncio.to_thread(chain.start)
        await traffic.storm(2)
    assert named(found) == set()
    await until_found(hot, set())


async def test_a_wallet_restored_from_an_older_copy_leaves_nothing_to_find(hot: HotBank, chain: Chain) -> None:
    copy = await asyncio.to_thread(chain.copy_wallet)
    await Traffic(hot).storm(1)
    async with compared(hot) as found:
        await asyncio.to_thread(chain.restore_wallet, HOT, copy)
        await Traffic(hot).storm(2)
    assert named(found) == set()
    await until_found(hot, set())


async def test_lost_keys_are_found_and_their_return_too(hot: HotBank, chain: Chain) -> None:
    await Traffic(hot).storm(1)
    await hot.at_rest()
    whole = await asyncio.to_thread(chain.copy_wallet)
    coins = {(each.txid, each.vout): each.amount_sat for each in (await hot.bitcoind.read_coins()).coins}
    await asyncio.to_thread(chain.call, "createwallet", "without", False, True)
    empty = await asyncio.to_thread(chain.copy_wallet, "without")
    await asyncio.to_thread(chain.restore_wallet, HOT, empty)
    try:
        await until_found(hot, {("coin_without_key", f"{txid}:{vout}", sat) for (txid, vout), sat in coins.items()})
    finally:
        await asyncio.to_thread(chain.restore_wallet, HOT, whole)
    await until_found(hot, set())
