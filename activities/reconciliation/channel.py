"""Findings about channels that the books still count and that have closed or pay another fee, by channel point.

    gone       books − node = our balance (channels) + its escrow − what came to the wallet (onchain)
    new fee    books − node = old − new (escrow), and the reverse (channels): the same money in the other account

The channel's finding opens a case. Its parts on the node's other accounts are reported with it and open none. The last
agreement of books and node says what the channel's share was; the node says what became of it. Books nothing. Pure.
"""

from collections.abc import Mapping, Sequence

from engine.bank.agreement import AgreedChannel
from engine.clients.lnd.commitment import NodeChannel
from engine.clients.lnd.history import ChannelEnd
from engine.contracts.reconciliation import Finding, FindingKind, Suspect
from engine.domain.ids import NodeName
from engine.domain.money import MSAT_PER_SAT
from engine.ledger import chart

_COOPERATIVE = "cooperative_close"


def list_gone(agreed: Sequence[AgreedChannel], channels: Sequence[NodeChannel]) -> list[str]:
    """The agreed channels that the node no longer has."""
    still = {channel.point for channel in channels}
    return [channel.point for channel in agreed if channel.point not in still]


def name_ends(
    node: NodeName, agreed: Sequence[AgreedChannel], ends: Sequence[ChannelEnd], left: Mapping[str, int]
) -> list[Finding]:
    """A finding for each channel that has ended, with its parts.

    LND reports balances of ended channels in whole satoshi. What is left over on the channels, less than one satoshi
    for each, is added to the first one. A cooperative close pays the fractions of both sides to the side that opened
    the channel (seen). So the sum may also be too low, by up to one satoshi for each of our channels. `left` is books −
    node per account, without what other findings explain.
    """
    shares = {channel.point: channel for channel in agreed}
    owed = [_owed_msat(shares[end.point], end) for end in ends]
    over_msat = left.get(chart.channels(node), 0) - sum(owed)
    rounded_up = sum(end.stage == _COOPERATIVE and shares[end.point].opened_by_us for end in ends)
    if owed and -MSAT_PER_SAT * rounded_up < over_msat < MSAT_PER_SAT * len(owed):
        owed[0] += over_msat
    swept: set[str] = set()
    found: list[Finding] = []
    for end, owed_msat in zip(ends, owed, strict=True):
        moved_msat = sum(move.amount_msat for move in end.moves if move.ref not in swept)
        swept |= {move.ref for move in end.moves}
        found += _of_end(node, shares[end.point], end, owed_msat, moved_msat)
    return found


def name_fees(
    node: NodeName, agreed: Sequence[AgreedChannel], channels: Sequence[NodeChannel], left: Mapping[str, int]
) -> list[Finding]:
    """A finding for each channel whose fee rate has changed; none unless together they explain `left` exactly."""
    now = {channel.point: channel for channel in channels}
    changed = [
        (before, now[before.point])
        for before in agreed
        if before.point in now and before.escrow_msat != now[before.point].escrow_msat
    ]
    sum_msat = sum(before.escrow_msat - after.escrow_msat for before, after in changed)
    if sum_msat != left.get(chart.commit_escrow(node), 0) or -sum_msat != left.get(chart.channels(node), 0):
        return []
    return [each for before, after in changed for each in _of_fee(node, before, after)]


def _owed_msat(share: AgreedChannel, end: ChannelEnd) -> int:
    """What the books have on the node's channels for this one. A cooperative close pays out escrow and balance."""
    owed_msat = MSAT_PER_SAT * (end.balance_sat + end.close_fee_sat)
    return owed_msat - share.escrow_msat if end.stage == _COOPERATIVE else owed_msat


def _of_end(node: NodeName, share: AgreedChannel, end: ChannelEnd, owed_msat: int, moved_msat: int) -> list[Finding]:
    sum_msat = owed_msat + share.escrow_msat - moved_msat
    words = (
        f"channel {end.point} has ended ({end.stage}, closing transaction {end.closing_txid or 'not known yet'}): the "
        f"books still have {owed_msat:,} msat of it in the channels and {share.escrow_msat:,} msat in escrow; "
        f"{moved_msat:,} msat came to the wallet, {sum_msat:,} msat are on the way or were paid to miners"
    )
    suspects = [
        Suspect(kind=end.stage, ref=end.point, amount_msat=owed_msat + share.escrow_msat, detail=f"at {node}"),
        *_closing(end),
        *(
            Suspect(kind=move.kind, ref=move.ref, amount_msat=-move.amount_msat, detail="to the wallet of the node")
            for move in end.moves
        ),
    ]
    return [
        _finding(FindingKind.CHANNEL_CLOSED, chart.channels(node), end.point, owed_msat, words, suspects),
        *_parts(node, end.point, {chart.commit_escrow(node): share.escrow_msat, chart.onchain(node): -moved_msat}),
    ]


def _closing(end: ChannelEnd) -> list[Suspect]:
    """The closing transaction, once the node names it."""
    if not end.closing_txid:
        return []
    return [Suspect(kind="closing_transaction", ref=end.closing_txid, amount_msat=0, detail=f"closes {end.point}")]


def _of_fee(node: NodeName, before: AgreedChannel, after: NodeChannel) -> list[Finding]:
    moved_msat = before.escrow_msat - after.escrow_msat
    words = (
        f"the commitment fee rate of channel {before.point} has changed from {before.fee_per_kw} to "
        f"{after.fee_per_kw} sat/kw; the books still hold {before.escrow_msat:,} msat in escrow for it"
    )
    suspects = [Suspect(kind="channel", ref=before.point, amount_msat=moved_msat, detail=f"at {node}")]
    kind, account = FindingKind.COMMITMENT_FEE_CHANGED, chart.commit_escrow(node)
    return [
        _finding(kind, account, before.point, moved_msat, words, suspects),
        *_parts(node, before.point, {chart.channels(node): -moved_msat}),
    ]


def _parts(node: NodeName, point: str, amounts_msat: Mapping[str, int]) -> list[Finding]:
    words = f"part of what has become of channel {point} at {node}"
    return [
        _finding(FindingKind.CHANNEL_PART, account, point, amount_msat, words, [])
        for account, amount_msat in amounts_msat.items()
        if amount_msat != 0
    ]


def _finding(
    kind: FindingKind, account: str, point: str, amount_msat: int, words: str, suspects: list[Suspect]
) -> Finding:
    return Finding(kind=kind, account=account, subject=point, amount_msat=amount_msat, detail=words, suspects=suspects)
