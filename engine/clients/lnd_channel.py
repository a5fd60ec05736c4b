"""One secured gRPC channel to one LND node: TLS pinned to the node's certificate, a macaroon on every call.

Open it after any fork and once per process. gRPC repeats nothing on its own here: whether a call may be repeated is
for the caller to know. `translated()` turns gRPC codes into the engine's errors and never reads a transport error as
"failed": UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, UNKNOWN and INTERNAL say nothing about what the node did.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Never, ParamSpec, TypeVar, cast

import grpc

from engine.domain.errors import EngineError, Invalid, InvariantBroken, NotFound, OutcomeUnknown, Unavailable
from engine.settings import NodeSettings

P = ParamSpec("P")
T = TypeVar("T")

_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class _Channel:
    """A secured channel as gRPC's stubs use one, all of whose calls carry the macaroon.

    gRPC's own way, call credentials, starts a thread for every call.
    """

    def __init__(self, channel: grpc.aio.Channel, macaroon: bytes) -> None:
        metadata = (("macaroon", macaroon.hex()),)
        self.unary_unary = _with_metadata(channel.unary_unary, metadata)
        self.unary_stream = _with_metadata(channel.unary_stream, metadata)
        self.stream_unary = _with_metadata(channel.stream_unary, metadata)
        self.stream_stream = _with_metadata(channel.stream_stream, metadata)
        self.close = channel.close


def _with_metadata(
    make: Callable[P, Callable[..., T]], metadata: Sequence[tuple[str, str]]
) -> Callable[P, Callable[..., T]]:
    def make_with_metadata(*method: P.args, **how: P.kwargs) -> Callable[..., T]:
        return partial(make(*method, **how), metadata=metadata)

    return make_with_metadata


def open_channel(node: NodeSettings) -> grpc.aio.Channel:
    """Connect lazily; a node that is away is no error here."""
    credentials = grpc.ssl_channel_credentials(node.tls_cert.read_bytes())
    channel = grpc.aio.secure_channel(node.address, credentials, options=_OPTIONS)
    return cast("grpc.aio.Channel", _Channel(channel, node.macaroon.read_bytes()))


@contextmanager
def translated(node: str, *, looks: bool = False) -> Iterator[None]:
    """Raise the engine's error for any gRPC error inside the block, with LND's own words as detail.

    What only `looks` has no outcome that could be unknown: that the node did not answer is Unavailable.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise_translated(node, error, looks=looks)


def raise_translated(node: str, error: grpc.aio.AioRpcError, *, looks: bool = False) -> Never:
    """Raise the engine's error for this one, as `translated` does."""
    found = _translate(node, error.code(), error.details() or "no details")
    raise (Unavailable(found.detail) if looks and isinstance(found, OutcomeUnknown) else found) from error


_MACAROON_REFUSED = ("permission denied", "cannot get macaroon", "verification failed", "macaroon")
"""LND says this as UNKNOWN (seen), before it has looked at the call."""


def _refuses_us(detail: str) -> InvariantBroken:
    return InvariantBroken(f"{detail} (is this process's macaroon meant for this call?)", code="node_refuses")


def _translate(node: str, code: grpc.StatusCode, words: str) -> EngineError:
    detail = f"{node}: {words}"
    match code:
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(detail)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return Invalid(detail)
        case grpc.StatusCode.UNAVAILABLE:
            return Unavailable(detail)
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.UNIMPLEMENTED:
            return _refuses_us(detail)
        case grpc.StatusCode.UNKNOWN if any(text in words for text in _MACAROON_REFUSED):
            return _refuses_us(detail)
        case _:
            return OutcomeUnknown(detail)
