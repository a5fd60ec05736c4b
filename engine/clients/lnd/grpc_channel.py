"""One secured gRPC channel to one LND node: TLS pinned to the node's certificate, a macaroon on every call.

Open it after any fork and once per process. A replaced certificate or macaroon is used without a restart. gRPC repeats
nothing on its own here: only the caller knows whether a call may be repeated. The exception is a call that no node has
looked at. `translated()` turns gRPC codes into the engine's errors and never reads a transport error as "failed":
UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, UNKNOWN and INTERNAL say nothing about what the node did.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Never, cast

import grpc
from cryptography import x509

from engine.domain.errors import EngineError, Invalid, InvariantBroken, NotFound, OutcomeUnknown, Unavailable
from engine.domain.outside import one_line
from engine.settings import NodeSettings

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1
_GRACE_S = 10
_WORDS_BYTES = 500
_BEFORE_SIGNATURE, _SIGNATURE_BYTES = b"\x06\x20", 32
"""How a macaroon ends in its second binary format, which LND uses."""
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class _Keys(NamedTuple):
    """What opens the node: the certificate that it must show, and the macaroon that we show."""

    certificate: bytes
    macaroon: str


class _Channel:
    """A secured channel for gRPC's stubs. All of its calls carry the macaroon.

    gRPC's own way, call credentials, starts a thread for every call. LND makes a new certificate when the old one
    expires, and operators bake new macaroons. So both files are read again when a call fails in a way that an old file
    would explain: at most once a second for a failed connection, and each time for a refusal. A new certificate needs a
    new channel; calls on the old one have ten seconds to end. While a file is missing or incomplete, the node counts as
    away.
    """

    def __init__(self, node: NodeSettings) -> None:
        self._node = node
        self._keys: _Keys | None = None
        self._channel: grpc.aio.Channel | None = None
        self._hindrance = ""
        """Why the files could not be used when they were last read."""
        self._look_after = -math.inf
        self._retiring: set[asyncio.Task[None]] = set()
        self.unary_unary = partial(_Once, self, "unary_unary")
        self.unary_stream = partial(_Stream, self, "unary_stream")
        self.stream_unary = partial(_Once, self, "stream_unary")
        self.stream_stream = partial(_Stream, self, "stream_stream")

    async def close(self, grace_s: float | None = None) -> None:
        """Close the connection. Its streams end."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close(grace_s)

    def opened(self) -> tuple[grpc.aio.Channel, _Keys]:
        """The channel, and the certificate and macaroon in use. Raises UNAVAILABLE until the files were whole once."""
        if self._channel is None or self._keys is None:
            self._look()
        if self._channel is None or self._keys is None:
            raise _away(self._hindrance)
        return self._channel, self._keys

    def was_mended(self, error: grpc.aio.AioRpcError, used: _Keys) -> bool:
        """Whether the call failed because of a file that has been replaced since, so that it may be repeated.

        The node refused the macaroon, or no connection was made: no node has looked at the call. Raises UNAVAILABLE
        instead of the refusal while the files are incomplete.
        """
        code, words = error.code(), error.details() or ""
        refused = _is_refusal(code, words)
        unsent = code is grpc.StatusCode.UNAVAILABLE and _UNSENT in words
        if refused or (code in _NO_CONNECTION and time.monotonic() >= self._look_after):
            self._look()
        if refused and self._hindrance:
            raise _away(self._hindrance) from error
        return (refused or unsent) and self._keys != used

    def _look(self) -> None:
        """Read the files. Unusable files leave everything as it is."""
        self._look_after = time.monotonic() + _LOOK_EVERY_S
        try:
            keys = _read(self._node)
        except (OSError, ValueError) as error:
            self._hindrance = f"{self._node.address}: {error}"
            return
        self._hindrance = ""
        if self._keys is not None and keys != self._keys:
            _log.warning("%s: its certificate or macaroon was replaced; the new one is used", self._node.address)
        if self._keys is None or keys.certificate != self._keys.certificate:
            self._retire()
            credentials = grpc.ssl_channel_credentials(keys.certificate)
            self._channel = grpc.aio.secure_channel(self._node.address, credentials, options=_OPTIONS)
        self._keys = keys

    def _retire(self) -> None:
        if self._channel is not None:
            task = asyncio.create_task(self._channel.close(_GRACE_S))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)


class _Method:
    """One method of the node, over whichever channel is open when it is called."""

    def __init__(self, channel: _Channel, kind: str, *method: Any, **how: Any) -> None:  # noqa: ANN401 - gRPC's own
        self.channel = channel
        self._kind, self._method, self._how = kind, method, how
        self._made: tuple[grpc.aio.Channel, Callable[..., Any]] | None = None

    def begin(self, request: object, how: Mapping[str, Any]) -> tuple[Any, _Keys]:
        """The started call, and the certificate and macaroon that it uses."""
        channel, keys = self.channel.opened()
        if self._made is None or self._made[0] is not channel:
            self._made = channel, getattr(channel, self._kind)(*self._method, **self._how)
        return self._made[1](request, metadata=(("macaroon", keys.macaroon),), **how), keys


