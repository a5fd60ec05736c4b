"""`GET /metrics` for Prometheus: counters of this process, and figures of the books.

Counters belong to this process and begin at 0 with it, as Prometheus expects. Figures of the books are the same in
every process and are read at most every five seconds. No metric names a user. The page needs no API key: with
`MILLRACE_METRICS_ADDRESS` it has a listener of its own, which nobody outside can reach, and the public listener does
not serve it. While Postgres is away the page says so (`millrace_books_up 0`) and has everything else.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import get_resources
from api.service.remembered import Remembered
from api.service.resources import Resources
from api.system.gauge import BookGauges
from engine.domain.errors import EngineError
from engine.ledger.database import Pool, translated
from engine.views.metrics import Figures, read_figures

router = APIRouter(include_in_schema=False)

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_KEPT_S, _LIFE_S = 5, 1
_LIMIT_S = 3
_MOST_HEADER_BYTES = 16_384
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "millrace_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "millrace_http_request_seconds",
            "Time until the last byte of the answer.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.problems = Counter("millrace_problems", "Problem documents, by code.", ["code"], registry=self.registry)
        self.connections = Gauge("millrace_http_connections", "Open now.", registry=self.registry)
        self._ended = Counter(
            "millrace_http_connections_ended", "Ended by us, by reason.", ["reason"], registry=self.registry
        )
        self._refused = Counter(
            "millrace_http_strangers_refused", "Without a good key, by bound.", ["bound"], registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._figures: Figures | None = None
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    def connection_ended(self, reason: str) -> None:
        """Count a connection that we ended, not its client (`connection.py`)."""
        self._ended.labels(reason).inc()

    def stranger_refused(self, bound: str) -> None:
        """Count a request that was refused (`stranger_limit.py`)."""
        self._refused.labels(bound).inc()

    async def page(self, pool: Pool) -> bytes:
        """Everything, in Prometheus's text format."""
        figures = await self._read(pool)
        books = CollectorRegistry(auto_describe=False)
        books.register(BookGauges(figures, size=pool.get_size(), idle=pool.get_idle_size()))
        return generate_latest(self.registry) + generate_latest(books)

    async def _read(self, pool: Pool) -> Figures | None:
        async with self._reading:
            if time.monotonic() - self._read_at < _KEPT_S:
                return self._figures
            try:
                with translated():
                    async with asyncio.timeout(_LIMIT_S), pool.acquire() as conn:
                        self._figures = await read_figures(conn)
            except EngineError:
                self._figures = None
                return None
            self._read_at = time.monotonic()
            return self._figures


class Metering:
    """Counts and times each request. It is plain ASGI, so answers are streamed as they are written."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        failed = True
        try:
            await self._app(scope, receive, watched)
            failed = False
        finally:
            # Only declared paths become labels: anybody can make up others.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(method, route).observe(time.perf_counter() - began)
            code = "internal_error" if failed else scope.get("state", {}).get("problem")
            if code:
                self._metrics.problems.labels(code).inc()


@router.get("/metrics")
async def give_metrics(request: Request, resources: Annotated[Resources, Depends(get_resources)]) -> Response:
    """Prometheus's text format, cached for a second: writing it takes 12 ms, and anybody may ask here."""
    state = request.app.state
    if getattr(state, "metrics_page", None) is None:
        metrics: Metrics = state.metrics
        state.metrics_page = Remembered(lambda: metrics.page(resources.pool), _LIFE_S)
    return Response(await state.metrics_page.get(), media_type=MEDIA_TYPE)


@asynccontextmanager
async def own_listener(metrics: Metrics, pool: Pool, address: str) -> AsyncIterator[None]:
    """Serve `GET /metrics`, and nothing else, at host:port for the length of the block. Raises OSError."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_LIMIT_S * 2):
                request = await reader.readuntil(b"\r\n\r\n")
                if request.split(b" ", 2)[:2] == [b"GET", b"/metrics"]:
                    writer.write(_http("200 OK", await metrics.page(pool)))
                else:
                    writer.write(_http("404 Not Found", b"GET /metrics\n"))
                await writer.drain()
        writer.close()

    host, port = address.rsplit(":", 1)
    async with await asyncio.start_server(answer, host, int(port), limit=_MOST_HEADER_BYTES):
        yield


def _http(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
