"""Until when a caller waits, and how it polls for what only Postgres can tell."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Deadline:
    """A moment in this event loop's time."""

    def __init__(self, wait_s: int) -> None:
        self.at = asyncio.get_running_loop().time() + wait_s

    @property
    def left_s(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - asyncio.get_running_loop().time())


async def poll(
    look: Callable[[], Awaitable[T]], is_enough: Callable[[T], bool], deadline: Deadline, *, every_s: float = 0.15
) -> T:
    """Look until `is_enough` holds or the deadline has passed. Returns what was seen last."""
    seen = await look()
    while not is_enough(seen) and deadline.left_s > 0:
        await asyncio.sleep(min(every_s, deadline.left_s))
        seen = await look()
    return seen
