"""A thin gRPC connection to one LND node of the local stack, and the few checks of it that a start needs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from engine.clients.lndrpc import lightning_pb2_grpc, stateservice_pb2, stateservice_pb2_grpc
from engine.clients.lndrpc.invoicesrpc import invoices_pb2_grpc
from engine.clients.lndrpc.routerrpc import router_pb2_grpc


@dataclass(frozen=True)
class Node:
    """Where a node is and what opens it."""

    name: str
    address: str
    certificate: Path
    macaroon: Path


@dataclass(frozen=True)
class Stubs:
    """A node's services over one channel."""

    lightning: "lightning_pb2_grpc.LightningAsyncStub"
    router: "router_pb2_grpc.RouterAsyncStub"
    invoices: "invoices_pb2_grpc.InvoicesAsyncStub"


class _Macaroon(grpc.AuthMetadataPlugin):
    def __init__(self, macaroon: bytes) -> None:
        self._macaroon = macaroon.hex()

    def __call__(self, _: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        callback((("macaroon", self._macaroon),), None)


@asynccontextmanager
async def connect(node: Node) -> AsyncIterator[Stubs]:
    """The node's services, with its macaroon on every call."""
    transport = grpc.ssl_channel_credentials(node.certificate.read_bytes())
    calls = grpc.metadata_call_credentials(_Macaroon(node.macaroon.read_bytes()))
    async with grpc.aio.secure_channel(node.address, grpc.composite_channel_credentials(transport, calls)) as channel:
        yield Stubs(
            lightning_pb2_grpc.LightningStub(channel),
            router_pb2_grpc.RouterStub(channel),
            invoices_pb2_grpc.InvoicesStub(channel),
        )


async def active(node: Node) -> bool:
    """Whether the node serves: its wallet is open, it follows the chain, and its channel subsystems run."""
    try:
        transport = grpc.ssl_channel_credentials(node.certificate.read_bytes())
        async with grpc.aio.secure_channel(node.address, transport) as channel:
            said = await stateservice_pb2_grpc.StateStub(channel).GetState(
                stateservice_pb2.GetStateRequest(), timeout=2
            )
    except (OSError, grpc.aio.AioRpcError):
        return False
    return said.state == stateservice_pb2.SERVER_ACTIVE and node.macaroon.exists()
