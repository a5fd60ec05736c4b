"""Everything that the process is connected to. Connections are made when they are first needed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
from temporalio.client import Client, Interceptor

from api.service.lookup import Lookups
from api.service.payment.lane import Lanes
from engine.bank.limit import LimitBooks
from engine.clients.announcements import Listener
from engine.clients.cache import Cache
from engine.clients.lnd.invoice import InvoiceNode
from engine.clients.lnurl.web import Web
from engine.contracts.converter import DATA_CONVERTER
from engine.domain.ids import NodeName
from engine.ledger.database import Connection, Pool, borrowed, open_pool
from engine.settings import ApiSettings

_LANE_S, _LIGHTNING_LANE_S = 1, 0.2
"""The longest wait for a lane. A Lightning payment takes long by itself, so it waits less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Made once per process."""

    settings: ApiSettings
    pool: Pool
    temporal: Client
    listener: Listener
    lanes: Lanes
    lightning_lanes: Lanes
    lookups: Lookups
    cache: Cache
    invoices: dict[NodeName, InvoiceNode]
    http: httpx.AsyncClient
    limits: LimitBooks
    web: Web

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection for reads. Raises Unavailable while Postgres is away."""
        async with borrowed(self.pool) as connection:
            yield connection


@asynccontextmanager
async def open_resources(settings: ApiSettings, interceptors: Sequence[Interceptor] = ()) -> AsyncIterator[Resources]:
    """Connect, for the length of the block."""
    async with AsyncExitStack() as stack:
        pool = await open_pool(
            settings.postgres_dsn.get_secret_value(), min_size=0, max_size=settings.postgres_pool_size
        )
        stack.push_async_callback(pool.close)
        cache = Cache(settings.redis_url.get_secret_value())
        stack.push_async_callback(cache.close)
        listener = Listener(settings.redis_url.get_secret_value())
        stack.push_async_callback(listener.close)
        listening = asyncio.create_task(listener.listen())
        stack.callback(listening.cancel)
        invoices: dict[NodeName, InvoiceNode] = {}
        for name, node in settings.nodes.items():
            invoices[NodeName(name)] = InvoiceNode(NodeName(name), node)
            stack.push_async_callback(invoices[NodeName(name)].close)
        temporal = await Client.connect(
            settings.temporal_address,
            namespace=settings.temporal_namespace,
            data_converter=DATA_CONVERTER,
            interceptors=list(interceptors),
            lazy=True,
        )
        web = Web(guarded=settings.bitcoin_network != "regtest")
        stack.push_async_callback(web.close)
        yield Resources(
            settings=settings,
            pool=pool,
            temporal=temporal,
            listener=listener,
            lanes=Lanes(temporal, listener, width=settings.payment_lanes, patience_s=_LANE_S),
            lightning_lanes=Lanes(
                temporal, listener, width=settings.lightning_lanes, patience_s=_LIGHTNING_LANE_S, over_lightning=True
            ),
            lookups=Lookups(pool, cache),
            cache=cache,
            invoices=invoices,
            http=await stack.enter_async_context(httpx.AsyncClient(timeout=2)),
            limits=LimitBooks(),
            web=web,
        )
