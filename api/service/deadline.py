"""Until when a caller waits."""

import asyncio

MAX_WAIT_S = 60
"""Nobody waits longer."""


class Deadline:
    """A moment in this event loop's time."""

    def __init__(self, wait_s: int) -> None:
        self.at = asyncio.get_running_loop().time() + wait_s

    @property
    def left_s(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - asyncio.get_running_loop().time())
