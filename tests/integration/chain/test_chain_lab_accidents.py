"""What is left of wallets, mempool and blocks after an accident of bitcoind, and what a bad line to it looks like."""

import http.client
import threading

import pytest

from infra.local.bitcoin_rpc import BitcoinRpc, RpcError
from infra.local.stack import wait_until
from tests.fixtures.chain_line import Mode
from tests.helpers.chain import Chain

pytestmark = pytest.mark.integration


def confirmations(chain: Chain, txid: str) -> int:
    return int(chain.rpc("hot").call("gettransaction", txid)["confirmations"])


def through_line(chain: Chain, timeout_s: float = 10) -> BitcoinRpc:
    url = chain.line.url.replace("://", f"://{chain.auth_file.read_text()}@")
    return BitcoinRpc(url, timeout_s)


def test_a_killed_node_loses_blocks_that_were_not_flushed(chain: Chain) -> None:
    """The wallet knew them; it takes them back at its next start, and sends their transactions to the mempool."""
    sent = chain.pay(chain.address(), 50_000)
    height = chain.height()
    chain.mine(3, flush=False)
    assert confirmations(chain, sent.txid) == 3
    chain.kill()
    chain.start()
    assert chain.height() == height
    wait_until(lambda: sent.txid in chain.mempool(), "the wallet to send it again")
    assert confirmations(chain, sent.txid) == 0
    chain.mine()
    chain.kill()
    chain.start()
    assert confirmations(chain, sent.txid) == 1


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_an_evicted_payment_comes_back_when_bitcoind_starts(chain: Chain, end: str) -> None:
    """A wallet that is loaded sends all its unconfirmed transactions again, also those that it only receives."""
    sent, stays = chain.pay(chain.address(), 50_000), chain.pay(chain.address(), 60_000)
    chain.evict(sent.txid)
    getattr(chain, end)()
    chain.start()
    wait_until(lambda: {sent.txid, stays.txid} <= set(chain.mempool()), "both in the mempool")


def test_a_node_without_wallet_broadcast_starts_with_an_empty_mempool(chain: Chain) -> None:
    sent = chain.pay(chain.address(), 50_000)
    chain.restart("-persistmempool=0", "-walletbroadcast=0")
    assert chain.mempool() == []
    assert chain.rpc("hot").call("gettransaction", sent.txid)["in_mempool"] is False


def test_an_older_copy_of_the_wallet_finds_what_came_after_it(chain: Chain) -> None:
    """But it hands out the same addresses once more."""
    copy = chain.copy_wallet("hot")
    address = chain.address()
    sent = chain.pay(address, 50_000)
    chain.mine()
    chain.restore_wallet("hot", copy)
    assert confirmations(chain, sent.txid) == 1
    copy = chain.copy_wallet("hot")
    address = chain.address()
    chain.restore_wallet("hot", copy)
    assert chain.address() == address


def test_an_older_copy_of_the_wallet_misses_addresses_beyond_its_window(chain: Chain) -> None:
    """A thousand addresses ahead of the last one seen in a block. Each one seen moves the window, for later blocks
    only: a second scan finds what the first passed over.
    """
    copy = chain.copy_wallet("hot")
    addresses = [chain.address() for _ in range(1001)]
    within, beyond = chain.pay(addresses[-2], 50_000), chain.pay(addresses[-1], 60_000)
    chain.mine(txs=[beyond.hex])
    chain.restore_wallet("hot", copy)
    with pytest.raises(RpcError, match=r"non-wallet transaction id \(-5\)"):
        confirmations(chain, beyond.txid)
    chain.mine(txs=[within.hex])
    assert confirmations(chain, within.txid) == 1
    with pytest.raises(RpcError, match=r"\(-5\)"):
        confirmations(chain, beyond.txid)
    chain.rpc("hot").call("rescanblockchain", chain.height() - 1)
    assert confirmations(chain, beyond.txid) == 2


def test_another_chain_knows_no_block_of_ours(chain: Chain) -> None:
    """It has the same genesis block and network: only our own blocks tell it apart."""
    sent = chain.pay(chain.address(), 50_000)
    chain.mine()
    tip, genesis = chain.tip(), chain.call("getblockhash", 0)
    chain.other_chain()
    assert chain.call("getblockhash", 0) == genesis
    for method, params in (("getblockheader", [tip]), ("listsinceblock", [tip]), ("gettransaction", [sent.txid])):
        with pytest.raises(RpcError, match=r"\(-5\)"):
            chain.rpc("hot").call(method, *params)
    chain.own_chain()
    assert (chain.tip(), confirmations(chain, sent.txid)) == (tip, 1)


