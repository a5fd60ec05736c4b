"""One connection, with a bound on everything that its client decides.

uvicorn's protocol, with httptools' parser, accepts a head of any size, waits for it for ever, and keeps every
connection that is opened. Here a client owes one thing at a time, and has a deadline for it:

    a head       from the connection, or the first byte after an answer    max_head_bytes, head_timeout_s   431, 408
    its body     from the end of the head                                  body_timeout_s                   408
    nothing      while its answer is made; then the next head              idle_timeout_s                   closed
    to read      the next 64 KiB of its answer, or the rest of it          write_timeout_s                  aborted

The size of a body is bounded by its reader (`body.py`). Here the rest is bounded: chunk framing, trailers, and what
still comes after the answer. Input is parsed in small pieces, so that nothing above its bound is ever kept. How many
connections there may be, and which is closed first, is in `connection_limit.py`. Refusals are cheap: written
beforehand, without the application, and not logged.
"""

import asyncio
import enum
import socket
from contextlib import suppress
from http import HTTPStatus
from math import inf
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api.http.admission import HELD
from api.http.connection_limit import TICK_S, Connections, Waits
from api.http.errors import problem

_PIECE = 16_384
_MOST_HEADERS = 200
_MOST_PIPELINED = 16
_LEAVE_S = 2
"""How long a refused client has to read the refusal; what it sends meanwhile is thrown away."""
_MOST_THROWN_AWAY = 2**20
_MOST_AFTER_ANSWER = 65_536
_NEXT_PART = 65_536
_FRAMING, _FRAMING_PER_BYTE = 65_536, 8
"""Bytes that chunk framing may take: in any body, and in addition for each byte of the body."""


class Owes(enum.Enum):
    """What a client has to send next."""

    HEAD = enum.auto()
    BODY = enum.auto()
    NOTHING = enum.auto()


def _written(status: int, code: str, detail: str) -> bytes:
    """A whole answer, after which the connection ends."""
    answer = problem(status, code, detail, headers={"Connection": "close", "Retry-After": "1"})
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode(),
        *(b"\r\n" + name + b": " + value for name, value in answer.raw_headers),
    ]
    return b"".join(lines) + b"\r\n\r\n" + bytes(answer.body)


_REFUSALS = {
    "malformed": _written(400, "invalid_request", "This is not a valid HTTP request."),
    "head_late": _written(408, "request_timeout", "The request line and headers did not arrive in time."),
    "body_late": _written(408, "request_timeout", "The body of the request did not arrive in time."),
    "framing": _written(413, "request_too_large", "The chunk framing or the trailers of the body are too large."),
    "address": _written(429, "rate_limited", "There are too many connections from your address."),
    "head": _written(431, "request_head_too_large", "The request line and headers are too large."),
    "full": _written(503, "temporarily_unavailable", "There are too many connections; try again."),
}
"""By the reason in the metrics. For `evicted`, `unread` and `after_answer` nothing is sent."""


