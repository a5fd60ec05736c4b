"""Payments while strangers ask for everything that needs no key, each again as soon as it is answered.

They come from one address, as fast as they are admitted: pages, health, a lightning address, paths that do not exist,
wrong keys. The comparison is the same payments without strangers.
"""

import asyncio
import itertools
from collections.abc import Iterator

from infra.bench.contest import Begin, Contest, Contestant, Work, eventually
from infra.bench.figures import Goal
from infra.bench.http import Answers, Broken
from infra.bench.pairs import BATCHED, BY_NAME, ByName
from infra.bench.people import People
from infra.bench.servers import OURS, Servers

CLIENTS = (2,)
CONNECTIONS = (8, 24)
_WARM = 60
"""Answers before the payments begin: by then the first ones, which are not delayed, are over."""
_DOORS = (
    *("/openapi.json", "/docs", "/docs/assets/swagger-ui-bundle.js", "/healthz", "/readyz", "/metrics"),
    *("/nowhere", "/v1/nowhere", "/v1/account", "/.well-known/lnurlp/{name}", "/pay/{name}"),
)
_KEYS = ("", "Authorization: Bearer mr_nobody_has_this\r\n")


class Flood(Contestant):
    """Another contestant's turn, with this many connections of strangers."""

    def __init__(self, bystander: Contestant, connections: int, port: int, name: str) -> None:
        self.name, self.components = _beside(bystander.name, connections), bystander.components
        self._bystander, self._connections, self._port = bystander, connections, port
        paths = [path.format(name=name) for path in _DOORS]
        self._requests = [_request(path, key) for path, key in itertools.product(paths, _KEYS)]
        self._strangers: list[asyncio.Task[None]] = []
        self._answered = 0

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        self._answered = 0
        for number in range(self._connections):
            requests = itertools.cycle(self._requests[number:] + self._requests[:number])
            self._strangers.append(asyncio.create_task(self._ask(requests)))

        async def warm() -> bool:
            return self._answered >= _WARM

        await eventually(warm, "strangers to be answered")
        return await self._bystander.work(clients, seconds, begin)

    async def _ask(self, requests: Iterator[bytes]) -> None:
        """One connection, made again whenever it ends."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                transport, answers = await loop.create_connection(Answers, "127.0.0.1", self._port)
                try:
                    for request in requests:
                        waiting = answers.expect()
                        transport.write(request)
                        await waiting
                        self._answered += 1
                finally:
                    transport.abort()
            except (OSError, Broken):
                await asyncio.sleep(0)

    async def rest(self) -> None:
        """The strangers leave."""
        strangers, self._strangers = self._strangers, []
        for each in strangers:
            each.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)

    async def check(self) -> None:
        await self._bystander.check()


def contest(servers: Servers, people: People) -> Contest:
    """Payments to `@username` alone, and during each flood."""
    port = servers.stack.home.ports()["api-1"]
    alone = ByName(BY_NAME + BATCHED, people, port, OURS)
    floods = [Flood(alone, connections, port, people.anybody().username) for connections in CONNECTIONS]
    goals = [Goal(each.name, alone.name, "p99", at_most=1.5) for each in floods]
    goals += [Goal(each.name, alone.name, "p50") for each in floods]
    return Contest("bystanders of a flood", "payments/s", [alone, *floods], goals)


def _beside(name: str, connections: int) -> str:
    return f"{name}, {connections} strangers"


def _request(path: str, key: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n{key}\r\n".encode()
