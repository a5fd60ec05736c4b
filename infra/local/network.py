"""The Lightning network of the local stack: four nodes with money, channels and the whole network graph.

    lnd-1 ⇄ outside-1     one opened by each, so the bank has room in both directions
    lnd-2 → outside-1
    outside-1 → outside-2

The bank's own nodes lie at the edge, so no foreign payment is ever routed through them and its books stay exact.
Every step looks before it acts: an interrupted preparation is simply repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Self

import grpc.aio

from engine.clients.lndrpc import lightning_pb2 as ln
from infra.local.bitcoin_rpc import BitcoinRpc
from infra.local.home import BANK, Home
from infra.local.lightning import Node, Stubs, connect
from infra.local.parts.store import Failed

FIRST_BLOCKS = 121
"""Mined before the first coin is sent. A reward can be spent after 100 more blocks.

A wallet also sets a lock time of up to 99 blocks below the tip, and Bitcoin Knots does not relay lock time 21, which an
overlay protocol uses. At height 101 it refused one transaction of a thousand, and the stack did not start.
"""
CONFIRM = 6  # Channels are announced at this depth.
COIN_SAT = 50_000_000
COINS_PER_NODE = 2
FEE_RATE_SAT_PER_VB = 2


@dataclass(frozen=True)
class Channel:
    """Opened and paid for by `opener`, who gives `pushed_sat` of it to `peer` at once."""

    opener: str
    peer: str
    capacity_sat: int
    pushed_sat: int


CHANNELS = (
    Channel("lnd-1", "outside-1", 16_000_000, 6_000_000),
    Channel("lnd-2", "outside-1", 16_000_000, 6_000_000),
    Channel("outside-1", "lnd-1", 16_000_000, 6_000_000),
    Channel("outside-1", "outside-2", 16_000_000, 8_000_000),
)
RECEIVE = (
    "/lnrpc.Lightning/AddInvoice",
    "/invoicesrpc.Invoices/LookupInvoiceV2",
    "/invoicesrpc.Invoices/CancelInvoice",
)
LIGHTNING = (
    "GetInfo ChannelBalance WalletBalance ListChannels PendingChannels SubscribeInvoices DecodePayReq LookupInvoice "
    "ListInvoices ListPayments ClosedChannels GetTransactions QueryRoutes"
)
ROUTER = "SendPaymentV2 SendToRouteV2 TrackPaymentV2 TrackPayments EstimateRouteFee"
ROLES = {
    "receive": RECEIVE,
    "worker": (
        *RECEIVE,
        *(f"/lnrpc.Lightning/{name}" for name in LIGHTNING.split()),
        *(f"/routerrpc.Router/{name}" for name in ROUTER.split()),
    ),
}


async def until(what: str, holds: Callable[[], Awaitable[bool]], limit_s: float = 60) -> None:
    """Wait for a fact; raises `Failed` when it does not come."""
    end = asyncio.get_running_loop().time() + limit_s
    hindrance = ""
    while asyncio.get_running_loop().time() < end:
        try:
            if await holds():
                return
        except grpc.aio.AioRpcError as error:
            hindrance = f" ({error.details()})"
        await asyncio.sleep(0.05)
    raise Failed(f"{limit_s:.0f} s were not enough for {what}{hindrance}: see the nodes' logs, or ./run reset.")


class Network:
    """The nodes of one stack, connected; use it as `async with`."""

    def __init__(
        self, home: Home, chain: BitcoinRpc, nodes: Sequence[Node], channels: Sequence[Channel] = CHANNELS
    ) -> None:
        self._home, self._chain, self._nodes = home, chain, {node.name: node for node in nodes}
        self._channels = channels
        self._stubs: dict[str, Stubs] = {}
        self._keys: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        for name, node in self._nodes.items():
            self._stubs[name] = await self._stack.enter_async_context(connect(node))
            self._keys[name] = (await self._stubs[name].lightning.GetInfo(ln.GetInfoRequest())).identity_pubkey
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def prepare(self) -> None:
        """Make money, channels and the whole graph, starting from whatever is there already."""
        await self.synced()
        await self._fund()
        await self.connect_peers()
        await self._open()
        await self._mapped()

    async def synced(self) -> None:
        """Every node has seen the tip."""
        height = await asyncio.to_thread(self._chain.call, "getblockcount")

        async def holds(stubs: Stubs) -> bool:
            info = await stubs.lightning.GetInfo(ln.GetInfoRequest())
            return info.synced_to_chain and info.block_height >= height

        await asyncio.gather(
            *(until(f"{name} to see block {height}", partial(holds, stubs)) for name, stubs in self._stubs.items())
        )

    async def _mine(self, blocks: int) -> None:
        await asyncio.to_thread(self._chain.mine, blocks)
        await self.synced()

    async def _fund(self) -> None:
        poor = []
        for name, stubs in self._stubs.items():
            balance = await stubs.lightning.WalletBalance(ln.WalletBalanceRequest())
            channels = await stubs.lightning.ListChannels(ln.ListChannelsRequest())
            if balance.total_balance == 0 and not channels.channels:
                poor.append(name)
        for name in poor:
            for _ in range(COINS_PER_NODE):
                address = (
                    await self._stubs[name].lightning.NewAddress(ln.NewAddressRequest(type=ln.WITNESS_PUBKEY_HASH))
                ).address
                amount = f"{COIN_SAT // 10**8}.{COIN_SAT % 10**8:08d}"
                await asyncio.to_thread(
                    self._chain.call,
                    "sendtoaddress",
                    wallet="miner",
                    address=address,
                    amount=amount,
                    fee_rate=FEE_RATE_SAT_PER_VB,
                )
        await self._mine(CONFIRM)

        async def rich(stubs: Stubs) -> bool:
            balance = await stubs.lightning.WalletBalance(ln.WalletBalanceRequest())
            return balance.unconfirmed_balance == 0

        await asyncio.gather(*(until(f"{name}'s money", partial(rich, stubs)) for name, stubs in self._stubs.items()))

    async def connect_peers(self) -> None:
        """Connect every pair that shares a channel; a node that was away need not wait for its own retry."""
        for opener, peer in {(channel.opener, channel.peer) for channel in self._channels}:
            known = (await self._stubs[opener].lightning.ListPeers(ln.ListPeersRequest())).peers
            if any(one.pub_key == self._keys[peer] for one in known):
                continue
            address = ln.LightningAddress(
                pubkey=self._keys[peer], host=f"127.0.0.1:{self._home.ports()[f'{peer}-peer']}"
            )
            try:
                await self._stubs[opener].lightning.ConnectPeer(
                    ln.ConnectPeerRequest(addr=address, timeout=5), timeout=10
                )
            except grpc.aio.AioRpcError as error:
                if "already connected" not in (error.details() or ""):
                    print(f"{opener}: no connection to {peer} yet: {error.details()}", flush=True)

    async def _open(self) -> None:
        opened = False
        for channel in self._channels:
            lightning, peer = self._stubs[channel.opener].lightning, self._keys[channel.peer]
            listed = (await lightning.ListChannels(ln.ListChannelsRequest())).channels
            waiting = (await lightning.PendingChannels(ln.PendingChannelsRequest())).pending_open_channels
            if any(one.remote_pubkey == peer and one.initiator for one in listed):
                continue
            if any(
                one.channel.remote_node_pub == peer and one.channel.initiator == ln.INITIATOR_LOCAL for one in waiting
            ):
                opened = True
                continue
            request = ln.OpenChannelRequest(
                node_pubkey=bytes.fromhex(peer),
                local_funding_amount=channel.capacity_sat,
                push_sat=channel.pushed_sat,
                sat_per_vbyte=FEE_RATE_SAT_PER_VB,
            )

            async def open_it(channel: Channel = channel, request: ln.OpenChannelRequest = request) -> bool:
                await self._stubs[channel.opener].lightning.OpenChannelSync(request)
                return True

            await until(f"{channel.opener} to open a channel to {channel.peer}", open_it)
            opened = True
        if opened:
            await self._mine(CONFIRM)

    async def _mapped(self) -> None:
        async def whole(stubs: Stubs) -> bool:
            edges = (await stubs.lightning.DescribeGraph(ln.ChannelGraphRequest())).edges
            return len(edges) >= len(self._channels) and all(
                edge.HasField("node1_policy") and edge.HasField("node2_policy") for edge in edges
            )

        await self.channels_active()
        await asyncio.gather(
            *(until(f"{name} to know every channel", partial(whole, stubs)) for name, stubs in self._stubs.items())
        )

    async def channels_active(self) -> None:
        """Every open channel can be used from both its ends."""

        async def holds(stubs: Stubs) -> bool:
            info = await stubs.lightning.GetInfo(ln.GetInfoRequest())
            if info.num_inactive_channels:
                await self.connect_peers()
            return info.num_inactive_channels == 0

        await asyncio.gather(
            *(until(f"{name}'s channels", partial(holds, stubs)) for name, stubs in self._stubs.items())
        )

    async def bake_macaroons(self) -> None:
        """Least rights for our processes: one macaroon per bank node and role, made when its list changes."""
        for node in BANK:
            for role, calls in ROLES.items():
                file = self._home.macaroon(node, role)
                baked_for, wanted = file.with_suffix(".calls"), "\n".join(calls)
                if file.exists() and baked_for.exists() and baked_for.read_text() == wanted:
                    continue
                permissions = [ln.MacaroonPermission(entity="uri", action=call) for call in calls]
                baked = await self._stubs[node].lightning.BakeMacaroon(ln.BakeMacaroonRequest(permissions=permissions))
                file.parent.mkdir(parents=True, exist_ok=True)
                fresh = file.with_suffix(".new")
                fresh.touch(mode=0o600)
                fresh.write_bytes(bytes.fromhex(baked.macaroon))
                fresh.rename(file)
                baked_for.write_text(wanted)
