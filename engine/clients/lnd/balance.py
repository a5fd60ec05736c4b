"""Everything that a node holds for us: channels, commitment fees and coins on chain."""

from dataclasses import dataclass

from engine.clients.lnd.commitment import NodeChannel, commitments, escrow_sat, htlc_fees_sat, read_channel
from engine.clients.lnd.grpc_channel import translated
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc import lightning_pb2_grpc
from engine.domain.ids import NodeName
from engine.domain.money import MSAT_PER_SAT, Msat

_CALL_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBalances:
    """What a node holds for us. `in_flight`: an HTLC or a channel change is under way."""

    pubkey: str
    channels_msat: Msat
    """Local balances and our own outgoing HTLCs, which LND counts as `unsettled_remote_balance`."""
    commit_escrow_msat: Msat
    """Commitment fees and anchors of the channels that we opened: ours again when they close."""
    onchain_msat: Msat
    in_flight: bool
    htlc_fees_msat: Msat
    """What the commitments of our channels pay for HTLCs in flight. The channels lack it until the HTLCs resolve."""
    channels: tuple[NodeChannel, ...]
    steady: bool
    """No commitment changed while balances and channels were read, so they are of one moment."""


async def read_balances(lightning: "lightning_pb2_grpc.LightningAsyncStub", name: NodeName) -> NodeBalances:
    """All that this node holds, in msat. Only LND's `ChannelBalance` has millisatoshi."""
    with translated(name):
        info = await lightning.GetInfo(ln.GetInfoRequest(), timeout=_CALL_TIMEOUT_S)
        pending = await lightning.PendingChannels(ln.PendingChannelsRequest(), timeout=_CALL_TIMEOUT_S)
        wallet = await lightning.WalletBalance(ln.WalletBalanceRequest(), timeout=_CALL_TIMEOUT_S)
        before = (await lightning.ListChannels(ln.ListChannelsRequest(), timeout=_CALL_TIMEOUT_S)).channels
        total = await lightning.ChannelBalance(ln.ChannelBalanceRequest(), timeout=_CALL_TIMEOUT_S)
        channels = (await lightning.ListChannels(ln.ListChannelsRequest(), timeout=_CALL_TIMEOUT_S)).channels
    changing = (
        len(pending.pending_open_channels)
        + len(pending.pending_force_closing_channels)
        + len(pending.waiting_close_channels)
    )
    return NodeBalances(
        pubkey=info.identity_pubkey,
        channels_msat=Msat(total.local_balance.msat + total.unsettled_remote_balance.msat),
        commit_escrow_msat=Msat(MSAT_PER_SAT * sum(escrow_sat(channel) for channel in channels)),
        onchain_msat=Msat(MSAT_PER_SAT * wallet.total_balance),
        in_flight=changing > 0 or any(channel.pending_htlcs for channel in channels),
        htlc_fees_msat=Msat(MSAT_PER_SAT * sum(htlc_fees_sat(channel) for channel in channels)),
        channels=tuple(sorted((read_channel(channel) for channel in channels), key=lambda each: each.point)),
        steady=commitments(before) == commitments(channels),
    )