class _Once(_Method):
    """A method with one answer."""

    async def __call__(self, request: object, **how: Any) -> Any:  # noqa: ANN401 - a message
        with _in_harmless_words():
            call, used = self.begin(request, how)
            try:
                return await call
            except grpc.aio.AioRpcError as error:
                if not self.channel.was_mended(error, used):
                    raise
            return await self.begin(request, how)[0]


class _Stream(_Method):
    """A method with a stream of answers."""

    def __call__(self, request: object, **how: Any) -> "_Answers":  # noqa: ANN401 - gRPC's own
        return _Answers(self, request, how)


class _Answers:
    """A stream that begins with the first request for an answer, and ends when nobody holds it any more."""

    def __init__(self, method: _Stream, request: object, how: Mapping[str, Any]) -> None:
        self._method, self._request, self._how = method, request, how
        self._call: Any = None
        self._used: _Keys | None = None
        self._messages: AsyncIterator[Any] | None = None

    def __aiter__(self) -> "_Answers":
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - a message
        messages, is_first = self._messages, self._messages is None
        with _in_harmless_words():
            try:
                return await anext(messages or self._begin())
            except grpc.aio.AioRpcError as error:
                if self._used is None or not (self._method.channel.was_mended(error, self._used) and is_first):
                    raise
            return await anext(self._begin())

    def _begin(self) -> AsyncIterator[Any]:
        self._call, self._used = self._method.begin(self._request, self._how)
        self._messages = aiter(self._call)
        return self._messages


def _read(node: NodeSettings) -> _Keys:
    """The certificate and the macaroon. Raises OSError or ValueError for files that are missing or being written."""
    certificate, macaroon = node.tls_cert.read_bytes(), node.macaroon.read_bytes()
    try:
        x509.load_pem_x509_certificates(certificate)
    except ValueError:
        raise ValueError(f"{node.tls_cert} holds no whole certificate") from None
    if macaroon[-_SIGNATURE_BYTES - len(_BEFORE_SIGNATURE) : -_SIGNATURE_BYTES] != _BEFORE_SIGNATURE:
        raise ValueError(f"{node.macaroon} holds no whole macaroon")
    return _Keys(certificate, macaroon.hex())


@contextmanager
def _in_harmless_words() -> Iterator[None]:
    """Clean the texts of errors: a node's error may repeat what others have told it."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        told = error.details() or ""
        words = one_line(told, _WORDS_BYTES)
        if words == told:
            raise
        raise _error(error.code(), words) from None


def _away(words: str) -> grpc.aio.AioRpcError:
    return _error(grpc.StatusCode.UNAVAILABLE, words)


def _error(code: grpc.StatusCode, words: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), words, None)


def open_channel(node: NodeSettings) -> grpc.aio.Channel:
    """Connect lazily. Neither an absent node nor missing files raise an error here."""
    return cast("grpc.aio.Channel", _Channel(node))


@contextmanager
def translated(node: str, *, looks: bool = False) -> Iterator[None]:
    """Raise the engine's error for any gRPC error inside the block, with LND's own text as detail.

    With `looks`, the block only reads, so no outcome can be unknown: a node that did not answer is Unavailable.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise_translated(node, error, looks=looks)


def raise_translated(node: str, error: grpc.aio.AioRpcError, *, looks: bool = False) -> Never:
    """Raise the engine's error for this one, as `translated` does."""
    found = _translate(node, error.code(), error.details() or "no details")
    raise (Unavailable(found.detail) if looks and isinstance(found, OutcomeUnknown) else found) from error


_NO_CONNECTION = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
_UNSENT = "failed to connect to all addresses"
"""gRPC's text for a call that had no connection."""
_MACAROON_REFUSED = ("permission denied", "cannot get macaroon", "verification failed", "macaroon")
"""Texts that LND sends as UNKNOWN (seen), before it has looked at the call."""


def _is_refusal(code: grpc.StatusCode, words: str) -> bool:
    """Whether the node refused our access. Then it has not looked at the call."""
    if code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}:
        return True
    return code is grpc.StatusCode.UNKNOWN and any(text in words for text in _MACAROON_REFUSED)


def _refuses_us(detail: str) -> InvariantBroken:
    return InvariantBroken(f"{detail} (is this process's macaroon meant for this call?)", code="node_refuses")


def _translate(node: str, code: grpc.StatusCode, words: str) -> EngineError:
    detail = f"{node}: {words}"
    if _is_refusal(code, words):
        return _refuses_us(detail)
    match code:
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(detail)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return Invalid(detail)
        case grpc.StatusCode.UNAVAILABLE:
            return Unavailable(detail)
        case grpc.StatusCode.UNIMPLEMENTED:
            return _refuses_us(detail)
        case _:
            return OutcomeUnknown(detail)
