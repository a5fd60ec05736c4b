"""Where a node's HTLCs are: whether a payment "in flight" is really in a channel.

`ListChannels` names an HTLC when it is on both commitments. It does not name one that only the peer's commitment has,
because the peer has been silent since (seen). A node closes such a channel when the HTLC expires. So the absence of an
HTLC proves something only past its time lock, and nothing while a channel is being closed.
"""

from dataclasses import dataclass, field

from engine.clients.lnd.grpc_channel import translated
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc import lightning_pb2_grpc
from engine.domain.channel import SeenChannels
from engine.domain.ids import NodeName, PaymentHash

_CALL_TIMEOUT_S = 10
_LOST = ("ChanStatusLocalDataLoss", "ChanStatusRestored")
"""LND's flags for a channel whose peer has shown newer data than the node's own, or that a backup has restored."""
_BY_PEER = frozenset({ln.ChannelCloseSummary.REMOTE_FORCE_CLOSE, ln.ChannelCloseSummary.BREACH_CLOSE})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHtlcs:
    """What is in the channels at one height."""

    height: int
    synced: bool
    """Whether the node itself takes this height for the newest."""
    outgoing: frozenset[PaymentHash]
    closing: int
    """How many channels are being closed. Their HTLCs are not listed by hash."""
    channels: SeenChannels = field(default_factory=SeenChannels)


async def read_htlcs(lightning: "lightning_pb2_grpc.LightningAsyncStub", node: NodeName) -> NodeHtlcs:
    """Look at every channel, open and closing. The height is read first: the result is true at it or later."""
    with translated(node, looks=True):
        info = await lightning.GetInfo(ln.GetInfoRequest(), timeout=_CALL_TIMEOUT_S)
        channels = (await lightning.ListChannels(ln.ListChannelsRequest(), timeout=_CALL_TIMEOUT_S)).channels
        pending = await lightning.PendingChannels(ln.PendingChannelsRequest(), timeout=_CALL_TIMEOUT_S)
    closing = [each.channel for each in pending.waiting_close_channels]
    closing += [each.channel for each in pending.pending_force_closing_channels]
    outgoing = (htlc.hash_lock.hex() for channel in channels for htlc in channel.pending_htlcs if not htlc.incoming)
    return NodeHtlcs(
        height=info.block_height,
        synced=info.synced_to_chain,
        outgoing=frozenset(PaymentHash(payment_hash) for payment_hash in outgoing),
        closing=len(closing),
        channels=SeenChannels(
            updates={channel.channel_point: channel.num_updates for channel in channels},
            closing={each.channel_point for each in closing},
            data_lost={each.channel_point for each in closing if any(flag in each.chan_status_flags for flag in _LOST)},
        ),
    )


async def read_closed(lightning: "lightning_pb2_grpc.LightningAsyncStub", node: NodeName) -> dict[str, bool]:
    """Every closed channel by its point, and whether its peer closed it with a commitment, however old that one was."""
    with translated(node, looks=True):
        answer = await lightning.ClosedChannels(ln.ClosedChannelsRequest(), timeout=_CALL_TIMEOUT_S)
    return {each.channel_point: each.close_type in _BY_PEER for each in answer.channels}
