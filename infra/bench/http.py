"""A lean HTTP/1.1 client: one kept connection, one request at a time, so that the client is not what is measured."""

import asyncio
from typing import Any

import orjson

ANSWER_LIMIT_S = 60
OK = 200


class Broken(Exception):
    """The connection ended, or the answer cannot be read."""


class Answers(asyncio.Protocol):
    """Reads answers with a length; both contestants send one."""

    def __init__(self) -> None:
        self._buffer = b""
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None

    def expect(self) -> "asyncio.Future[tuple[int, bytes]]":
        """The next answer."""
        self._buffer = b""
        self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting

    def data_received(self, data: bytes) -> None:
        """A piece, or all of it."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end or self._waiting is None or self._waiting.done():
            return
        start = head.lower().find(b"content-length:")
        if start < 0:
            self._waiting.set_exception(Broken(f"an answer without a length: {head[:200]!r}"))
            return
        length = int(head[start + 15 :].split(b"\r\n", 1)[0])
        if len(body) >= length:
            self._waiting.set_result((int(head[9:12]), body[:length]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Broken(f"the connection ended: {exc!r}"))


class Wire:
    """One connection to one server; made at the first request, and again when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._answers = Answers()

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """One request; header names are written with underscores. Gives the status and the body, read as JSON."""
        if self._transport is None or self._transport.is_closing():
            self._transport, self._answers = await asyncio.get_running_loop().create_connection(
                Answers, "127.0.0.1", self._port
            )
        content = b"" if body is None else orjson.dumps(body)
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n{named}\r\n"
        )
        waiting = self._answers.expect()
        self._transport.write(head.encode() + content)
        async with asyncio.timeout(ANSWER_LIMIT_S):
            status, text = await waiting
        try:
            return status, orjson.loads(text) if text else None
        except orjson.JSONDecodeError:
            raise Broken(f"{method} {path}: {status} {text[:200]!r}") from None

    def close(self) -> None:
        """Let go of the connection."""
        if self._transport is not None:
            self._transport.close()


async def healthy(port: int) -> bool:
    """Whether one of our API processes answers here."""
    wire = Wire(port)
    try:
        status, _ = await wire.ask("GET", "/healthz")
    except (OSError, Broken, TimeoutError):
        return False
    finally:
        wire.close()
    return status == OK
