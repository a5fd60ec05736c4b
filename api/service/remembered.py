"""An answer that is kept for a while and given to all who ask meanwhile. Whoever asks while it is made waits for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import Generic, TypeVar

A = TypeVar("A")


class Remembered(Generic[A]):
    """One answer, made by `make` when it is asked for and the last one is older than `life_s`.

    It is made to the end even when the first to ask has gone. What `make` raises is raised to all who wait, and not
    remembered.
    """

    def __init__(self, make: Callable[[], Awaitable[A]], life_s: float = inf) -> None:
        self._make, self._life_s = make, life_s
        self._making: asyncio.Future[A] | None = None
        self._made_at = -inf

    async def get(self) -> A:
        """The answer. Raises what making it raised."""
        if self._making is None or (self._making.done() and not self._holds(self._making)):
            self._making = asyncio.ensure_future(self._make_one())
        return await asyncio.shield(self._making)

    def _holds(self, made: "asyncio.Future[A]") -> bool:
        is_made = not made.cancelled() and made.exception() is None
        return is_made and time.monotonic() - self._made_at < self._life_s

    async def _make_one(self) -> A:
        answer = await self._make()
        self._made_at = time.monotonic()
        return answer
