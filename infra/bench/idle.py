"""What Millrace costs before and while nothing happens: starting up, memory, and payments that wait."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from temporalio.client import Client

from engine.contracts import queues, search_attributes
from infra.bench import flow, workers
from infra.bench.contest import eventually
from infra.bench.http import healthy
from infra.bench.machine import Meter, cpu_of
from infra.bench.report import Fact
from infra.bench.servers import UNLIMITED, Servers, api_command
from infra.local import environment
from workflows.payment import PaymentWorkflow

AT_ONCE = 64


async def start_up(servers: Servers, times: int, port: int) -> list[Fact]:
    """Seconds and CPU from the start of a process to its first answer, next to the one that runs; the median."""
    home = servers.stack.home
    ready = home.folder / "run" / "bench-start.ready"
    api_settings = {**environment.of_api(home), **UNLIMITED}
    worker: list[str | Path] = [servers.tools.python, "worker.py"]
    worker_settings = {**environment.of_worker(home, "worker-1"), "MILLRACE_READY_FILE": str(ready)}

    async def answers() -> bool:
        return await healthy(port)

    async def says_so() -> bool:
        return await asyncio.to_thread(ready.exists)

    facts = []
    for name, command, settings, there in (
        ("API", api_command(servers.tools, port), api_settings, answers),
        ("worker", worker, worker_settings, says_so),
    ):
        took = []
        for _ in range(times):
            await asyncio.to_thread(ready.unlink, missing_ok=True)
            took.append(await _start_once(servers, command, settings, there))
        facts.append(Fact(f"{name}: from start to ready", median(took_s for took_s, _ in took), "s"))
        facts.append(Fact(f"{name}: CPU of its start", median(cpu_s for _, cpu_s in took), "s"))
    return facts


async def _start_once(
    servers: Servers, command: Sequence[str | Path], settings: Mapping[str, str], there: Callable[[], Awaitable[bool]]
) -> tuple[float, float]:
    """Seconds until it is there, and its CPU by then; the process is ended again."""
    began = time.monotonic()
    process = await servers.spawn("start", command, settings)
    try:
        await eventually(there, f"{command[-1]} to start")
        return time.monotonic() - began, cpu_of(process.pid)
    finally:
        await servers.end("start", process)


def memory(meter: Meter, when: str) -> list[Fact]:
    """Megabytes of each component."""
    return [Fact(f"memory {when}: {name}", used, "MB") for name, used in sorted(meter.memory_mb().items())]


async def waiting_payments(servers: Servers, meter: Meter, count: int) -> list[Fact]:
    """What payments in flight take: our workflow's own code in a worker of its own, with simulated activities."""
    helper = flow.Helper(servers, "waiting")
    await helper.start()
    try:
        client = await flow.connect(servers)
        empty = meter.memory_mb()
        await asyncio.gather(*(_start_waiting(client, range(first, count, AT_ONCE)) for first in range(AT_ONCE)))

        async def all_wait() -> bool:
            found = await client.count_workflows(
                f"TaskQueue = '{workers.WAITING}' AND {search_attributes.STATUS.name} = 'in_flight'"
            )
            return found.count == count

        await eventually(all_wait, f"{count} payments to wait", limit_s=300)
        full = meter.memory_mb()
        return [
            Fact(f"memory per 1,000 payments in flight: {name}", 1000 * (full[part] - empty[part]) / count, "MB")
            for name, part in (("worker", helper.kind), ("temporal", "temporal"))
        ]
    finally:
        await helper.stop()


async def _start_waiting(client: Client, numbers: range) -> None:
    for number in numbers:
        await client.start_workflow(
            PaymentWorkflow.run,
            flow.request("acct_bench", "wal_bench", "wal_nobody", f"waiting-{number}"),
            id=f"bench-waiting-{number}",
            task_queue=workers.WAITING,
            task_timeout=queues.TASK_TIMEOUT,
        )