class Connection(HttpToolsProtocol):
    """One connection of one client, or of a proxy."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all, self._bounds = connections, connections.bounds
        self._owes, self._due = Owes.HEAD, inf
        self._waits: Waits | None = None
        self._is_over = False
        """The last answer was given, or is being made: what still comes is thrown away."""
        self._thrown_away = 0
        self._stuck_at, self._unread = inf, 0
        """The deadline for the client to read on, and the unread bytes when it was set."""
        self._raw = self._part = self._body = 0
        """Bytes of this head or body with all its framing; of the head's parts; of the body's content."""
        self._has_begun = self._has_bytes = False
        self._why: str | None = None
        self._served: RequestResponseCycle | None = None
        """The request whose answer is being made; `cycle` is the last that came, and may still wait in the pipeline."""

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it; it owes a head from now on."""
        super().connection_made(transport)
        line = transport.get_extra_info("socket")
        if line is not None and line.family != socket.AF_UNIX:
            # The kernel buffers no megabytes for a client that does not read: we notice it at once, at little cost.
            with suppress(OSError):  # the client has gone already
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NEXT_PART)
        refusal = self._all.enter(self, self.client[0] if self.client else "")
        if refusal is None:
            self._owe_head()
            return
        self._is_over = True
        self._all.ended(refusal)
        transport.write(_REFUSALS[refusal])
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Uncount it."""
        self._is_over = True
        self._all.leave(self)
        super().connection_lost(exc)

    def drop(self, why: str) -> None:
        """Close it at once, without an answer."""
        self._is_over = True
        self._all.ended(why)
        self._all.leave(self)
        self.transport.abort()

    def look(self, now: float) -> None:
        """Hold it to its deadlines."""
        unread = self.transport.get_write_buffer_size()
        if not unread or not (self.flow.write_paused or self._is_answered() or self.transport.is_closing()):
            self._stuck_at = inf
        elif self._stuck_at == inf or unread <= self._unread - _NEXT_PART:
            self._stuck_at, self._unread = now + self._bounds.write_timeout_s, unread
        elif now >= self._stuck_at:
            self.drop("unread")
            return
        if self.flow.read_paused:
            self._due += TICK_S  # we have paused reading: the client is not late
        elif now >= self._due:
            self._be_late()

    @property
    def is_held(self) -> bool:
        """Whether its request has no valid key and is made to wait (`admission.py`)."""
        return not self._is_answered() and self._served is not None and HELD in self._served.scope["state"]

    def pause_writing(self) -> None:
        """The client has enough to read."""
        super().pause_writing()
        self._move()

    def resume_writing(self) -> None:
        """It has read on."""
        self._stuck_at = inf
        super().resume_writing()
        self._move()

    def _be_late(self) -> None:
        self._due = inf
        if self._is_over:
            self.transport.abort()
        elif self._owes is Owes.NOTHING:
            self.transport.close()
        elif self._has_bytes:
            self._end("body_late" if self._owes is Owes.BODY else "head_late")
        else:
            self.drop("head_late")

    def _is_answered(self) -> bool:
        """Whether no answer is being made."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    # What comes in

    def data_received(self, data: bytes) -> None:
        """Parse it, piece by piece."""
        self._unset_keepalive_if_required()
        if self._owes is Owes.NOTHING and not self._is_over:
            self._owe_head()
        self._has_bytes = True
        for start in range(0, len(data), _PIECE):
            if self._is_over:
                self._throw_away(len(data) - start)
                return
            self._take(data if len(data) <= _PIECE else data[start : start + _PIECE])

    def _take(self, piece: bytes) -> None:
        owed, self._has_begun = self._owes, False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # We support no other protocol. The request is answered as it is, and what follows its head is not HTTP.
            self._finish()
            return
        except httptools.HttpParserError:
            self._end(self._why or "malformed")
            return
        if self._owes is Owes.NOTHING or self._has_begun:
            return
        self._raw = self._raw + len(piece) if owed is self._owes else 0
        if self._owes is Owes.HEAD and self._raw > self._bounds.max_head_bytes:
            self._end("head")
        elif self._owes is Owes.BODY and self._raw > _FRAMING + (1 + _FRAMING_PER_BYTE) * self._body:
            self._end("framing")

    def on_message_begin(self) -> None:
        """A head begins."""
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise _Stop
        super().on_message_begin()
        if self._owes is not Owes.HEAD:
            self._owe_head()
        self._raw = self._part = 0
        self._has_begun = self._has_bytes = True

    def on_url(self, url: bytes) -> None:
        """A part of the URL has come."""
        super().on_url(url)
        self._part += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the head has come. Trailers are dropped."""
        if self._owes is not Owes.HEAD:
            return
        self._part += len(name) + len(value) + len(": \r\n")
        if len(self.headers) >= _MOST_HEADERS:
            self._refuse_head()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has come; its body is owed."""
        method = self.parser.get_method()
        if self._part + len(method) + len("  HTTP/1.1\r\n\r\n") > self._bounds.max_head_bytes:
            self._refuse_head()
        super().on_headers_complete()
        if not self.pipeline:
            self._served = self.cycle
        self._owes, self._due = Owes.BODY, self.loop.time() + self._bounds.body_timeout_s
        self._body = 0
        self._move()

    def on_body(self, body: bytes) -> None:
        """A part of the body has come. After its answer a client may send a little more, and keep the connection."""
        self._body += len(body)
        if self.cycle.response_complete and self._body > _MOST_AFTER_ANSWER:
            self._why = "after_answer"
            raise _Stop
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request has come."""
        self._owes, self._due = Owes.NOTHING, inf
        super().on_message_complete()
        if self.cycle.response_complete:
            self._be_idle()
        self._move()

    def on_response_complete(self) -> None:
        """The answer is complete. The next request that has come is served, or the idle timeout begins."""
        if self.pipeline:
            self._served = self.pipeline[-1][0]
        super().on_response_complete()
        if self._owes is Owes.NOTHING and not self.pipeline and not self._is_over:
            self._be_idle()
        self._move()

    def _be_idle(self) -> None:
        self._due = self.loop.time() + self.timeout_keep_alive

    def _owe_head(self) -> None:
        self._owes, self._due = Owes.HEAD, self.loop.time() + self._bounds.head_timeout_s
        self._raw, self._has_bytes = 0, False
        self._move()

    def _move(self) -> None:
        """Report what it waits for now."""
        waits = self._waits_for()
        if waits is not self._waits:
            self._all.move(self, self._waits, waits)
            self._waits = waits

    def _waits_for(self) -> Waits | None:
        if self.pipeline:
            return None
        if self.flow.write_paused:
            return Waits.READER
        if self._owes is Owes.BODY and not self._is_over:
            return Waits.BODY
        if not self._is_answered():
            return None
        if self._is_over:
            return Waits.END
        return Waits.HEAD if self._owes is Owes.HEAD else Waits.NEXT

    def _refuse_head(self) -> None:
        self._why = "head"
        raise _Stop

    # How it ends

    def _finish(self) -> None:
        """Answer what has come, and nothing after it."""
        self._is_over = True
        self._due = inf
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self._leave()

    def _end(self, why: str) -> None:
        """Send the refusal, unless an answer was begun. Then let the client read it, and close."""
        self._all.ended(why)
        if self._owes is not Owes.BODY and not self._is_answered():
            self._finish()  # a complete request is answered
            return
        if self.pipeline:
            self.drop(why)
            return
        self._is_over = True
        begun = False
        if self._owes is Owes.BODY:
            begun = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._owes = Owes.NOTHING
        if not begun and why in _REFUSALS:
            self.transport.write(_REFUSALS[why])
        self._leave()

    def _leave(self) -> None:
        """Send nothing more, and close later: closing at once with unread input would lose the answer."""
        self._due = self.loop.time() + _LEAVE_S
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.transport.write_eof()
        self._all.move(self, self._waits, Waits.END)
        self._waits = Waits.END

    def _throw_away(self, count: int) -> None:
        self._thrown_away += count
        if self._thrown_away > _MOST_THROWN_AWAY:
            self.transport.abort()


class _Stop(Exception):
    """Stops the parser."""
