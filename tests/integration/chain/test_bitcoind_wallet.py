"""What the client says of a wallet: its outputs and coins, where its transactions are, and how it comes back."""

import asyncio
from typing import Any

import pytest

from engine.clients.bitcoind.answer import Sighting, WalletEntry
from engine.clients.bitcoind.chain import Bitcoind
from engine.domain.deposit import Block, Sight
from engine.domain.errors import Unavailable
from tests.helpers.bitcoind_client import hot, opened, reason_of
from tests.helpers.chain import Chain

pytestmark = pytest.mark.integration

MEMPOOL, GONE = Sighting(kind=Sight.MEMPOOL), Sighting(kind=Sight.GONE)


def tip_of(chain: Chain) -> Block:
    return Block(height=chain.height(), hash=chain.tip())


def mined(block: Block) -> Sighting:
    return Sighting(kind=Sight.MINED, block=block)


async def listed(bitcoind: Bitcoind, since: str, txid: str) -> list[WalletEntry]:
    found = [each for each in (await bitcoind.list_since(since)).entries if each.txid == txid]
    return sorted(found, key=lambda each: (each.vout, each.incoming))


# Loading


async def test_an_unloaded_wallet_is_loaded_for_good(chain: Chain) -> None:
    async with hot(chain) as bitcoind:
        chain.call("unloadwallet", "hot", False)
        assert await bitcoind.knows([chain.tip()]) == {chain.tip(): False}
        chain.call("unloadwallet", "hot", False)
        assert (await bitcoind.list_since(chain.tip())).tip == tip_of(chain)
        chain.restart()
        assert "hot" in chain.call("listwallets")


async def test_many_calls_load_a_wallet_together(chain: Chain) -> None:
    chain.call("unloadwallet", "hot")
    async with hot(chain) as bitcoind:
        cuts = await asyncio.gather(*(bitcoind.read_coins() for _ in range(20)))
        assert {cut.tip for cut in cuts} == {tip_of(chain)}


async def test_two_processes_that_load_a_wallet_do_not_break_each_other(chain: Chain) -> None:
    chain.call("unloadwallet", "hot")
    async with hot(chain) as one, hot(chain) as other:
        cuts = await asyncio.gather(*(loaded(each) for each in (one, other)))
        assert cuts == [tip_of(chain)] * 2


async def loaded(bitcoind: Bitcoind) -> Block:
    """The tip, as soon as nobody is loading the wallet."""
    while True:
        try:
            return (await bitcoind.read_coins()).tip
        except Unavailable as error:
            assert error.fields["reason"] == "busy"  # noqa: PT017 - each error on the way is such


async def test_a_wallet_that_does_not_exist_is_missing(chain: Chain) -> None:
    async with hot(chain, wallet="nosuch") as bitcoind:
        assert await reason_of(bitcoind.list_since("")) == "wallet_missing"
        assert await reason_of(bitcoind.read_coins()) == "wallet_missing"


async def test_a_wallet_that_cannot_be_read_is_not_loaded(chain: Chain) -> None:
    chain.call("createwallet", "broken")
    chain.call("unloadwallet", "broken")
    chain.node.wallet_file("broken").write_bytes(b"no database")
    async with hot(chain, wallet="broken") as bitcoind:
        assert await reason_of(bitcoind.read_coins()) in ("wallet_not_loaded", "wallet_missing")


# Outputs


async def test_payments_are_listed_to_the_satoshi(chain: Chain) -> None:
    since = tip_of(chain)
    one, two = chain.address(), chain.address()
    sent = chain.pay_many([(one, 100_000_001), (two, 12_345), (one, 546)])
    async with hot(chain) as bitcoind:
        listing = await bitcoind.list_since(since.hash)
        assert listing.tip == since
        found = await listed(bitcoind, since.hash, sent[0].txid)
        assert [(each.vout, each.address, each.amount_sat) for each in found] == [
            (0, one, 100_000_001),
            (1, two, 12_345),
            (2, one, 546),
        ]
        assert {(each.incoming, each.change, each.coinbase, each.confirmations, each.block) for each in found} == {
            (True, False, False, 0, None)
        }
        chain.mine()
        found = await listed(bitcoind, since.hash, sent[0].txid)
        assert {(each.confirmations, each.block) for each in found} == {(1, tip_of(chain))}
        assert not await listed(bitcoind, chain.tip(), sent[0].txid)
        assert len(await listed(bitcoind, "", sent[0].txid)) == 3


