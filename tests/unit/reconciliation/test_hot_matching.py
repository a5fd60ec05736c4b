"""The hot wallet against its account, without rows: how much is named, and what corrections do to a finding."""

from dataclasses import replace

import pytest

from activities.reconciliation.coin import MOST_NAMED, Asked, Match, Matcher, unexplained
from engine.bank.chain.cut import CoinRow, Corrected, HotBooks, SpendRow
from engine.clients.bitcoind.answer import Coin, CoinCut
from engine.domain.deposit import Block
from engine.domain.deposit import Block as NodeBlock

pytestmark = pytest.mark.unit

HASH, TXID, TIP = "0" * 64, "ab" * 32, 100
ROW = CoinRow(
    txid=TXID,
    vout=0,
    amount_sat=5_000,
    address="a",
    listed=True,
    held=True,
    sure=True,
    recorded=True,
    block_height=90,
    block_hash=HASH,
    gone=False,
    opening=False,
    own=False,
    spent_by=None,
    deposit="dep_1",
    booked=False,
    sight="mined",
)
SPEND = SpendRow(spender=TXID, spent_sat=9_000, back_sat=2_000, coins=[f"{'cd' * 32}:1"], in_force=True)


def compare(
    *rows: CoinRow, settled_sat: int = 0, spends: list[SpendRow] | None = None, corrected: list[Corrected] | None = None
) -> tuple[Match, HotBooks]:
    books = HotBooks(
        tip=Block(height=TIP, hash=HASH),
        settled_msat=1000 * settled_sat,
        coins=list(rows),
        spends=spends or [],
        corrections=corrected or [],
        sent=[],
    )
    coins = tuple(
        Coin(txid=each.txid, vout=each.vout, amount_sat=each.amount_sat, address="a", confirmations=11, safe=True)
        for each in rows
        if each.listed
    )
    cut = CoinCut(tip=NodeBlock(height=TIP, hash=HASH), coins=coins)
    return Matcher(cut, books, TIP, Asked()).match(), books


def test_the_largest_deposits_in_flight_are_named_and_the_others_stand_in_one_item() -> None:
    rows = [replace(ROW, vout=number, amount_sat=1_000 + number) for number in range(MOST_NAMED + 50)]
    match, _ = compare(*rows)
    *named, others = match.account.in_flight
    assert len(named) == MOST_NAMED
    assert named[0].ref == f"{TXID}:{MOST_NAMED + 49}"
    assert (others.kind, others.ref) == ("deposit", "50 others")
    assert match.account.difference_msat == 0


def test_a_finding_is_smaller_by_what_operators_have_booked_for_it() -> None:
    for booked_sat, left in ((0, [7_000]), (-6_000, [1_000]), (-7_000, [])):
        corrected = [Corrected(id="corr_1", amount_msat=1000 * booked_sat, subject=TXID)] if booked_sat else []
        match, _ = compare(settled_sat=7_000 + booked_sat, spends=[SPEND], corrected=corrected)
        assert [each.amount_msat // 1000 for each in match.findings] == left
        assert match.account.difference_msat == sum(each.amount_msat for each in match.findings)


def test_a_spend_that_is_not_in_force_is_no_finding() -> None:
    match, _ = compare(spends=[replace(SPEND, in_force=False)])
    assert match.findings == []


def test_a_missing_coin_and_a_nameless_correction_are_suspects_of_a_rest() -> None:
    gone = replace(ROW, listed=False, held=False, sure=False, booked=True)
    match, books = compare(gone, settled_sat=5_001, corrected=[Corrected(id="corr_1", amount_msat=1_000, subject=None)])
    assert (match.findings, match.account.difference_msat) == ([], 5_001_000)
    finding = unexplained(5_001_000, match.missing, books, set())
    assert {(each.kind, each.ref, each.amount_msat) for each in finding.suspects} == {
        ("coin", f"{TXID}:0", 5_000_000),
        ("correction", "corr_1", 1_000),
    }
