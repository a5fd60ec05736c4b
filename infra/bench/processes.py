"""One API and one worker process, or two of either: does another process help on this machine?

The same payments to `@username` at the same number of clients, spread over the API processes. The second ones are
started before their turn, warmed, and ended after it.
"""

import asyncio
from pathlib import Path

from infra.bench.contest import Begin, Contest, Work, eventually, keep_asking
from infra.bench.figures import Goal
from infra.bench.http import Wire, healthy
from infra.bench.pairs import ByName
from infra.bench.people import People
from infra.bench.servers import BATCHING, OURS, UNLIMITED, Servers, api_command, free_port
from infra.local import environment

CLIENTS = (64,)
SECOND_API, SECOND_WORKER = "api 2", "worker 2"
SHAPES = ((1, 1), (2, 1), (1, 2), (2, 2))
WARM_S = 1.0


class Shape(ByName):
    """So many API and worker processes, one or two of each."""

    def __init__(self, servers: Servers, people: People, apis: int, workers: int) -> None:
        self._servers, self._apis, self._workers = servers, apis, workers
        self._usual = servers.stack.home.ports()["api-1"]
        self._beside: dict[str, asyncio.subprocess.Process] = {}
        super().__init__(_name(apis, workers), people, self._usual, (*OURS, SECOND_API, SECOND_WORKER))

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        ports = [self._usual, *[await self._second_api() for _ in range(self._apis - 1)]]
        for _ in range(self._workers - 1):
            await self._second_worker()
        self._wires = {number: Wire(ports[number % len(ports)]) for number in range(clients)}
        await keep_asking(self.operation, clients, WARM_S)
        return await super().work(clients, seconds, begin)

    async def rest(self) -> None:
        """End the second ones."""
        for wire in self._wires.values():
            wire.close()
        for name in list(self._beside):
            await self._servers.end(name, self._beside.pop(name))

    async def _second_api(self) -> int:
        port = free_port()
        settings = {**environment.of_api(self._servers.stack.home), **UNLIMITED, **BATCHING}
        command = api_command(self._servers.tools, port)
        self._beside[SECOND_API] = await self._servers.spawn(SECOND_API, command, settings)
        await eventually(lambda: healthy(port), "a second API")
        return port

    async def _second_worker(self) -> None:
        home = self._servers.stack.home
        ready = home.folder / "run" / "bench-second.ready"
        await asyncio.to_thread(ready.unlink, missing_ok=True)
        settings = {**environment.of_worker(home, "worker-1"), "MILLRACE_READY_FILE": str(ready)}
        command: list[str | Path] = [self._servers.tools.python, "worker.py"]
        self._beside[SECOND_WORKER] = await self._servers.spawn(SECOND_WORKER, command, settings)

        async def polls() -> bool:
            return await asyncio.to_thread(ready.exists)

        await eventually(polls, "a second worker")


def contest(servers: Servers, people: People) -> Contest:
    """All shapes, compared with one process of each."""
    shapes = [Shape(servers, people, apis, workers) for apis, workers in SHAPES]
    goals = [Goal(one.name, _name(1, 1)) for one in shapes[1:]]
    return Contest("processes", "payments/s", shapes, goals)


def _name(apis: int, workers: int) -> str:
    return f"{apis} API, {workers} worker"