def test_a_pruned_node_lacks_old_blocks(chain: Chain) -> None:
    chain.other_chain("-prune=1", "-txindex=0", "-fastprune")
    old = chain.call("getblockhash", 100)
    chain.mine(500)
    chain.call("pruneblockchain", 300)
    said = chain.call("getblockchaininfo")
    assert said["pruned"]
    assert 100 < said["pruneheight"] <= 301
    with pytest.raises(RpcError, match=r"pruned data\) \(-1\)"):
        chain.call("getblock", old)


def test_a_wallet_that_is_not_loaded_is_named(chain: Chain) -> None:
    chain.call("unloadwallet", "hot", False)
    with pytest.raises(RpcError, match=r"\(-18\)"):
        chain.rpc("hot").call("getbalances")
    chain.restart()
    with pytest.raises(RpcError, match=r"\(-18\)"):
        chain.rpc("hot").call("getbalances")


def test_new_credentials_hold_from_the_next_start(chain: Chain) -> None:
    """The cookie is another at each start. The file is accepted beside it."""
    old, cookie = chain.rpc(), chain.node.cookie_file.read_text()
    chain.node.change_password()
    chain.restart()
    with pytest.raises(RpcError, match="401"):
        old.call("getblockcount")
    assert chain.rpc().call("getblockcount") == chain.height()
    assert chain.node.cookie_file.read_text() != cookie
    by_cookie = BitcoinRpc(chain.url.replace("://", f"://{chain.node.cookie_file.read_text()}@"))
    assert by_cookie.call("getblockcount") == chain.height()


def test_blocks_come_while_the_node_is_killed(chain: Chain) -> None:
    height = chain.height()
    with chain.mining(0.01):
        wait_until(lambda: chain.height() > height, "a block")
        chain.kill()
        chain.start()
        back = chain.height()
        wait_until(lambda: chain.height() > back, "a block after the accident")


def test_a_line_passes_calls_on_and_counts_them(chain: Chain) -> None:
    rpc = through_line(chain)
    assert rpc.call("getblockcount") == chain.height()
    assert rpc.call("getbalances", wallet="hot")["mine"]
    with pytest.raises(RpcError, match=r"\(-5\)"):
        rpc.call("getblockheader", "00" * 32)
    assert chain.line.calls == ["getblockcount", "getbalances", "getblockheader"]
    assert chain.line.hits == 0


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("503", r"Service Unavailable \(503\)"),
        ("401", r"Unauthorized \(401\)"),
        ("garbage", r"OK \(200\)"),
        ("cut", "IncompleteRead"),
        ("lost", "RemoteDisconnected"),
        ("refuse", "refused"),
    ],
)
def test_a_bad_line_fails_a_call(chain: Chain, mode: Mode, error: str) -> None:
    rpc = through_line(chain)
    chain.line.mode = mode
    with pytest.raises((RpcError, ConnectionError, http.client.HTTPException), match=error):
        rpc.call("getblockcount")
    assert chain.line.hits == (mode != "refuse")
    chain.line.mode = "pass"
    assert rpc.call("getblockcount") == chain.height()


def test_a_lost_answer_is_an_order_carried_out(chain: Chain) -> None:
    height = chain.height()
    chain.line.mode = "lost"
    with pytest.raises(ConnectionError):
        through_line(chain).call("generatetoaddress", 1, chain.address("miner"))
    assert chain.height() == height + 1


@pytest.mark.parametrize("mode", ["delay", "trickle", "silent"])
def test_a_slow_line_outlasts_its_client(chain: Chain, mode: Mode) -> None:
    chain.line.delay_s = 3600
    chain.line.mode = mode
    with pytest.raises(TimeoutError):
        through_line(chain, timeout_s=0.2).call("getblockcount")


@pytest.mark.parametrize("mode", ["delay", "trickle"])
def test_a_slow_answer_comes_when_the_line_is_mended(chain: Chain, mode: Mode) -> None:
    chain.line.delay_s = chain.line.pause_s = 3600
    chain.line.mode = mode
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(through_line(chain).call("getblockcount")))
    caller.start()
    wait_until(lambda: chain.line.hits == 1, "the call to meet the line")
    chain.line.mode = "pass"
    caller.join()
    assert answers == [chain.height()]


def test_a_bad_line_meets_only_the_calls_that_are_named(chain: Chain) -> None:
    rpc = through_line(chain)
    chain.line.methods, chain.line.mode = {"getbestblockhash"}, "503"
    assert rpc.call("getblockcount") == chain.height()
    with pytest.raises(RpcError):
        rpc.call("getbestblockhash")
    assert chain.line.hits == 1


def test_a_node_publishes_blocks_and_transactions(chain: Chain) -> None:
    said = {(each["type"], each["address"]) for each in chain.call("getzmqnotifications")}
    assert said == {(kind, chain.zmq) for kind in ("pubhashblock", "pubhashtx", "pubsequence")}
