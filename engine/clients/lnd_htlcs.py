"""Where a node's HTLCs are: what of "in flight" is really in a channel.

`ListChannels` names an HTLC when it is on both commitments. One that only the peer's commitment has, because the peer
has been silent since, is not named (seen); a node closes such a channel when the HTLC expires. So an absence tells
something past the time lock only, and nothing while a channel is being closed.
"""

from dataclasses import dataclass

from engine.clients.lnd_channel import translated
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc import lightning_pb2_grpc
from engine.domain.ids import NodeName, PaymentHash

_CALL_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHtlcs:
    """What is in the channels at one height."""

    height: int
    synced: bool
    """Whether the node itself holds this height to be the newest."""
    outgoing: frozenset[PaymentHash]
    closing: int
    """Channels that are being closed: what they hold is not listed by hash."""


async def read_htlcs(lightning: "lightning_pb2_grpc.LightningAsyncStub", node: NodeName) -> NodeHtlcs:
    """Look at every channel, open and closing. The height is read first: what is said holds there or later."""
    with translated(node, looks=True):
        info = await lightning.GetInfo(ln.GetInfoRequest(), timeout=_CALL_TIMEOUT_S)
        channels = (await lightning.ListChannels(ln.ListChannelsRequest(), timeout=_CALL_TIMEOUT_S)).channels
        pending = await lightning.PendingChannels(ln.PendingChannelsRequest(), timeout=_CALL_TIMEOUT_S)
    outgoing = (htlc.hash_lock.hex() for channel in channels for htlc in channel.pending_htlcs if not htlc.incoming)
    return NodeHtlcs(
        height=info.block_height,
        synced=info.synced_to_chain,
        outgoing=frozenset(PaymentHash(payment_hash) for payment_hash in outgoing),
        closing=len(pending.waiting_close_channels) + len(pending.pending_force_closing_channels),
    )