async def test_a_single_satoshi_is_listed(chain: Chain) -> None:
    """No mempool relays it, and a miner may still mine it."""
    sent = chain.pay(chain.address(), 50_000)
    coin = sent.coins[0]
    address = chain.address()
    raw = chain.call("createrawtransaction", [{"txid": coin.txid, "vout": coin.vout}], [{address: "0.00000001"}])
    chain.mine(txs=[chain.call("signrawtransactionwithwallet", raw, wallet="stranger")["hex"]])
    async with hot(chain) as bitcoind:
        entries = (await bitcoind.list_since("")).entries
        assert [each.amount_sat for each in entries if each.address == address] == [1]
        coins = (await bitcoind.read_coins()).coins
        assert [each.amount_sat for each in coins if each.address == address] == [1]


async def test_a_coinbase_is_marked_and_no_coin_until_it_is_mature(chain: Chain) -> None:
    address = chain.address()
    txid = chain.coinbase_to(address)
    async with hot(chain) as bitcoind:
        (entry,) = await listed(bitcoind, "", txid)
        assert (entry.coinbase, entry.incoming, entry.change, entry.confirmations) == (True, True, False, 1)
        assert txid not in {coin.txid for coin in (await bitcoind.read_coins()).coins}
        assert await bitcoind.read_spends([txid]) == {txid: []}
        orphaned = tip_of(chain)
        chain.reorg(1)
        assert await bitcoind.look_up([txid]) == {txid: GONE}
        (entry,) = await listed(bitcoind, "", txid)
        assert (entry.confirmations, entry.block) == (0, None)
        chain.come_back(orphaned.hash)
        assert await bitcoind.look_up([txid]) == {txid: mined(orphaned)}
        chain.mine(100)
        assert txid in {coin.txid for coin in (await bitcoind.read_coins()).coins}


async def test_our_own_payment_is_listed_from_both_sides(chain: Chain) -> None:
    chain.pay(chain.address(), 1_000_000)
    chain.mine()
    target, payee = chain.address(), chain.address("stranger")
    txid = chain.call("sendmany", "", {target: "0.00100000", payee: "0.00200000"}, wallet="hot")
    chain.sync()
    async with hot(chain) as bitcoind:
        found = await listed(bitcoind, "", txid)
        told = {(each.address, each.incoming, each.change) for each in found}
        (change,) = {each.address for each in found} - {target, payee}
        assert told == {
            (target, False, False),
            (target, True, False),
            (payee, False, False),
            (change, False, True),
            (change, True, True),
        }
        assert len(found) == 5
        (spent,) = (await bitcoind.read_spends([txid, "11" * 32])).values()
        assert set(spent) == {(each["txid"], each["vout"]) for each in inputs(chain, txid)}


