"""The most that a node's active channels could send and receive, and which part strangers can find.

A channel can receive what the other side has in it, less what that side must keep (its reserve). The figures are sums
over channels: a payer splits a larger amount into parts. Fees and limits of the other side may reduce them a little.
"""

from dataclasses import dataclass

from engine.clients.lnd.grpc_channel import translated
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc import lightning_pb2_grpc
from engine.domain.ids import NodeName
from engine.domain.money import MSAT_PER_SAT, Msat

_CALL_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRoom:
    """Liquidity at one moment, over active channels only."""

    outbound_msat: Msat
    inbound_msat: Msat
    announced_inbound_msat: Msat
    """The part of the inbound liquidity that needs no route hint in an invoice."""


async def read_room(lightning: "lightning_pb2_grpc.LightningAsyncStub", node: NodeName) -> NodeRoom:
    """Ask the node. Raises Unavailable, OutcomeUnknown."""
    with translated(node):
        answer = await lightning.ListChannels(ln.ListChannelsRequest(active_only=True), timeout=_CALL_TIMEOUT_S)
    return NodeRoom(
        outbound_msat=Msat(MSAT_PER_SAT * sum(channel.local_balance for channel in answer.channels)),
        inbound_msat=_inbound(list(answer.channels)),
        announced_inbound_msat=_inbound([channel for channel in answer.channels if not channel.private]),
    )


def _inbound(channels: list[ln.Channel]) -> Msat:
    free_sat = (channel.remote_balance - channel.remote_constraints.chan_reserve_sat for channel in channels)
    return Msat(MSAT_PER_SAT * sum(max(0, free) for free in free_sat))
