"""What the node says of the bank's own transactions: drafts, verdicts, the mempool, locks and origins."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.clients.bitcoind import spending as spendings
from engine.clients.bitcoind.verdict import Fate, Refusal, Verdict
from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.script import output_script
from engine.domain.withdrawal.transaction import REPLACEABLE, parse_transaction_hex, unsigned_transaction
from tests.fixtures.chain_line import Mode
from tests.helpers.bitcoind_client import reason_of
from tests.helpers.chain import STRANGER, Chain
from tests.helpers.payout.spender import Spender, spender_of

pytestmark = pytest.mark.integration

ACCEPTED = Verdict(fate=Fate.ACCEPTED)
NOWHERE = Outpoint(txid=Txid("ab" * 32), vout=0)


@pytest_asyncio.fixture
async def spender(chain: Chain) -> AsyncIterator[Spender]:
    async with spender_of(chain) as client:
        yield client


def meaning(verdict: Verdict) -> tuple[Fate, Refusal | None]:
    return verdict.fate, verdict.refusal


# Drafts


async def test_a_draft_pays_one_address_twice_in_the_given_order(chain: Chain, spender: Spender) -> None:
    coins = spender.coins([100_000, 50_000])
    change = await spender.spending.change_address()
    outputs = [(spender.stranger, 20_000), (change, 79_000), (spender.stranger, 50_000)]
    signed = await spender.signed(coins, outputs)
    tx = parse_transaction_hex(signed.raw)
    assert tx.outpoints == tuple(coins)
    assert [(each.script, each.amount_sat) for each in tx.outputs] == [
        (output_script(address), amount_sat) for address, amount_sat in outputs
    ]
    assert {each.sequence for each in tx.inputs} == {REPLACEABLE}
    assert await spender.spending.test(signed.raw) == ACCEPTED
    assert await spender.spending.broadcast(signed.raw) == ACCEPTED
    await spender.mine()
    assert chain.call("gettxout", signed.txid, 2)["confirmations"] == 1


async def test_a_draft_has_no_effect(spender: Spender) -> None:
    coin = spender.coin(100_000)
    drafts = [await spender.draft([coin], [(spender.stranger, 90_000)]) for _ in range(2)]
    assert drafts[0] == drafts[1]
    assert coin not in await spender.spending.frozen()
    assert await spender.spending.unspent([coin]) == {coin}


async def test_change_addresses_are_fresh_and_of_the_wallet(chain: Chain, spender: Spender) -> None:
    found = [await spender.spending.change_address() for _ in range(3)]
    assert len(set(found)) == 3
    infos = [chain.call("getaddressinfo", each, wallet="hot") for each in found]
    assert all(each["ismine"] and each["ischange"] for each in infos)
    taproot = spendings.Spending(spender.rpc, "hot", change_type="bech32m")
    assert (await taproot.change_address()).startswith("bcrt1p")


async def test_a_coin_that_the_wallet_does_not_know_is_named(spender: Spender) -> None:
    assert await reason_of(spender.draft([spender.coin(100_000), NOWHERE], [(spender.stranger, 90_000)])) == (
        "coin_unknown"
    )


async def test_a_draft_that_grows_too_long_leaves_out_what_the_wallet_knows(
    spender: Spender, monkeypatch: pytest.MonkeyPatch
) -> None:
    coin = spender.coin(100_000)
    whole = await spender.draft([coin], [(spender.stranger, 90_000)])
    monkeypatch.setattr(spendings, "_MOST_PSBT_CHARACTERS", 200)
    bare = await spender.draft([coin], [(spender.stranger, 90_000)])
    assert len(bare) < len(whole)
    assert await spender.signer.sign(bare) == await spender.signer.sign(whole)


# Verdicts


async def test_the_same_bytes_are_accepted_again_and_are_confirmed_later(chain: Chain, spender: Spender) -> None:
    signed = await spender.to_stranger([spender.coin(100_000)], 99_000)
    assert await spender.spending.broadcast(signed.raw) == ACCEPTED
    assert await spender.spending.broadcast(signed.raw) == ACCEPTED
    assert await spender.spending.test(signed.raw) == Verdict(fate=Fate.ACCEPTED, words="txn-already-in-mempool")
    assert chain.mempool() == [signed.txid]
    await spender.mine()
    assert meaning(await spender.spending.broadcast(signed.raw)) == (Fate.CONFIRMED, None)
    assert meaning(await spender.spending.test(signed.raw)) == (Fate.CONFIRMED, None)


async def test_a_confirmed_one_stays_so_when_its_outputs_are_spent(chain: Chain, spender: Spender) -> None:
    """The node then looks for the inputs only, and says that they are missing."""
    change = await spender.spending.change_address()
    first = await spender.signed([spender.coin(100_000)], [(change, 99_000)])
    assert await spender.spending.broadcast(first.raw) == ACCEPTED
    chain.sync()
    second = await spender.to_stranger([Outpoint(txid=first.txid, vout=0)], 98_000)
    assert await spender.spending.broadcast(second.raw) == ACCEPTED
    await spender.mine()
    verdict = await spender.spending.broadcast(first.raw)
    assert meaning(verdict) == (Fate.CONFIRMED, None)
    assert "missing" in verdict.words


async def test_a_conflict_in_the_mempool_outbids_until_more_is_paid(spender: Spender) -> None:
    coin = spender.coin(100_000)
    first, same, more = [await spender.to_stranger([coin], amount) for amount in (99_000, 98_950, 90_000)]
    assert await spender.spending.broadcast(first.raw) == ACCEPTED
    for verdict in (await spender.spending.test(same.raw), await spender.spending.broadcast(same.raw)):
        assert meaning(verdict) == (Fate.REFUSED, Refusal.OUTBID)
        assert verdict.words.startswith("insufficient fee")
    assert await spender.spending.broadcast(more.raw) == ACCEPTED
    assert meaning(await spender.spending.broadcast(first.raw)) == (Fate.REFUSED, Refusal.OUTBID)


async def test_inputs_that_a_block_has_spent_are_missing(spender: Spender) -> None:
    coin = spender.coin(100_000)
    older, newer = [await spender.to_stranger([coin], amount) for amount in (99_000, 90_000)]
    assert await spender.spending.broadcast(older.raw) == ACCEPTED
    assert await spender.spending.broadcast(newer.raw) == ACCEPTED
    await spender.mine()
    assert meaning(await spender.spending.broadcast(older.raw)) == (Fate.MISSING_INPUTS, None)
    assert meaning(await spender.spending.test(older.raw)) == (Fate.MISSING_INPUTS, None)
    lost = await spender.spending.transaction(older.txid)
    assert lost is not None
    assert (lost.confirmations, lost.block, lost.conflicts) == (-1, None, (newer.txid,))
    assert await spender.spending.unspent([coin], mempool=False) == set()


async def test_inputs_whose_own_transaction_is_gone_are_missing(chain: Chain, spender: Spender) -> None:
    coin = spender.coin(100_000, mined=False)
    signed = await spender.to_stranger([coin], 99_000)
    content = await asyncio.to_thread(chain.evict, coin.txid)
    assert meaning(await spender.spending.broadcast(signed.raw)) == (Fate.MISSING_INPUTS, None)
    await asyncio.to_thread(chain.return_, content)
    assert await spender.spending.broadcast(signed.raw) == ACCEPTED


async def test_a_fee_that_is_too_little_is_below_the_floor(chain: Chain, spender: Spender) -> None:
    signed = await spender.to_stranger([spender.coin(100_000)], 99_990)
    for verdict in (await spender.spending.test(signed.raw), await spender.spending.broadcast(signed.raw)):
        assert meaning(verdict) == (Fate.REFUSED, Refusal.BELOW_FLOOR)
        assert verdict.words.startswith("min relay fee not met, 10 < ")
    assert chain.mempool() == []


@pytest.mark.parametrize(("amounts", "refusal"), [((100, 90_000), Refusal.DUST), ((100_000, 50_000), Refusal.INVALID)])
async def test_an_output_that_no_node_relays_is_refused_by_its_name(
    spender: Spender, amounts: tuple[int, ...], refusal: Refusal
) -> None:
    signed = await spender.signed([spender.coin(100_000)], [(spender.stranger, amount) for amount in amounts])
    assert meaning(await spender.spending.broadcast(signed.raw)) == (Fate.REFUSED, refusal)


async def test_a_transaction_without_signature_or_meaning_is_invalid(spender: Spender) -> None:
    bare = parse_transaction_hex((await spender.to_stranger([spender.coin(100_000)], 99_000)).raw)
    inputs, outputs = bare.outpoints, [(each.script, each.amount_sat) for each in bare.outputs]
    unsigned = unsigned_transaction(inputs, outputs).hex()
    for raw in (unsigned, "00", "no hex", ""):
        assert meaning(await spender.spending.broadcast(raw)) == (Fate.REFUSED, Refusal.INVALID)
        assert meaning(await spender.spending.test(raw)) == (Fate.REFUSED, Refusal.INVALID)


async def test_a_long_chain_of_unconfirmed_ones_is_told(chain: Chain, spender: Spender) -> None:
    at, amount_sat = spender.coin(1_000_000), 1_000_000
    for _ in range(25):
        amount_sat -= 1000
        change = await spender.spending.change_address()
        signed = await spender.signed([at], [(change, amount_sat)])
        assert await spender.spending.broadcast(signed.raw) == ACCEPTED
        at = Outpoint(txid=signed.txid, vout=0)
        chain.sync()
    signed = await spender.to_stranger([at], amount_sat - 1000)
    assert meaning(await spender.spending.broadcast(signed.raw)) == (Fate.REFUSED, Refusal.CHAIN_TOO_LONG)


async def test_a_fee_far_above_the_market_is_the_callers_decision(spender: Spender) -> None:
    """The node has a bound of its own, 0.1 BTC per 1,000 vB, which a child for a big parent exceeds."""
    signed = await spender.to_stranger([spender.coin(3_000_000)], 1000)
    assert await spender.spending.test(signed.raw) == ACCEPTED


# A line that breaks


@pytest.mark.parametrize("mode", ["lost", "cut"])
async def test_a_broadcast_whose_answer_is_lost_is_repeated(chain: Chain, mode: Mode) -> None:
    async with spender_of(chain, over_line=True) as spender:
        signed = await spender.to_stranger([spender.coin(100_000)], 99_000)
        chain.line.methods, chain.line.mode = {"sendrawtransaction"}, mode
        assert await reason_of(spender.spending.broadcast(signed.raw)) == "cut_off"
        assert chain.line.hits == 2
        assert chain.mempool() == [signed.txid]
        chain.line.mode = "pass"
        assert await spender.spending.broadcast(signed.raw) == ACCEPTED
        await spender.mine()
        assert (await spender.spending.broadcast(signed.raw)).fate is Fate.CONFIRMED


async def test_a_node_that_comes_back_takes_the_same_bytes(chain: Chain, spender: Spender) -> None:
    signed = await spender.to_stranger([spender.coin(100_000)], 99_000)
    assert await spender.spending.broadcast(signed.raw) == ACCEPTED
    chain.kill()
    assert await reason_of(spender.spending.broadcast(signed.raw)) in ("unreachable", "cut_off")
    chain.start()
    assert await spender.spending.broadcast(signed.raw) == ACCEPTED


# The mempool


async def test_the_mempool_counts_who_stands_on_whom(chain: Chain, spender: Spender) -> None:
    change = await spender.spending.change_address()
    parent = await spender.signed([spender.coin(100_000)], [(spender.stranger, 50_000), (change, 49_000)])
    assert await spender.spending.mempool_entry(parent.txid) is None
    assert await spender.spending.broadcast(parent.raw) == ACCEPTED
    chain.sync()
    child = await spender.to_stranger([Outpoint(txid=parent.txid, vout=1)], 44_000)
    assert await spender.spending.broadcast(child.raw) == ACCEPTED
    below, above = [await spender.spending.mempool_entry(each.txid) for each in (parent, child)]
    assert below is not None
    assert above is not None
    assert (below.fee_sat, below.ancestors, below.ancestors_fee_sat) == (1000, 1, 1000)
    assert (below.descendants, below.descendants_fee_sat) == (2, 6000)
    assert (above.fee_sat, above.ancestors, above.ancestors_fee_sat, above.descendants) == (5000, 2, 6000, 1)
    assert below.descendants_vbytes == below.vbytes + above.vbytes == above.ancestors_vbytes
    await spender.mine()
    assert await spender.spending.mempool_entry(parent.txid) is None
    known = await spender.spending.transaction(parent.txid)
    assert known is not None
    assert (known.confirmations, known.block and known.block.hash) == (1, chain.tip())


async def test_an_evicted_one_is_in_no_place_and_comes_back_by_its_bytes(chain: Chain, spender: Spender) -> None:
    coin = spender.coin(100_000)
    signed = await spender.to_stranger([coin], 99_000)
    assert await spender.spending.broadcast(signed.raw) == ACCEPTED
    assert await spender.spending.unspent([coin]) == set()
    assert await spender.spending.unspent([coin], mempool=False) == {coin}
    await asyncio.to_thread(chain.evict, signed.txid)
    assert await spender.spending.mempool_entry(signed.txid) is None
    known = await spender.spending.transaction(signed.txid)
    assert known is not None
    assert (known.confirmations, known.raw, known.own) == (0, signed.raw, True)
    assert await spender.spending.unspent([coin]) == {coin}
    assert await spender.spending.broadcast(signed.raw) == ACCEPTED


async def test_a_reorganisation_takes_it_back_to_the_mempool(chain: Chain, spender: Spender) -> None:
    signed = await spender.to_stranger([spender.coin(100_000)], 99_000)
    assert await spender.spending.broadcast(signed.raw) == ACCEPTED
    await spender.mine()
    await asyncio.to_thread(chain.reorg, 1, without=[signed.txid])
    known = await spender.spending.transaction(signed.txid)
    assert known is not None
    assert (known.confirmations, known.block) == (0, None)
    assert await spender.spending.broadcast(signed.raw) == ACCEPTED


async def test_a_transaction_of_others_is_unknown_to_the_wallet(chain: Chain, spender: Spender) -> None:
    sent = chain.pay(chain.address(STRANGER), 50_000)
    assert await spender.spending.transaction(Txid(sent.txid)) is None
    assert await spender.spending.mempool_entry(Txid(sent.txid)) is not None


# Locks


async def test_coins_that_are_frozen_by_hand_are_seen(chain: Chain, spender: Spender) -> None:
    coin, free = spender.coins([100_000, 50_000])
    chain.call("lockunspent", False, [{"txid": coin.txid, "vout": coin.vout}], wallet="hot")
    assert await spender.spending.frozen() & {coin, free} == {coin}
    signed = await spender.to_stranger([coin], 99_000)
    assert await spender.spending.test(signed.raw) == ACCEPTED


async def test_locks_are_repeated_survive_a_restart_and_pass_over_what_is_gone(chain: Chain, spender: Spender) -> None:
    one, two, spent = spender.coins([100_000, 50_000, 60_000])
    assert await spender.spending.broadcast((await spender.to_stranger([spent], 59_000)).raw) == ACCEPTED
    await spender.mine()
    for _ in range(2):
        await spender.spending.lock([one, NOWHERE, spent, two])
    chain.restart()
    frozen = await spender.spending.frozen()
    assert {one, two} <= frozen
    assert NOWHERE not in frozen
    for _ in range(2):
        await spender.spending.unlock([one, NOWHERE, two])
    assert not await spender.spending.frozen() & {one, two}


# Origins


async def test_a_walk_finds_all_that_own_transactions_have_joined(chain: Chain, spender: Spender) -> None:
    one, two, three = spender.coins([100_000, 50_000, 70_000])
    change = await spender.spending.change_address()
    joined = await spender.signed([one, two], [(spender.stranger, 100_000), (change, 49_000)])
    assert await spender.spending.broadcast(joined.raw) == ACCEPTED
    middle = Outpoint(txid=joined.txid, vout=1)
    moved = await spender.signed([middle], [(await spender.spending.change_address(), 48_000)])
    assert await spender.spending.broadcast(moved.raw) == ACCEPTED
    chain.sync()
    last = Outpoint(txid=moved.txid, vout=0)
    assert await spender.spending.walk_ancestors([last]) == frozenset({last, middle, one, two})
    assert await spender.spending.walk_ancestors([three]) == frozenset({three})
    assert await spender.spending.walk_ancestors([]) == frozenset()


async def test_a_walk_ends_at_what_others_pay_even_with_our_money(chain: Chain, spender: Spender) -> None:
    paid = await spender.to_stranger([spender.coin(100_000)], 99_000)
    assert await spender.spending.broadcast(paid.raw) == ACCEPTED
    chain.sync()
    address = chain.address()
    raw = unsigned_transaction([Outpoint(txid=paid.txid, vout=0)], [(output_script(address), Sat(98_000))]).hex()
    txid = chain.send(chain.call("signrawtransactionwithwallet", raw, wallet=STRANGER)["hex"])
    back = Outpoint(txid=Txid(txid), vout=0)
    assert await spender.spending.walk_ancestors([back]) == frozenset({back})


async def test_a_walk_that_cannot_see_the_whole_way_proves_nothing(
    spender: Spender, monkeypatch: pytest.MonkeyPatch
) -> None:
    coin = spender.coin(100_000)
    assert await spender.spending.walk_ancestors([coin, NOWHERE]) is None
    monkeypatch.setattr(spendings, "MOST_ANCESTORS", 0)
    assert await spender.spending.walk_ancestors([coin]) is None
