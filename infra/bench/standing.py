"""What Millrace costs before and while nothing happens: starting up, memory, and payments that wait."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median

from temporalio.client import Client

from engine.contracts import queues
from infra.bench.contest import eventually
from infra.bench.flow import Helper, connect, request
from infra.bench.http import Broken, Line
from infra.bench.machine import Meter, cpu_of
from infra.bench.report import Fact
from infra.bench.servers import UNLIMITED, Servers
from infra.bench.workers import WAITING
from infra.local import environment
from infra.local.commands import ROOT
from workflows.payment import PaymentWorkflow

OK = 200
AT_ONCE = 64


async def start_up(servers: Servers, times: int, port: int) -> list[Fact]:
    """Seconds and CPU from the start of a process to its first answer, beside the one that runs; the median."""
    home, python = servers.stack.home, str(servers.tools.python)
    ready = home.folder / "run" / "bench-start.ready"
    api = [python, "-m", "uvicorn", "api.app:create_app", "--factory", "--host", "127.0.0.1", "--port", str(port)]
    api_settings = {**environment.of_api(home), **UNLIMITED}
    worker_settings = {**environment.of_worker(home, "worker-1"), "MILLRACE_READY_FILE": str(ready)}

    async def answers() -> bool:
        return await _answers(port)

    async def says_so() -> bool:
        return await asyncio.to_thread(ready.exists)

    facts = []
    for name, command, settings, there in (
        ("API", api, api_settings, answers),
        ("worker", [python, "worker.py"], worker_settings, says_so),
    ):
        took = []
        for _ in range(times):
            await asyncio.to_thread(ready.unlink, missing_ok=True)
            took.append(await _start_once(servers, command, settings, there))
        facts.append(Fact(f"{name}: from start to ready", median(took_s for took_s, _ in took), "s"))
        facts.append(Fact(f"{name}: CPU of its start", median(cpu_s for _, cpu_s in took), "s"))
    return facts


async def _start_once(
    servers: Servers, command: Sequence[str], settings: Mapping[str, str], there: Callable[[], Awaitable[bool]]
) -> tuple[float, float]:
    """Seconds until it is there, and its CPU by then; the process is ended again."""
    began = time.monotonic()
    with servers.stack.home.log("bench-start").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", *command),
            cwd=ROOT,
            env={**environment.inherited(), **settings},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        await eventually(there, f"{command[-1]} to start")
        return time.monotonic() - began, cpu_of(process.pid)
    finally:
        process.terminate()
        await process.wait()


async def _answers(port: int) -> bool:
    line = Line(port)
    try:
        status, _ = await line.ask("GET", "/healthz")
    except (OSError, Broken, TimeoutError):
        return False
    finally:
        line.close()
    return status == OK


def memory(meter: Meter, when: str) -> list[Fact]:
    """Megabytes of each component."""
    return [Fact(f"memory {when}: {name}", used, "MB") for name, used in sorted(meter.memory_mb().items())]


async def waiting_payments(servers: Servers, meter: Meter, count: int) -> list[Fact]:
    """What payments in flight take: our workflow's own code in a worker of its own, its activities played."""
    helper = Helper(servers, "waiting")
    await helper.start()
    try:
        client = await connect(servers)
        empty = meter.memory_mb()
        await asyncio.gather(*(_start_waiting(client, range(first, count, AT_ONCE)) for first in range(AT_ONCE)))

        async def all_wait() -> bool:
            found = await client.count_workflows(f"TaskQueue = '{WAITING}' AND {queues.STATUS.name} = 'in_flight'")
            return found.count == count

        await eventually(all_wait, f"{count} payments to wait", limit_s=180)
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
            request("acct_bench", "wal_bench", "wal_nobody", f"waiting-{number}"),
            id=f"bench-waiting-{number}",
            task_queue=WAITING,
            task_timeout=queues.TASK_TIMEOUT,
        )
