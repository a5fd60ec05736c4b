"""What has become of a channel that the books stand for: named to the millisatoshi, or not at all."""

import pytest

from activities.reconciliation.channel import list_gone, name_ends, name_fees
from engine.bank.agreement import AgreedChannel
from engine.clients.lnd.commitment import NodeChannel
from engine.clients.lnd.history import ChannelEnd, NodeChange
from engine.contracts.reconciliation import Finding, FindingKind
from engine.domain.ids import NodeName
from engine.domain.money import Msat, Sat

pytestmark = pytest.mark.unit

NODE = NodeName("lnd-1")
CHANNELS, ESCROW, ONCHAIN = (f"asset:lnd:lnd-1:{place}" for place in ("channels", "commit-escrow", "onchain"))
OURS = AgreedChannel(point="aa:0", opened_by_us=True, escrow_msat=Msat(2_180_000), fee_per_kw=1_352)
THEIRS = AgreedChannel(point="bb:1", opened_by_us=False, escrow_msat=Msat(0), fee_per_kw=1_352)


def end(point: str, stage: str, balance_sat: int, *moves_msat: int, close_fee_sat: int = 0) -> ChannelEnd:
    return ChannelEnd(
        point=point,
        stage=stage,
        closing_txid="cc",
        balance_sat=Sat(balance_sat),
        close_fee_sat=Sat(close_fee_sat),
        moves=tuple(NodeChange(kind="sweep", ref=f"tx{msat}", amount_msat=msat) for msat in moves_msat),
    )


def sums(findings: list[Finding]) -> dict[str, int]:
    return {each.account: each.amount_msat for each in findings}


def at(fee_per_kw: int, escrow_msat: int) -> NodeChannel:
    return NodeChannel(point="aa:0", opened_by_us=True, escrow_msat=Msat(escrow_msat), fee_per_kw=fee_per_kw)


def test_an_open_channel_has_not_gone() -> None:
    assert list_gone([OURS, THEIRS], [at(1_352, 2_180_000)]) == ["bb:1"]


def test_a_forced_end_is_balance_and_escrow_until_its_sweep_has_come() -> None:
    left = {CHANNELS: 600_000_123, ESCROW: 2_180_000}
    waiting = name_ends(NODE, [OURS, THEIRS], [end("aa:0", "pending_force_close", 600_000)], left)
    assert sums(waiting) == left
    assert [each.kind for each in waiting] == [FindingKind.CHANNEL_CLOSED, FindingKind.CHANNEL_PART]
    assert [(each.kind, each.ref) for each in waiting[0].suspects] == [
        ("pending_force_close", "aa:0"),
        ("closing_transaction", "cc"),
    ]
    swept = name_ends(NODE, [OURS], [end("aa:0", "local_force_close", 600_000, 330_000, 599_000_000)], left)
    assert sums(swept) == {**left, ONCHAIN: -599_330_000}


def test_a_cooperative_end_has_paid_the_escrow_out() -> None:
    """money.md: local 600,000, escrow 2,180, closed with 601,900 and 280 for the miner."""
    closed = end("aa:0", "cooperative_close", 601_900, 601_900_000, close_fee_sat=280)
    assert sums(name_ends(NODE, [OURS], [closed], {CHANNELS: 600_000_000})) == {
        CHANNELS: 600_000_000,
        ESCROW: 2_180_000,
        ONCHAIN: -601_900_000,
    }


@pytest.mark.parametrize(("over_msat", "named_msat"), [(999, 999), (1_000, 0), (-1, 0)])
def test_only_the_fraction_of_a_satoshi_that_lnd_does_not_tell_is_the_channels(over_msat: int, named_msat: int) -> None:
    (found,) = name_ends(NODE, [THEIRS], [end("bb:1", "waiting_close", 5)], {CHANNELS: 5_000 + over_msat})
    assert found.amount_msat == 5_000 + named_msat


def test_a_cooperative_end_of_ours_may_have_paid_the_fractions_of_both_sides() -> None:
    for over_msat, named_msat in ((-338, -338), (-1_000, 0)):
        closed = end("aa:0", "cooperative_close", 601_900, close_fee_sat=280)
        found, *_ = name_ends(NODE, [OURS], [closed], {CHANNELS: 600_000_000 + over_msat})
        assert found.amount_msat == 600_000_000 + named_msat


def test_a_sweep_of_two_channels_counts_once() -> None:
    ends = [end("aa:0", "local_force_close", 5, 9_000), end("bb:1", "local_force_close", 5, 9_000)]
    found = name_ends(NODE, [OURS, THEIRS], ends, {})
    assert [each.amount_msat for each in found if each.account == ONCHAIN] == [-9_000]


def test_a_changed_fee_rate_is_named_with_old_and_new() -> None:
    now = [at(2_500, 3_470_000)]
    left = {ESCROW: -1_290_000, CHANNELS: 1_290_000}
    case, part = name_fees(NODE, [OURS, THEIRS], now, left)
    assert (case.kind, case.subject, sums([case, part])) == (FindingKind.COMMITMENT_FEE_CHANGED, "aa:0", left)
    assert "from 1352 to 2500" in case.detail
    assert "still hold 2,180,000 msat" in case.detail
    for other in ({}, {ESCROW: -1_290_000}, {ESCROW: -1_290_000, CHANNELS: 1_290_001}):
        assert name_fees(NODE, [OURS], now, other) == []
