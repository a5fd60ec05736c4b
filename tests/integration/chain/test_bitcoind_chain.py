"""What the client says of the chain: blocks, branches and the mempool, on a real node that is reorganised."""

import pytest

from engine.clients.bitcoind.answer import BranchState
from engine.clients.bitcoind.health import explain
from engine.domain.deposit import Block
from engine.domain.errors import InvariantBroken
from tests.helpers.bitcoind_client import hot
from tests.helpers.chain import Chain

pytestmark = pytest.mark.integration


def tip_of(chain: Chain) -> Block:
    return Block(height=chain.height(), hash=chain.tip())


async def test_the_chain_is_read(chain: Chain) -> None:
    async with hot(chain) as bitcoind:
        info = await bitcoind.read_info()
        assert (info.network, info.tip, info.headers) == ("regtest", tip_of(chain), chain.height())
        assert (info.pruned_below, info.initial_download) == (None, False)
        assert info.version >= 280_000
        assert str(info.version // 10_000) in info.subversion
        assert explain(info, network="regtest", needed_from_height=0, known_work=info.work) is None
        chain.mine()
        later = await bitcoind.read_info()
        assert later.work > info.work
        assert len(later.work) == 64
        hindrance = explain(info, network="regtest", known_work=later.work)
        assert hindrance is not None
        assert hindrance.reason == "behind"


async def test_another_network_is_told(chain: Chain) -> None:
    async with hot(chain) as bitcoind:
        hindrance = explain(await bitcoind.read_info(), network="mainnet")
        assert hindrance is not None
        assert hindrance.reason == "other_network"


async def test_the_mempool_is_read(chain: Chain) -> None:
    async with hot(chain) as bitcoind:
        before = await bitcoind.read_policy()
        assert (before.transactions, before.bytes) == (0, 0)
        assert 0 < before.incremental_sat_per_kvb <= before.min_relay_sat_per_kvb <= before.mempool_min_sat_per_kvb
        sent = chain.pay(chain.address(), 50_000)
        after = await bitcoind.read_policy()
        assert (after.transactions, after.bytes) == (1, chain.call("getmempoolentry", sent.txid)["vsize"])
        assert after.max_bytes == 300_000_000


async def test_hashes_end_at_the_tip(chain: Chain) -> None:
    tip = tip_of(chain)
    async with hot(chain) as bitcoind:
        known = await bitcoind.hashes_at([0, tip.height, tip.height + 1, -1])
        assert known == [chain.call("getblockhash", 0), tip.hash, None, None]
        assert await bitcoind.hashes_at([]) == []
        assert len(await bitcoind.hashes_at([0] * 250)) == 250


async def test_a_header_is_known_on_every_branch(chain: Chain) -> None:
    tip = tip_of(chain)
    async with hot(chain) as bitcoind:
        chain.reorg(1)
        assert await bitcoind.get_header(tip.hash) == tip
        assert await bitcoind.get_header("00" * 32) is None


@pytest.mark.parametrize("depth", [1, 2, 12])
async def test_a_block_is_left_and_comes_back(chain: Chain, depth: int) -> None:
    chain.mine(depth)
    old = tip_of(chain)
    first = Block(height=old.height - depth + 1, hash=chain.call("getblockhash", old.height - depth + 1))
    root = Block(height=old.height - depth, hash=chain.call("getblockhash", old.height - depth))
    async with hot(chain) as bitcoind:
        assert await bitcoind.branch_of(old) is BranchState.ACTIVE
        chain.reorg(depth)
        states = [await bitcoind.branch_of(each) for each in (old, first, root, tip_of(chain))]
        assert states == [BranchState.FORK, BranchState.FORK, BranchState.ACTIVE, BranchState.ACTIVE]
        chain.come_back(old.hash)
        assert await bitcoind.branch_of(old) is BranchState.ACTIVE


async def test_an_invalidated_block_is_left(chain: Chain) -> None:
    height = chain.height()
    below, above = (Block(height=height + number, hash=found) for number, found in enumerate(chain.mine(2), start=1))
    async with hot(chain) as bitcoind:
        chain.invalidate(below.hash)
        assert [await bitcoind.branch_of(each) for each in (below, above)] == [BranchState.FORK] * 2
        chain.reconsider(below.hash)
        assert [await bitcoind.branch_of(each) for each in (below, above)] == [BranchState.ACTIVE] * 2


async def test_a_block_that_the_node_only_has_a_header_of_is_not_left(chain: Chain) -> None:
    height = chain.height()
    ahead = chain.headers_ahead(2)
    tip = next(each for each in chain.call("getchaintips") if each["status"] == "headers-only")
    async with hot(chain) as bitcoind:
        info = await bitcoind.read_info()
        assert (info.tip.height, info.headers) == (height, height + 2)
        block = Block(height=tip["height"], hash=tip["hash"])
        assert await bitcoind.branch_of(block) is BranchState.UNKNOWN
        for each in ahead:
            chain.call("submitblock", each)
        assert await bitcoind.branch_of(block) is BranchState.ACTIVE


async def test_a_side_branch_with_less_work_is_a_fork(chain: Chain) -> None:
    """The node has its block, and never had a reason to check it."""
    parent = chain.call("getblockhash", chain.height() - 3)
    (side,) = chain.extend(parent, [[]])
    assert {each["status"] for each in chain.call("getchaintips") if each["hash"] == side} == {"valid-headers"}
    async with hot(chain) as bitcoind:
        assert await bitcoind.branch_of(Block(height=chain.height() - 2, hash=side)) is BranchState.FORK


async def test_two_branches_from_one_height_are_told_apart(chain: Chain) -> None:
    """One that was left, and one that the node has yet to load."""
    old = tip_of(chain)
    chain.reorg(1)
    chain.headers_ahead(1)
    ahead = next(each for each in chain.call("getchaintips") if each["status"] == "headers-only")
    async with hot(chain) as bitcoind:
        assert await bitcoind.branch_of(old) is BranchState.FORK
        assert await bitcoind.branch_of(Block(height=ahead["height"], hash=ahead["hash"])) is BranchState.UNKNOWN


async def test_a_block_of_another_chain_is_unknown(chain: Chain) -> None:
    tip = tip_of(chain)
    async with hot(chain) as bitcoind:
        chain.other_chain()
        assert await bitcoind.branch_of(tip) is BranchState.UNKNOWN
        assert await bitcoind.get_header(tip.hash) is None
        chain.own_chain()
        assert await bitcoind.branch_of(tip) is BranchState.ACTIVE


async def test_a_block_under_a_wrong_height_is_a_mistake_of_ours(chain: Chain) -> None:
    async with hot(chain) as bitcoind:
        with pytest.raises(InvariantBroken, match="has height"):
            await bitcoind.branch_of(Block(height=1, hash=chain.tip()))


async def test_an_output_is_unspent_until_the_mempool_spends_it(chain: Chain) -> None:
    sent = chain.pay(chain.address(), 50_000)
    coin = (sent.coins[0].txid, sent.coins[0].vout)
    async with hot(chain) as bitcoind:
        asked = [(sent.txid, 0), coin, (sent.txid, 99), ("11" * 32, 0), coin]
        expected = {(sent.txid, 0): True, coin: False, (sent.txid, 99): False, ("11" * 32, 0): False}
        assert await bitcoind.is_unspent(asked) == expected
        chain.mine()
        assert await bitcoind.is_unspent(asked) == expected
        assert await bitcoind.is_unspent([]) == {}


async def test_an_unforeseen_answer_is_seen_with_its_words(chain: Chain) -> None:
    async with hot(chain) as bitcoind:
        with pytest.raises(InvariantBroken, match="must be of length 64") as raised:
            await bitcoind.get_header("no hash")
        assert raised.value.fields["rpc_code"] == -8
