"""bitcoind's announcements of blocks and transactions over ZMQ: they wake whoever polls, and carry nothing else.

An announcement may be lost, late or doubled, so it only shortens a wait. ZMQ connects again by itself.
"""

import asyncio
from types import TracebackType
from typing import Self

import zmq
import zmq.asyncio

_TOPICS = (b"hashblock", b"hashtx", b"sequence")
_QUEUED = 100
_RECONNECT_MS = 5000
_IDLE_S = 60


class Wakeup:
    """Announcements of one publisher; without a URL, there are none.

    async with Wakeup(url) as wakeup:
        while True:
            ...
            await wakeup.wait(2)
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._context: zmq.asyncio.Context | None = None
        self._socket: zmq.asyncio.Socket | None = None

    async def __aenter__(self) -> Self:
        """Connect in the background. Raises zmq.ZMQError for a URL that has no meaning."""
        if self._url is not None:
            self._context = zmq.asyncio.Context(io_threads=1)
            self._socket = self._context.socket(zmq.SUB)
            self._socket.set(zmq.LINGER, 0)
            self._socket.set(zmq.RCVHWM, _QUEUED)
            self._socket.set(zmq.RECONNECT_IVL_MAX, _RECONNECT_MS)
            self._socket.set(zmq.TCP_KEEPALIVE, 1)
            self._socket.set(zmq.TCP_KEEPALIVE_IDLE, _IDLE_S)
            for topic in _TOPICS:
                self._socket.subscribe(topic)
            try:
                self._socket.connect(self._url)
            except zmq.ZMQError:
                self._close()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._close()

    async def wait(self, timeout_s: float) -> bool:
        """Return True at an announcement since the last call, and False after this time. Raises nothing."""
        if self._socket is None:
            await asyncio.sleep(timeout_s)
            return False
        if not await self._socket.poll(int(timeout_s * 1000)):
            return False
        for _ in range(_QUEUED):
            if not await self._socket.poll(0):
                break
            await self._socket.recv_multipart()
        return True

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._context is not None:
            self._context.term()
