"""What a Redis costs that takes connections and says nothing."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from engine.clients.cache import Cache

pytestmark = pytest.mark.unit


@dataclass
class Hanging:
    """Listens, and answers nothing until it is told to."""

    url: str = ""
    heard: int = 0
    answers: bool = False
    lines: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines.add(writer)
        while told := await reader.read(65_536):
            self.heard += 1
            if self.answers:
                writer.write(b"*1\r\n:7\r\n" if b"EVALSHA" in told else b"+OK\r\n" * told.count(b"*"))


@pytest_asyncio.fixture
async def hanging() -> AsyncIterator[Hanging]:
    told = Hanging()
    server = await asyncio.start_server(told.listen, "127.0.0.1", 0)
    told.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    yield told
    server.close()
    for line in told.lines:
        line.close()


async def test_a_redis_that_hangs_is_waited_for_by_one_and_not_by_every_request(hanging: Hanging) -> None:
    cache = Cache(hanging.url)
    assert await cache.count_requests(["a", "b"]) == [(0, 0), (0, 0)]
    heard = hanging.heard
    for _ in range(10):
        assert await cache.count_requests(["a"]) == [(0, 0)]
    assert hanging.heard <= heard + 4, "every request asks it, and waits a second"
    hanging.answers = True
    while (await cache.count_requests(["a"]))[0][0] != 7:
        await asyncio.sleep(0.05)
    await cache.close()
