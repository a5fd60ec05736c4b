"""The HTTP API, put together; `serve.py` starts it.

The process holds no state of its own: any number may run side by side, and each may die at any time. Connections are
made when they are first needed, so it starts, answers `/healthz` and tells at `/readyz` what is away, whatever is.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import temporalio.client
from fastapi import FastAPI
from temporalio.client import Client

import api.public.withdraw_link
from api.admin import account_status, audit, correction, forced_end, ledger, prices, reconciliation
from api.http import errors, openapi
from api.http.door import Door
from api.http.strangers import Strangers
from api.public import lnurl, tip
from api.service.lookups import Lookups
from api.service.payment.lanes import Lanes
from api.service.resources import Resources
from api.system import health, metrics
from api.system.pages import serve_pages
from api.user import account, batch, decode, fees, invoice, limits, payment, quote, statement, wallet, withdraw_link
from engine.bank.limits import LimitBooks
from engine.clients.announcements import Listener
from engine.clients.cache import Cache
from engine.clients.lnd.invoices import InvoiceNode
from engine.clients.lnurl.web import Web
from engine.contracts.converter import DATA_CONVERTER
from engine.domain.ids import NodeName
from engine.ledger.database import open_pool
from engine.settings import ApiSettings
from engine.telemetry import start_telemetry

_PARTS = (
    *(account, wallet, statement, payment, batch, quote, decode, invoice, withdraw_link, limits),
    *(account_status, ledger, fees, prices, reconciliation, correction, forced_end, audit, health),
)
_LANE_S, _LIGHTNING_LANE_S = 1, 0.2
"""How long those that wait for a lane do so at the most; over Lightning a payment takes long by itself."""
_DESCRIPTION = """
A durable Bitcoin payment engine. Amounts are integers with their unit in the name, times are RFC 3339 in UTC, errors
are problem documents (RFC 9457) with a stable `code`. Send an `Idempotency-Key` with every POST: a repeat gives the
first answer. The names of operations (`operationId`) do not change.
"""


def create_app(settings: ApiSettings) -> FastAPI:
    """Make the application. No server makes it by itself: one without the bounds of `connection.py` would do."""
    interceptors = start_telemetry(settings, "millrace-api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            resources = app.state.resources = await _connect(settings, stack, interceptors)
            if settings.metrics_address is not None:
                listener = metrics.own_listener(app.state.metrics, resources.pool, settings.metrics_address)
                await stack.enter_async_context(listener)
            yield

    app = FastAPI(
        title="Millrace",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # pages.py serves it
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=openapi.operation_id,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # the instrumentation below traces, if asked for
    )
    errors.install(app)
    app.state.metrics = metrics.Metrics()
    app.add_middleware(metrics.Metering, metrics=app.state.metrics)
    strangers = Strangers(settings.public_rate_limit_per_minute, settings.public_rate_limit_per_second)
    app.add_middleware(Door, strangers=strangers, refused=app.state.metrics.stranger_refused)
    if settings.metrics_address is None and settings.bitcoin_network == "regtest":
        app.include_router(metrics.router)
    for part in _PARTS:
        app.include_router(part.router)
    for door in (lnurl.router, api.public.withdraw_link.router, tip.router):
        app.include_router(door)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    serve_pages(app)
    if settings.otlp_endpoint is not None:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415 - see telemetry

        FastAPIInstrumentor.instrument_app(app)
    return app


async def _connect(
    settings: ApiSettings, stack: AsyncExitStack, interceptors: Sequence[temporalio.client.Interceptor]
) -> Resources:
    pool = await open_pool(settings.postgres_dsn.get_secret_value(), min_size=0, max_size=settings.postgres_pool_size)
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
    return Resources(
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


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = openapi.describe(app)
    return app.openapi_schema
