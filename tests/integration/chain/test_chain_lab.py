"""What bitcoind says of payments, replacements and reorganisations: facts that the engine relies on."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from infra.local.bitcoin_rpc import RpcError
from infra.local.chain.payer import Sent, satoshi
from infra.local.parts.store import Failed
from tests.helpers.chain import STRANGER, Chain

pytestmark = pytest.mark.integration

MEMPOOL, GONE = (0, True), (0, False)


def known(chain: Chain, txid: str) -> tuple[int, bool]:
    """What the hot wallet says of a transaction: confirmations, and whether the mempool has it."""
    found: dict[str, Any] = chain.rpc("hot").call("gettransaction", txid)
    return found["confirmations"], found.get("in_mempool", False)


def details(chain: Chain, txid: str) -> list[tuple[str, int, float]]:
    found = chain.rpc("hot").call("gettransaction", txid)["details"]
    return [(each["category"], each["vout"], each["amount"]) for each in found]


def since(chain: Chain, block: str) -> tuple[dict[str, int], dict[str, int]]:
    """The transactions that `listsinceblock` lists, and those that it calls removed, with their confirmations."""
    said = chain.rpc("hot").call("listsinceblock", block, 1, True, True)
    return (
        {each["txid"]: each["confirmations"] for each in said["transactions"]},
        {each["txid"]: each["confirmations"] for each in said["removed"]},
    )


def conflicts(chain: Chain, txid: str) -> tuple[list[str], list[str]]:
    found = chain.rpc("hot").call("gettransaction", txid)
    return sorted(found["walletconflicts"]), found["mempoolconflicts"]


def pending_sat(chain: Chain) -> int:
    """What the hot wallet expects from the mempool."""
    return satoshi(chain.rpc("hot").call("getbalances")["mine"]["untrusted_pending"])


def error_of(chain: Chain, method: str, *params: Any, wallet: str | None = None) -> int:
    with pytest.raises(RpcError) as raised:
        chain.call(method, *params, wallet=wallet)
    return raised.value.code


def test_a_payment_is_seen_and_mined(chain: Chain) -> None:
    cursor, sent = chain.tip(), chain.pay(chain.address(), 50_000)
    assert known(chain, sent.txid) == MEMPOOL
    assert details(chain, sent.txid) == [("receive", sent.vout, 0.0005)]
    assert pending_sat(chain) == 50_000
    (mined,) = chain.mine()
    assert known(chain, sent.txid) == (1, False)
    assert since(chain, cursor) == ({sent.txid: 1}, {})
    assert chain.tip() == mined
    assert error_of(chain, "getmempoolentry", sent.txid) == -5


def test_payers_side_by_side_spend_different_coins(chain: Chain) -> None:
    with ThreadPoolExecutor(8) as threads:
        paid = list(threads.map(lambda each: chain.pay(chain.address(), each), range(10_000, 10_024)))
    assert len({coin for sent in paid for coin in sent.coins}) == 24
    assert {known(chain, sent.txid) for sent in paid} == {MEMPOOL}


def test_one_transaction_pays_an_address_twice(chain: Chain) -> None:
    one, other = chain.address(), chain.address()
    sent = chain.pay_many([(one, 10_000), (one, 20_000), (other, 30_000)])
    assert len({each.txid for each in sent}) == 1
    assert details(chain, sent[0].txid) == [("receive", 0, 0.0001), ("receive", 1, 0.0002), ("receive", 2, 0.0003)]
    assert [each.vout for each in chain.pay_many({one: 10_000, other: 20_000})] == [0, 1]


def test_a_replaced_payment_conflicts_with_its_replacement(chain: Chain) -> None:
    """The old one keeps 0 confirmations until the new one is mined; only then does it show fewer."""
    cursor, old = chain.tip(), chain.pay(chain.address(), 50_000)
    new = chain.bump(old, fee_rate=20)
    assert known(chain, old.txid) == GONE
    assert conflicts(chain, old.txid) == ([new.txid], [new.txid])
    assert since(chain, cursor) == ({old.txid: 0, new.txid: 0}, {})
    assert pending_sat(chain) == 50_000
    assert error_of(chain, "getrawtransaction", old.txid) == -5
    with pytest.raises(RpcError, match="insufficient fee"):
        chain.bump(new, fee_rate=20)
    chain.mine()
    assert known(chain, old.txid) == (-1, False)
    assert known(chain, new.txid) == (1, False)


def test_a_payment_is_replaced_many_times(chain: Chain) -> None:
    """Also by one that pays less, and by one that pays somebody else, of which the wallet hears nothing."""
    old = chain.pay(chain.address(), 50_000)
    less = chain.bump(chain.bump(old, fee_rate=20), fee_rate=40, amount_sat=30_000)
    assert pending_sat(chain) == 30_000
    elsewhere = chain.bump(less, fee_rate=60, to=chain.address(STRANGER))
    assert known(chain, less.txid) == GONE
    assert error_of(chain, "gettransaction", elsewhere.txid, wallet="hot") == -5
    assert conflicts(chain, less.txid)[1] == [elsewhere.txid]
    assert pending_sat(chain) == 0
    again = chain.bump(elsewhere, fee_rate=80, to=old.payments[0][0])
    assert known(chain, again.txid) == MEMPOOL
    chain.bump(again, fee_rate=100, to=chain.address(STRANGER))
    chain.mine()
    assert known(chain, again.txid) == (-1, False)
    assert conflicts(chain, again.txid)[1] == []


def test_a_conflicting_transaction_has_no_details(chain: Chain) -> None:
    """`listsinceblock` does not list it either. Its outputs stand in its `hex` alone."""
    cursor, old = chain.tip(), chain.pay(chain.address(), 50_000)
    chain.bump(old, fee_rate=20, to=chain.address(STRANGER))
    assert details(chain, old.txid) == [("receive", 0, 0.0005)]
    chain.mine()
    assert known(chain, old.txid) == (-1, False)
    assert details(chain, old.txid) == []
    assert since(chain, cursor) == ({}, {})
    assert chain.rpc("hot").call("gettransaction", old.txid)["hex"] == old.hex


def test_an_evicted_payment_leaves_no_trace_but_the_mempool(chain: Chain) -> None:
    """It has no conflict, and listing shows it with 0 confirmations as before."""
    cursor, sent, other = chain.tip(), chain.pay(chain.address(), 50_000), chain.pay(chain.address(), 60_000)
    content = chain.evict(sent.txid)
    assert content == sent.hex
    assert known(chain, sent.txid) == GONE
    assert conflicts(chain, sent.txid) == ([], [])
    assert since(chain, cursor) == ({sent.txid: 0, other.txid: 0}, {})
    assert known(chain, other.txid) == MEMPOOL
    assert pending_sat(chain) == 60_000
    assert chain.return_(content) == sent.txid
    assert known(chain, sent.txid) == MEMPOOL
    chain.evict(sent.txid)
    chain.mine()
    assert known(chain, sent.txid) == GONE
    chain.mine(txs=[content])
    assert known(chain, sent.txid) == (1, False)


@pytest.mark.parametrize("depth", [1, 2, 6, 12])
def test_a_reorganisation_takes_a_payment_back(chain: Chain, depth: int) -> None:
    """Without a conflict it returns to the mempool, from any depth. With one, its confirmations count the conflict's.

    The old tip, as a cursor, calls it removed. With another cursor nothing says so.
    """
    sent = chain.pay(chain.address(), 50_000)
    chain.mine(depth)
    old_tip, height = chain.tip(), chain.height()
    hashes = chain.reorg(depth, without=[sent.txid])
    assert (chain.height(), chain.tip(), len(hashes)) == (height + 1, hashes[-1], depth + 1)
    assert known(chain, sent.txid) == MEMPOOL
    assert since(chain, old_tip) == ({sent.txid: 0}, {sent.txid: 0})
    assert chain.call("getblockheader", old_tip)["confirmations"] == -1
    chain.reorg(depth + 1, with_=[chain.double_spend(sent)])
    assert known(chain, sent.txid) == (-depth - 2, False)
    assert conflicts(chain, sent.txid) == ([], [])
    assert since(chain, old_tip) == ({}, {sent.txid: -depth - 2})
    assert since(chain, chain.tip()) == ({}, {})


def test_a_reorganisation_keeps_what_it_does_not_leave_out(chain: Chain) -> None:
    first, second = chain.pay(chain.address(), 50_000), chain.pay(chain.address(), 60_000)
    chain.mine()
    third = chain.pay(chain.address(), 70_000)
    chain.mine()
    heights = {each.txid: chain.rpc("hot").call("gettransaction", each.txid)["blockheight"] for each in (first, third)}
    hashes = chain.reorg(2, with_=[chain.double_spend(second)], extra=3)
    assert len(hashes) == 5
    assert known(chain, second.txid) == (-5, False)
    assert known(chain, first.txid) == (5, False)
    for txid, height in heights.items():
        assert chain.rpc("hot").call("gettransaction", txid)["blockheight"] == height


def test_a_payment_is_mined_again_in_another_block(chain: Chain) -> None:
    sent = chain.pay(chain.address(), 50_000)
    (block,) = chain.mine()
    chain.reorg(1, without=[sent.txid])
    chain.mine()
    found = chain.rpc("hot").call("gettransaction", sent.txid)
    assert (found["confirmations"], found["blockhash"]) == (1, chain.tip())
    assert found["blockhash"] != block


def test_an_orphaned_block_comes_back(chain: Chain) -> None:
    sent = chain.pay(chain.address(), 50_000)
    (block,) = chain.mine()
    chain.reorg(1, with_=[chain.double_spend(sent)])
    assert known(chain, sent.txid)[0] < 0
    chain.come_back(block)
    assert known(chain, sent.txid) == (3, False)
    assert chain.rpc("hot").call("gettransaction", sent.txid)["blockhash"] == block


def test_invalidating_is_no_reorganisation(chain: Chain) -> None:
    """Of more than ten blocks, bitcoind returns only the last ten's transactions to the mempool."""
    deep, shallow = chain.pay(chain.address(), 50_000), chain.pay(chain.address(), 60_000)
    first, *_ = chain.mine(txs=[deep.hex])
    chain.mine(11)
    tip = chain.tip()
    chain.invalidate(first)
    assert known(chain, deep.txid) == GONE
    assert known(chain, shallow.txid) == GONE
    chain.reconsider(first)
    assert (chain.tip(), known(chain, deep.txid)) == (tip, (12, False))
    chain.invalidate(tip)
    assert chain.call("getblockheader", tip)["confirmations"] == -1
    chain.reconsider(tip)
    assert chain.tip() == tip


