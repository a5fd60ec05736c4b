"""Everything the process is connected to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from temporalio.client import Client

from api.service.lookups import Lookups
from api.service.payment.lanes import Lanes
from engine.bank.limits import LimitBooks
from engine.clients.announcements import Listener
from engine.clients.cache import Cache
from engine.clients.lnd.invoices import InvoiceNode
from engine.clients.lnurl.web import Web
from engine.domain.ids import NodeName
from engine.ledger.database import Connection, Pool, borrowed
from engine.settings import ApiSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Made once, in the lifespan of the process."""

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
