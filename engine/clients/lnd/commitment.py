"""What a channel's commitment holds besides the two balances: fee, anchors, and outputs of HTLCs (BOLT 3). Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.clients.lndrpc import lightning_pb2 as ln
from engine.domain.money import MSAT_PER_SAT, Msat

_ANCHORS_SAT = 660
"""Two anchor outputs of 330 sat, paid by the side that opened the channel (BOLT 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChannel:
    """An open channel of the node."""

    point: str
    opened_by_us: bool
    escrow_msat: Msat
    fee_per_kw: int


def read_channel(channel: ln.Channel) -> NodeChannel:
    """The channel as the engine sees it."""
    return NodeChannel(
        point=channel.channel_point,
        opened_by_us=channel.initiator,
        escrow_msat=Msat(MSAT_PER_SAT * escrow_sat(channel)),
        fee_per_kw=channel.fee_per_kw,
    )


def commitments(channels: Iterable[ln.Channel]) -> set[tuple[str, int]]:
    """The number of each channel's commitment, which moves with every HTLC."""
    return {(channel.channel_point, channel.num_updates) for channel in channels}


_ANCHORS = frozenset({ln.ANCHORS, ln.SCRIPT_ENFORCED_LEASE})
_REST_WEIGHT = {
    ln.ANCHORS: 1124,
    ln.SCRIPT_ENFORCED_LEASE: 1124,
    ln.LEGACY: 724,
    ln.STATIC_REMOTE_KEY: 724,
}
"""Weight of a commitment without HTLCs (BOLT 3, appendix A)."""


def escrow_sat(channel: ln.Channel) -> int:
    """What we put into the commitment of a channel that we opened, without HTLCs.

    LND's `commit_fee` is what the balances in whole satoshi leave over: one satoshi too much when they have fractions
    (seen). So the fee is computed from fee rate and weight, as the protocol does.
    """
    if not channel.initiator:
        return 0
    weight = _REST_WEIGHT.get(channel.commitment_type)
    fee_sat = channel.commit_fee if weight is None else channel.fee_per_kw * weight // 1000
    return fee_sat + (_ANCHORS_SAT if channel.commitment_type in _ANCHORS else 0)


_HTLC_WEIGHT = 172
_SECOND_STAGE_WEIGHT = {False: 663, True: 703}
"""Weight of the transaction that ends an HTLC, by whether the HTLC is incoming. With anchors its fee plays no part."""


def htlc_fees_sat(channel: ln.Channel) -> int:
    """What a channel that we opened pays for the HTLC outputs of its commitment (BOLT 3). Dust has no output."""
    weight = _REST_WEIGHT.get(channel.commitment_type)
    if not channel.initiator or weight is None:
        return 0
    free = channel.commitment_type in _ANCHORS
    outputs = sum(
        htlc.amount
        >= channel.local_constraints.dust_limit_sat
        + (0 if free else channel.fee_per_kw * _SECOND_STAGE_WEIGHT[htlc.incoming] // 1000)
        for htlc in channel.pending_htlcs
    )
    return channel.fee_per_kw * (weight + _HTLC_WEIGHT * outputs) // 1000 - channel.fee_per_kw * weight // 1000