def inputs(chain: Chain, txid: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chain.call("getrawtransaction", txid, True)["vin"]
    return found


async def test_change_is_told_by_the_descriptor_alone(chain: Chain) -> None:
    """A wallet restored from its descriptors has no address book, and hides what it takes for change; a stranger may
    pay to a change address; and the branch need not be 1.
    """
    change = chain.call("getrawchangeaddress", "bech32", wallet="hot")
    address = chain.address()
    (first, second) = chain.pay_many([(change, 70_000), (address, 80_000)])
    chain.mine()
    private = chain.call("listdescriptors", True, wallet="hot")["descriptors"]
    wanted = [
        {
            "desc": each["desc"],
            "timestamp": 0,
            "active": each["active"],
            "internal": each["internal"],
            "range": [0, 200],
        }
        for each in private
        if each["desc"].startswith("wpkh(")
    ]
    chain.call("createwallet", "restored", False, True)
    said = chain.call("importdescriptors", wanted, wallet="restored")
    assert all(each["success"] for each in said), said
    for wallet in ("hot", "restored"):
        async with hot(chain, wallet=wallet) as bitcoind:
            found = await listed(bitcoind, "", first.txid)
            assert [(each.vout, each.change) for each in found] == [(first.vout, True), (second.vout, False)]
    chain.call("unloadwallet", "restored")


async def test_an_internal_descriptor_of_another_branch_is_change(chain: Chain) -> None:
    chain.call("createwallet", "odd", False, True)
    key = chain.call("listdescriptors", True, wallet="stranger")["descriptors"][0]["desc"]
    key = key[len("wpkh(") : key.index("/0/*")]

    def descriptor(branch: int, *, internal: bool) -> dict[str, Any]:
        text = f"wpkh({key}/{branch}/*)"
        checksum = chain.call("getdescriptorinfo", text)["checksum"]
        return {"desc": f"{text}#{checksum}", "active": True, "internal": internal, "timestamp": "now", "range": [0, 9]}

    said = chain.call("importdescriptors", [descriptor(7, internal=True), descriptor(1, internal=False)], wallet="odd")
    assert all(each["success"] for each in said), said
    pairs = [
        (chain.call("getrawchangeaddress", "bech32", wallet="odd"), 60_000),
        (chain.call("getnewaddress", "", "bech32", wallet="odd"), 60_000),
    ]
    sent = chain.pay_many(pairs)
    async with hot(chain, wallet="odd") as bitcoind:
        found = await listed(bitcoind, "", sent[0].txid)
        assert [(each.vout, each.change) for each in found] == [(0, True), (1, False)]
    chain.call("unloadwallet", "odd")


async def test_a_bare_multisig_output_is_not_listed(chain: Chain) -> None:
    sent = chain.bare_multisig(chain.address(), 90_000, also_sat=50_000)
    async with hot(chain) as bitcoind:
        assert [each.vout for each in await listed(bitcoind, "", sent.txid)] == [1]


async def test_a_listing_from_an_unknown_block_means_that_the_node_is_behind(chain: Chain) -> None:
    async with hot(chain) as bitcoind:
        assert await reason_of(bitcoind.list_since("11" * 32)) == "behind"


async def test_a_listing_from_an_orphaned_block_begins_where_the_branches_part(chain: Chain) -> None:
    sent = chain.pay(chain.address(), 50_000)
    chain.mine(3)
    orphaned = chain.tip()
    chain.reorg(3)
    async with hot(chain) as bitcoind:
        listing = await bitcoind.list_since(orphaned)
        assert listing.tip == tip_of(chain)
        (entry,) = await listed(bitcoind, orphaned, sent.txid)
        assert entry.confirmations == 4


# Where transactions are


async def test_a_payment_is_followed_through_a_double_spend_and_back(chain: Chain) -> None:
    sent = chain.pay(chain.address(), 50_000)
    async with hot(chain) as bitcoind:
        assert await bitcoind.look_up([sent.txid, sent.txid]) == {sent.txid: MEMPOOL}
        chain.mine()
        first = tip_of(chain)
        assert await bitcoind.look_up([sent.txid]) == {sent.txid: mined(first)}
        chain.reorg(1, without=[sent.txid])
        assert await bitcoind.look_up([sent.txid]) == {sent.txid: MEMPOOL}
        chain.come_back(first.hash)
        assert await bitcoind.look_up([sent.txid]) == {sent.txid: mined(first)}
        chain.reorg(3, with_=[chain.double_spend(sent)])
        assert await bitcoind.look_up([sent.txid]) == {sent.txid: GONE}
        assert not await listed(bitcoind, "", sent.txid)
        chain.come_back(first.hash)
        assert await bitcoind.look_up([sent.txid]) == {sent.txid: mined(first)}


async def test_a_replaced_payment_is_gone(chain: Chain) -> None:
    sent = chain.pay(chain.address(), 50_000)
    async with hot(chain) as bitcoind:
        bumped = chain.bump(sent, fee_rate=20)
        assert await bitcoind.look_up([sent.txid, bumped.txid]) == {sent.txid: GONE, bumped.txid: MEMPOOL}
        (old,) = await listed(bitcoind, "", sent.txid)
        assert old.conflicts == (bumped.txid,)
        away = chain.bump(bumped, fee_rate=40, to=chain.address("stranger"))
        sights = await bitcoind.look_up([sent.txid, bumped.txid, away.txid])
        assert sights == {sent.txid: GONE, bumped.txid: GONE, away.txid: Sighting(kind=Sight.MEMPOOL, known=False)}
        chain.mine()
        assert (await bitcoind.look_up([bumped.txid])) == {bumped.txid: GONE}


async def test_an_evicted_payment_is_gone_until_it_returns(chain: Chain) -> None:
    sent = chain.pay(chain.address(), 50_000)
    async with hot(chain) as bitcoind:
        content = chain.evict(sent.txid)
        assert await bitcoind.look_up([sent.txid]) == {sent.txid: GONE}
        chain.return_(content)
        assert await bitcoind.look_up([sent.txid]) == {sent.txid: MEMPOOL}


async def test_a_transaction_that_the_wallet_never_saw_is_not_known(chain: Chain) -> None:
    async with hot(chain) as bitcoind:
        unseen = Sighting(kind=Sight.GONE, known=False)
        assert await bitcoind.look_up(["11" * 32]) == {"11" * 32: unseen}
        assert await bitcoind.look_up([]) == {}


async def test_a_wallet_that_has_lost_a_payment_does_not_prove_that_it_is_gone(chain: Chain) -> None:
    """Here the node has a transaction index; without one the payment is `GONE`, and still not known."""
    sent = chain.pay(chain.address(), 50_000)
    chain.mine()
    chain.call("createwallet", "empty")
    async with hot(chain, wallet="empty") as bitcoind:
        found = Sighting(kind=Sight.MINED, block=tip_of(chain), known=False)
        assert await bitcoind.look_up([sent.txid]) == {sent.txid: found}
        chain.restart("-txindex=0")
        assert await bitcoind.look_up([sent.txid]) == {sent.txid: Sighting(kind=Sight.GONE, known=False)}


async def test_many_transactions_are_looked_up_at_once(chain: Chain) -> None:
    sent = [chain.pay(chain.address(), 20_000) for _ in range(5)]
    async with hot(chain) as bitcoind:
        asked = [each.txid for each in sent] + [f"{number:064x}" for number in range(300)]
        found = await bitcoind.look_up(asked)
        assert list(found) == asked
        assert [found[each.txid] for each in sent] == [MEMPOOL] * 5


# Coins


async def test_locked_coins_are_counted(chain: Chain) -> None:
    sent = chain.pay_many([(chain.address(), 31_000), (chain.address(), 32_000)])
    async with hot(chain) as bitcoind:
        before = await bitcoind.read_coins()
        chain.call("lockunspent", False, [{"txid": sent[0].txid, "vout": 0}], wallet="hot")
        after = await bitcoind.read_coins()
        assert {(coin.txid, coin.vout, coin.amount_sat) for coin in before.coins} == {
            (coin.txid, coin.vout, coin.amount_sat) for coin in after.coins
        }
        ours = {coin.vout: coin for coin in after.coins if coin.txid == sent[0].txid}
        assert [(ours[vout].locked, ours[vout].safe) for vout in (0, 1)] == [(True, False), (False, False)]
        chain.mine()
        confirmed = {coin.vout: coin for coin in (await bitcoind.read_coins()).coins if coin.txid == sent[0].txid}
        assert [(coin.locked, coin.safe, coin.confirmations) for coin in confirmed.values()].count((True, True, 1)) == 1
        balances = chain.call("getbalances", wallet="hot")["mine"]
        total = sum(coin.amount_sat for coin in (await bitcoind.read_coins()).coins)
        assert total == round(balances["trusted"] * 10**8)
        chain.call("lockunspent", True, wallet="hot")


# Addresses


@pytest.mark.parametrize(("kind", "prefix"), [("bech32", "bcrt1q"), ("bech32m", "bcrt1p")])
async def test_addresses_are_new_and_numbered(chain: Chain, kind: str, prefix: str) -> None:
    async with hot(chain) as bitcoind:
        first = await bitcoind.make_addresses(1, kind)
        more = await bitcoind.make_addresses(150, kind)
        indexes = [each.hd_index for each in (*first, *more)]
        assert indexes == list(range(indexes[0], indexes[0] + 151))
        assert all(each.address.startswith(prefix) for each in more)
        asked = [each.address for each in more]
        stranger = chain.address("stranger")
        assert await bitcoind.knows([*asked, stranger, "no address"]) == {
            **dict.fromkeys(asked, True),
            stranger: False,
            "no address": False,
        }
        assert await bitcoind.make_addresses(0, kind) == []


async def test_the_window_widens_once(chain: Chain) -> None:
    async with hot(chain) as bitcoind:
        await bitcoind.widen(1_200)
        sizes = chain.call("getwalletinfo", wallet="hot")["keypoolsize"]
        await bitcoind.widen(1_200)
        assert chain.call("getwalletinfo", wallet="hot")["keypoolsize"] == sizes


async def test_a_rescan_changes_nothing(chain: Chain) -> None:
    chain.pay(chain.address(), 50_000)
    chain.mine()
    async with hot(chain) as bitcoind:
        before = await bitcoind.list_since("")
        await bitcoind.rescan(0)
        await bitcoind.rescan(chain.height())
        after = await bitcoind.list_since("")
        assert set(before.entries) == set(after.entries)
        assert await reason_of(bitcoind.rescan(chain.height() + 1)) == "behind"


async def test_a_second_rescan_is_busy(chain: Chain) -> None:
    """Both begin at once; whichever comes second is told so, or finds the first one done."""
    async with opened(chain.url, chain.auth_file) as rpc:
        one, other = Bitcoind(rpc, "hot"), Bitcoind(rpc, "hot")
        ends = await asyncio.gather(one.rescan(0), other.rescan(0), return_exceptions=True)
        assert [end for end in ends if end is None]
        assert {getattr(end, "fields", {}).get("reason", "busy") for end in ends} == {"busy"}
