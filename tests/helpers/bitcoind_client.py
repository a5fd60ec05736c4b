"""The engine's client of a test's own bitcoind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.fault import UNAVAILABLE
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.errors import Unavailable
from tests.helpers.chain import Chain


@asynccontextmanager
async def opened(url: str, auth_file: Path | None = None, *, threads: int = 8) -> AsyncIterator[Rpc]:
    """A client, closed at the end."""
    rpc = Rpc(url, auth_file, threads=threads)
    try:
        yield rpc
    finally:
        await rpc.close()


@asynccontextmanager
async def hot(chain: Chain, wallet: str = "hot") -> AsyncIterator[Bitcoind]:
    """The node and a wallet of it."""
    async with opened(chain.url, chain.auth_file) as rpc:
        yield Bitcoind(rpc, wallet)


async def reason_of(call: Awaitable[object]) -> str:
    """Why bitcoind could not be used."""
    with pytest.raises(Unavailable) as raised:
        await call
    assert raised.value.code == UNAVAILABLE
    return str(raised.value.fields["reason"])


async def succeeds(rpc: Rpc) -> int:
    """The height, as soon as bitcoind answers."""
    async with asyncio.timeout(60):
        while True:
            try:
                return int(await rpc.call("getblockcount"))
            except Unavailable:
                await asyncio.sleep(0.05)