def test_a_reward_matures_after_a_hundred_further_blocks(chain: Chain) -> None:
    """An orphaned one shows 0 confirmations, not fewer: only its category says what became of it."""
    txid = chain.coinbase_to(chain.address())
    assert details(chain, txid)[0][0] == "immature"
    chain.reorg(1)
    assert known(chain, txid) == GONE
    assert details(chain, txid)[0][0] == "orphan"
    txid = chain.coinbase_to(chain.address())
    chain.mine(99)
    assert (known(chain, txid)[0], details(chain, txid)[0][0]) == (100, "immature")
    chain.mine()
    assert (known(chain, txid)[0], details(chain, txid)[0][0]) == (101, "generate")


def test_a_bare_multisig_output_is_nobodys(chain: Chain) -> None:
    alone = chain.bare_multisig(chain.address(), 70_000)
    assert error_of(chain, "gettransaction", alone.txid, wallet="hot") == -5
    beside = chain.bare_multisig(chain.address(), 70_000, also_sat=30_000)
    assert details(chain, beside.txid) == [("receive", 1, 0.0003)]
    script = chain.call("getrawtransaction", beside.txid, True)["vout"][beside.vout]["scriptPubKey"]
    assert (script["type"], "address" in script) == ("multisig", False)


def test_a_block_of_chosen_transactions_leaves_the_others_waiting(chain: Chain) -> None:
    first, second = chain.pay(chain.address(), 50_000), chain.pay(chain.address(), 60_000)
    chain.mine(txs=[second.txid])
    assert [known(chain, each.txid) for each in (first, second)] == [MEMPOOL, (1, False)]
    chain.mine(txs=[])
    assert known(chain, first.txid) == MEMPOOL


def test_a_chain_with_an_invalid_block_is_refused(chain: Chain) -> None:
    sent: Sent = chain.pay(chain.address(), 50_000)
    tip, (mined,) = chain.tip(), chain.mine()
    with pytest.raises(Failed, match="invalid"):
        chain.extend(tip, [[sent.hex, chain.double_spend(sent)], []])
    assert chain.tip() == mined


def test_headers_come_before_their_blocks(chain: Chain) -> None:
    """`initialblockdownload` stays false: only `headers` above `blocks` says that the node is behind."""
    height, blocks = chain.height(), chain.headers_ahead(3)
    said = chain.call("getblockchaininfo")
    assert (said["blocks"], said["headers"], said["initialblockdownload"]) == (height, height + 3, False)
    for block in blocks:
        assert chain.call("submitblock", block) is None
    assert chain.height() == height + 3
