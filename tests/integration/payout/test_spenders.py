"""Who has spent a coin, on a real bitcoind: in a block, in the mempool, by hand, and after a reorganisation."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.clients.bitcoind.spenders import Spenders, Spent
from engine.clients.bitcoind.verdict import Fate, Refusal
from engine.domain.deposit import Block, Outpoint
from engine.domain.ids import Txid
from tests.helpers.bitcoind_client import reason_of
from tests.helpers.chain import STRANGER, Chain
from tests.helpers.payout.spender import Spender, spender_of

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def spender(chain: Chain) -> AsyncIterator[Spender]:
    async with spender_of(chain) as spender:
        yield spender


@pytest.fixture
def spenders(spender: Spender) -> Spenders:
    return Spenders(spender.rpc, "hot")


def by_hand(chain: Chain, coin: Outpoint, *, fee_rate: int = 3) -> Txid:
    """Somebody at the wallet sends all of a coin away."""
    sent = chain.call(
        "sendall",
        [chain.address(STRANGER)],
        None,
        "unset",
        fee_rate,
        {"inputs": [{"txid": coin.txid, "vout": coin.vout}]},
        wallet="hot",
    )
    chain.sync()
    return Txid(sent["txid"])


async def test_a_version_that_no_node_ever_took_is_gone_when_a_hand_has_spent_its_coin(
    chain: Chain, spender: Spender, spenders: Spenders
) -> None:
    coin, other = spender.coins([100_000, 50_000])
    since = chain.tip()
    signed = await spender.to_stranger([coin, other], 140_000)
    taken = by_hand(chain, coin)
    assert await spenders.in_mempool([coin, other]) == {coin: taken}
    assert await spenders.in_blocks([coin, other], since=since) == {}
    await spender.mine()
    tip = Block(height=chain.height(), hash=chain.tip())
    assert await spenders.in_mempool([coin, other]) == {}
    assert await spenders.in_blocks([coin, other], since=since) == {
        coin: Spent(txid=taken, block=tip, confirmations=1),
    }
    assert await spender.spending.transaction(signed.txid) is None
    assert (await spender.spending.broadcast(signed.raw)).fate is Fate.MISSING_INPUTS
    await asyncio.to_thread(chain.mine, 5)
    assert (await spenders.in_blocks([coin], since=since))[coin].confirmations == 6


async def test_a_reorganisation_gives_the_coin_back(chain: Chain, spender: Spender, spenders: Spenders) -> None:
    coin = spender.coin(100_000)
    await asyncio.to_thread(chain.mine, 2)
    since = chain.tip()
    taken = by_hand(chain, coin)
    await spender.mine()
    assert (await spenders.in_blocks([coin], since=since))[coin].txid == taken
    await asyncio.to_thread(lambda: chain.reorg(1, without=[taken]))
    assert await spenders.in_blocks([coin], since=since) == {}
    # The block from which to look may itself have been left.
    left = chain.tip()
    await asyncio.to_thread(lambda: chain.reorg(1, without=[taken]))
    await asyncio.to_thread(lambda: chain.mine(txs=[str(chain.call("gettransaction", taken, wallet="hot")["hex"])]))
    assert (await spenders.in_blocks([coin], since=left))[coin].txid == taken


async def test_a_replaced_version_is_not_the_spender(chain: Chain, spender: Spender, spenders: Spenders) -> None:
    """Of two versions in the wallet, the one in a block."""
    coin = spender.coin(100_000)
    since = chain.tip()
    first, second = [await spender.to_stranger([coin], amount_sat) for amount_sat in (99_000, 90_000)]
    for each in (first, second):
        assert (await spender.spending.broadcast(each.raw)).fate is Fate.ACCEPTED
    assert await spenders.in_mempool([coin]) == {coin: second.txid}
    assert (await spender.spending.broadcast(first.raw)).refusal is Refusal.OUTBID
    await asyncio.to_thread(lambda: chain.mine(txs=[first.raw]))
    assert (await spenders.in_blocks([coin], since=since))[coin].txid == first.txid
    assert await spenders.in_mempool([coin]) == {}


async def test_a_spender_that_pays_the_wallet_alone_is_found(
    chain: Chain, spender: Spender, spenders: Spenders
) -> None:
    coin = spender.coin(100_000)
    since = chain.tip()
    own = await spender.signed([coin], [(await spender.spending.change_address(), 99_000)])
    await spender.spending.broadcast(own.raw)
    await spender.mine()
    assert (await spenders.in_blocks([coin], since=since))[coin].txid == own.txid


async def test_coins_of_others_are_not_known_in_blocks(chain: Chain, spenders: Spenders) -> None:
    since = chain.tip()
    sent = await asyncio.to_thread(chain.pay, chain.address(), 20_000)
    foreign = [Outpoint(txid=Txid(coin.txid), vout=coin.vout) for coin in sent.coins]
    assert await spenders.in_mempool(foreign) == dict.fromkeys(foreign, Txid(sent.txid))
    await asyncio.to_thread(chain.mine)
    assert await spenders.in_blocks(foreign, since=since) == {}


async def test_many_coins_are_asked_about_at_once_and_none_costs_no_call(chain: Chain, spender: Spender) -> None:
    coins = spender.coins([2_000] * 150)
    since = chain.tip()
    joined = await spender.to_stranger(coins, 250_000)
    await spender.spending.broadcast(joined.raw)
    async with spender_of(chain, over_line=True) as over_line:
        spenders = Spenders(over_line.rpc, "hot")
        assert await spenders.in_mempool(coins) == dict.fromkeys(coins, joined.txid)
        await spender.mine()
        found = await spenders.in_blocks(coins, since=since)
        assert {each.txid for each in found.values()} == {joined.txid}
        assert found.keys() == set(coins)
        chain.line.calls.clear()
        assert await spenders.in_blocks([], since=since) == {}
        assert await spenders.in_mempool([]) == {}
        assert chain.line.calls == []


async def test_an_unknown_block_is_behind(chain: Chain, spender: Spender, spenders: Spenders) -> None:
    assert await reason_of(spenders.in_blocks([spender.coin(10_000)], since="00" * 32)) == "behind"
