"""Keeps the processes of one stack alive: starts them, starts again what dies, stops all in order.

Three promises. A process that dies is back at the same port after a short pause, however it died. Nothing outlives the
supervisor: every child asks the kernel to be killed with its parent (`setpriv --pdeathsig`), so `kill -9` of the
supervisor leaves no process. A process that someone holds on purpose (a file in `hold/`) stays stopped until that file
is gone.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.home import Home, ProcessState, State
from infra.local.parts.store import Failed, end_of

POLL_S = 0.05
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
EARLY_DEATHS = 7  # So many before it was ever ready: it cannot start.


async def _nothing() -> None:
    """The hook of a process that needs none."""


@dataclass(frozen=True)
class Process:
    """How one process is started, known to be ready, and stopped."""

    name: str
    command: Sequence[str | Path]
    ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str]
    prefix: Sequence[str] = ()
    before: Callable[[], Awaitable[None]] = _nothing
    after: Callable[[], Awaitable[None]] = _nothing
    stop_signal: signal.Signals = signal.SIGTERM
    stop_limit_s: float = 20
    ready_limit_s: float = 90


@dataclass
class Kept:
    """One process under supervision."""

    process: Process
    state: ProcessState = field(default_factory=ProcessState)
    was_ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)  # Set when it must stop or is held: it need not poll.
    task: "asyncio.Task[None] | None" = None
    trouble: str = ""  # What kept the last try from starting it at all.
    failure: str | None = None


class Supervisor:
    """All processes of one home, and what is said of them in `state.json`."""

    def __init__(self, home: Home, root: Path) -> None:
        self._home, self._root = home, root
        self._kept: dict[str, Kept] = {}
        self._watching: asyncio.Task[None] | None = None
        self.state = State(pid=os.getpid())

    def say(self, doing: str) -> None:
        """Tell a person what is being done."""
        self.state.doing = doing
        print(doing, flush=True)
        self.write()

    def write(self) -> None:
        """Publish the state."""
        self.state.processes = {name: kept.state for name, kept in self._kept.items()}
        self._home.write_state(self.state)

    async def start(self, *processes: Process) -> None:
        """Start these side by side and return when all are ready; raises `Failed` when one cannot be."""
        started = []
        for process in processes:
            kept = Kept(process)
            self._kept[process.name] = kept
            kept.task = asyncio.create_task(self._keep(kept), name=process.name)
            started.append(self._first_ready(kept))
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch_holds())
        await asyncio.gather(*started)

    async def _first_ready(self, kept: Kept) -> None:
        name, log = kept.process.name, self._home.log(kept.process.name)
        until = time.monotonic() + kept.process.ready_limit_s
        while not kept.was_ready.is_set():
            if kept.failure is not None:
                raise Failed(f"{name} cannot start ({kept.failure}): the end of {log} says why.{end_of(log)}")
            if time.monotonic() > until:
                late = f"{name} was not ready after {kept.process.ready_limit_s:.0f} s"
                raise Failed(f"{late}: the end of {log} says why.{end_of(log)}")
            await asyncio.sleep(POLL_S)

    async def stop(self, *names: str) -> None:
        """Stop these side by side, whatever they are doing; names that were never started are passed over."""
        kept = [self._kept[name] for name in names if name in self._kept]
        for each in kept:
            each.stopping.set()
            each.told.set()
        await asyncio.gather(*(each.task for each in kept if each.task is not None), return_exceptions=True)

    def names(self, prefix: str) -> list[str]:
        """The processes whose name begins so."""
        return [name for name in self._kept if name.startswith(prefix)]

    def failed_hooks(self, kept: Kept, error: BaseException) -> None:
        """Log the failure of a hook; the next start tries it again."""
        kept.trouble = f": {error!r}"
        print(f"{kept.process.name}: {error!r}", flush=True)

    async def _keep(self, kept: Kept) -> None:
        pause_s, early_deaths = FIRST_PAUSE_S, 0
        while not kept.stopping.is_set():
            if self._home.hold(kept.process.name).exists():
                self._note(kept, "held", None)
                await asyncio.sleep(POLL_S)
                continue
            code, served = await self._live(kept)
            if kept.stopping.is_set() or self._home.hold(kept.process.name).exists():
                continue
            kept.state.restarts += 1
            early_deaths += not kept.was_ready.is_set()
            if early_deaths >= EARLY_DEATHS:
                kept.failure = f"it ended {early_deaths} times, last with exit code {code}{kept.trouble}"
                break
            pause_s = FIRST_PAUSE_S if served else pause_s
            self._note(kept, "failing" if pause_s >= 1 else "starting", None)
            print(f"{kept.process.name}: ended with exit code {code}, starts again in {pause_s:.1f} s", flush=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(kept.stopping.wait(), pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        self._note(kept, "stopped", None)

    async def _live(self, kept: Kept) -> tuple[int | None, bool]:
        """One life of the process, whoever ends it; gives its exit code and whether it was ever ready."""
        kept.trouble = ""
        try:
            await kept.process.before()
            child = await self._spawn(kept.process)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next start tries again
            self.failed_hooks(kept, error)
            return None, False
        self._note(kept, "starting", child.pid)
        watch = asyncio.create_task(self._watch_ready(kept, child))
        end = asyncio.create_task(child.wait())
        try:
            while not end.done() and not kept.stopping.is_set() and not self._home.hold(kept.process.name).exists():
                kept.told.clear()
                told = asyncio.create_task(kept.told.wait())
                await asyncio.wait({end, told}, return_when=asyncio.FIRST_COMPLETED)
                told.cancel()
        finally:
            served = watch.done()
            watch.cancel()
            await self._end(kept.process, child, end)
        return child.returncode, served

    async def _watch_holds(self) -> None:
        """One look for all processes: each that somebody begins to hold is told."""
        while not all(kept.stopping.is_set() for kept in self._kept.values()):
            for name in self._home.holds():
                if name in self._kept:
                    self._kept[name].told.set()
            await asyncio.sleep(POLL_S)

    async def _spawn(self, process: Process) -> asyncio.subprocess.Process:
        with self._home.log(process.name).open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *process.prefix,
                "setpriv",
                "--pdeathsig",
                "KILL",
                "--",
                *process.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=process.environment,
                cwd=self._root,
                process_group=0,
            )

    async def _watch_ready(self, kept: Kept, child: asyncio.subprocess.Process) -> None:
        while True:
            try:
                if await kept.process.ready():
                    break
            except Exception as error:  # noqa: BLE001 - not ready, whatever the reason
                print(f"{kept.process.name}: {error!r}", flush=True)
            await asyncio.sleep(POLL_S)
        try:
            await kept.process.after()
        except Exception as error:  # noqa: BLE001 - a process that serves is ready all the same
            self.failed_hooks(kept, error)
        self._note(kept, "ready", child.pid)
        kept.was_ready.set()

    async def _end(self, process: Process, child: asyncio.subprocess.Process, end: "asyncio.Task[int]") -> None:
        """Ask, wait, then kill the process with all that it started."""
        if not end.done():
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)
                child.send_signal(process.stop_signal)
            await asyncio.wait({end}, timeout=process.stop_limit_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        await end

    def _note(self, kept: Kept, state: str, pid: int | None) -> None:
        if (kept.state.state, kept.state.pid) != (state, pid):
            kept.state.state, kept.state.pid = state, pid
            self.write()
