"""Heartbeats for long activities: they tell the server that this try is alive, and bring its cancellation here.

What a try has noted goes with them, and the next try is told of it: also after a kill, but for its last few seconds.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

_EVERY_S = 2


class Beats:
    """What this try and those before it have noted."""

    def __init__(self) -> None:
        self._noted = [str(note) for note in activity.info().heartbeat_details]

    def note(self, word: str) -> None:
        """For the next try. A second note of the same word changes nothing."""
        if word not in self._noted:
            self._noted.append(word)
            self.send()

    def knows(self, word: str) -> bool:
        """Whether this try or an earlier one has noted it."""
        return word in self._noted

    def send(self) -> None:
        """Tell the server now, or as soon as it may be told again."""
        activity.heartbeat(*self._noted)


@asynccontextmanager
async def heartbeats() -> AsyncIterator[Beats]:
    """Send a heartbeat every two seconds while the block runs: what ends before costs the server none."""
    beats = Beats()

    async def beat() -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            beats.send()

    beating = asyncio.create_task(beat())
    try:
        yield beats
    finally:
        beating.cancel()
