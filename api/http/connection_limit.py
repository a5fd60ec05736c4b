"""All connections of this process: how many there may be, in all and from one address, and which is closed first.

When there are too many, one that waits for its client is closed, the longest-waiting first (`Waits`). If there is none,
one is closed whose request has no valid key and is made to wait. So a client that sends a whole request at once is
served, however many others do not. Deadlines are checked twice a second for all connections together, which costs a
request nothing.
"""

import asyncio
import enum
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from api.http.address import site

TICK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Named like the settings."""

    max_connections: int
    max_connections_per_address: int
    max_head_bytes: int
    head_timeout_s: float
    body_timeout_s: float
    write_timeout_s: float


class Waits(enum.Enum):
    """What a connection waits for. When there are too many, the first of these kinds is closed first."""

    END = enum.auto()
    """It was told that it is refused."""
    HEAD = enum.auto()
    NEXT = enum.auto()
    """It is idle."""
    BODY = enum.auto()
    READER = enum.auto()


class One(Protocol):
    """A connection, as this module uses it."""

    @property
    def is_held(self) -> bool:
        """Whether its request has no valid key and is made to wait (`admission.py`)."""

    def look(self, now: float) -> None:
        """Hold it to its deadlines."""

    def drop(self, why: str) -> None:
        """Close it at once, without an answer."""


class Connections:
    """All connections of this process: how many there are, whose, and which wait for their client."""

    def __init__(self, bounds: Bounds, *, trusts: Callable[[str], bool], ended: Callable[[str], None]) -> None:
        """`trusts` recognises a proxy, whose connections carry many clients. `ended` is called with each reason."""
        self.bounds, self.ended = bounds, ended
        self._trusts = trusts
        self._open: dict[One, str] = {}
        self._of_address: Counter[str] = Counter()
        self._waiting: dict[Waits, dict[One, None]] = {kind: {} for kind in Waits}
        self._ticks = False

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, connection: One, host: str) -> str | None:
        """Count one more until it leaves. Returns None, or the reason why it is refused."""
        address = "" if not self.bounds.max_connections_per_address or self._trusts(host) else site(host)
        if (refusal := self._refusal(address)) is not None:
            return refusal
        self._open[connection] = address
        self._of_address[address] += 1
        if not self._ticks:
            self._ticks = True
            self._tick(asyncio.get_running_loop())
        return None

    def leave(self, connection: One) -> None:
        """It has ended."""
        address = self._open.pop(connection, None)
        for waiting in self._waiting.values():
            waiting.pop(connection, None)
        if address is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def move(self, connection: One, old: Waits | None, new: Waits | None) -> None:
        """It waits for something else, or for nothing."""
        if old is not None:
            self._waiting[old].pop(connection, None)
        if new is not None and connection in self._open:
            self._waiting[new][connection] = None

    def _refusal(self, address: str) -> str | None:
        if address and self._of_address[address] >= self.bounds.max_connections_per_address:
            return "address"
        if len(self._open) < self.bounds.max_connections:
            return None
        longest = next((next(iter(waiting)) for waiting in self._waiting.values() if waiting), None)
        longest = longest or next((each for each in self._open if each.is_held), None)
        if longest is None:
            return "full"
        longest.drop("evicted")
        return None

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at every connection, as long as there are any."""
        self._ticks = bool(self._open)
        if self._ticks:
            loop.call_later(TICK_S, self._tick, loop)
        now = loop.time()
        for connection in list(self._open):
            connection.look(now)
