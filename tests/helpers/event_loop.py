"""Waiting inside one process: for the tasks that can go on, or for a fact."""

import asyncio
from collections.abc import Callable


async def turn() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not fact():
            await asyncio.sleep(0.02)
