"""The HTTP API, put together; `serve.py` starts it.

The process holds no state of its own: any number may run side by side, and each may die at any time. Connections are
made when they are first needed. So the process starts and answers `/healthz` whatever is down, and `/readyz` says what
is.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

import api.admin.limit
import api.admin.withdrawal
import api.public.withdraw_link
from api.admin import (
    account_status,
    audit,
    chain,
    correction,
    deposit_decision,
    deposit_rules,
    fee,
    forced_end,
    ledger,
    payout,
    price,
    reconciliation,
    withdrawal_decision,
    withdrawal_rules,
)
from api.http import admission, errors, openapi, stranger_limit
from api.public import lnurl, tip
from api.service.resources import open_resources
from api.system import health, metrics, pages
from api.user import (
    account,
    address,
    batch,
    decode,
    deposit,
    invoice,
    limit,
    payment,
    quote,
    statement,
    wallet,
    withdraw_link,
    withdrawal,
)
from engine.settings import ApiSettings
from engine.telemetry import start_telemetry

_PARTS = (
    *(account, wallet, statement, payment, batch, quote, decode, invoice, address, deposit, withdrawal, withdraw_link),
    limit,
    api.admin.limit,
    *(account_status, ledger, fee, price, reconciliation, correction, forced_end, audit, health),
    *(chain, deposit_rules, deposit_decision),
    *(
        withdrawal_rules,
        api.admin.withdrawal,
        withdrawal_decision,
        payout,
    ),  # the rules first: no withdrawal has their path
)
_DESCRIPTION = """
A durable Bitcoin payment engine. Amounts are integers with their unit in the name, times are RFC 3339 in UTC, errors
are problem documents (RFC 9457) with a stable `code`. Send an `Idempotency-Key` with every POST: a repeat gives the
first answer. The names of operations (`operationId`) do not change.
"""


def create_app(settings: ApiSettings) -> FastAPI:
    """Make the application. No server can do so by itself: it might serve without the bounds of `connection.py`."""
    interceptors = start_telemetry(settings, "millrace-api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            resources = await stack.enter_async_context(open_resources(settings, interceptors))
            app.state.resources = resources
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
    strangers = stranger_limit.Strangers(settings.public_rate_limit_per_minute, settings.public_rate_limit_per_second)
    app.add_middleware(admission.Admission, strangers=strangers, refused=app.state.metrics.stranger_refused)
    if settings.metrics_address is None and settings.bitcoin_network == "regtest":
        app.include_router(metrics.router)
    for part in _PARTS:
        app.include_router(part.router)
    for door in (lnurl.router, api.public.withdraw_link.router, tip.router):
        app.include_router(door)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    pages.serve_pages(app)
    if settings.otlp_endpoint is not None:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415 - see telemetry

        FastAPIInstrumentor.instrument_app(app)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = openapi.describe(app)
    return app.openapi_schema
