"""Heartbeats for long activities: they tell the server that this try is alive, and deliver its cancellation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

_EVERY_S = 2


@asynccontextmanager
async def heartbeats() -> AsyncIterator[None]:
    """Send a heartbeat every two seconds while the block runs. A shorter block sends none."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            activity.heartbeat()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
