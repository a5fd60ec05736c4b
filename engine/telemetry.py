"""Logs, and traces when somebody collects them.

Log lines are for machines (JSON) or for a person at a terminal, chosen by a setting; `error` means that a person must
act. Traces follow a request from the API through its workflow into activities, Postgres, Redis and the nodes; they are
off unless an OTLP endpoint is set, and cost nothing then. No secret, preimage or macaroon is ever logged.
"""

import logging
import sys
from collections.abc import Sequence

import structlog
import temporalio.client
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from engine.settings import CommonSettings


def start_telemetry(settings: CommonSettings, service: str) -> Sequence[temporalio.client.Interceptor]:
    """Set up logs and traces for this process, once; returns the interceptors that the Temporal client takes."""
    _start_logs(settings)
    if settings.otlp_endpoint is None:
        return ()
    return _start_traces(settings.otlp_endpoint, service)


def temporal_runtime(settings: CommonSettings) -> Runtime | None:
    """The SDK's runtime that serves its metrics, and those of activities, at `metrics_address`; None: the default.

    Raises RuntimeError when the address is taken.
    """
    if settings.metrics_address is None:
        return None
    exporter = PrometheusConfig(
        bind_address=settings.metrics_address, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
    )
    return Runtime(telemetry=TelemetryConfig(metrics=exporter))


def _start_traces(endpoint: str, service: str) -> Sequence[temporalio.client.Interceptor]:
    # Imported here: half a second of start-up for what most processes never use.
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.instrumentation import asyncpg, grpc, redis  # noqa: PLC0415
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from temporalio.contrib.opentelemetry import TracingInterceptor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    asyncpg.AsyncPGInstrumentor().instrument()  # type: ignore[no-untyped-call]
    redis.RedisInstrumentor().instrument()
    grpc.GrpcAioInstrumentorClient().instrument()  # type: ignore[no-untyped-call]
    return (TracingInterceptor(),)


def _start_logs(settings: CommonSettings) -> None:
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # python-bitcoinrpc logs credentials and passphrases at DEBUG.
    logging.getLogger("BitcoinRPC").setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
