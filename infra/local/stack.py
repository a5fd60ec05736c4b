"""A stack for tests and the demo, started and disturbed from Python.

    with Stack.start(tmp_path / "home") as stack:       # or Stack.running(): the one that `./run up` has
        stack.kill("lnd-1")                             # SIGKILL, and back when this returns
        with stack.held("redis"):                       # down for as long as the block lasts
            ...
        stack.mine(6)

The stack is a child: it ends with the process that started it, even when that one is killed. All calls block; from
`async` code use `asyncio.to_thread`.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from infra.local import environment
from infra.local.bitcoin_rpc import MINER, BitcoinRpc
from infra.local.chain.regtest import Regtest
from infra.local.commands import ROOT, why_over
from infra.local.home import Home, ProcessState
from infra.local.parts.store import Failed

START_LIMIT_S = 900  # The very first start builds LND.
BACK_LIMIT_S = 60


def wait_until(holds: Callable[[], bool], what: str, limit_s: float = BACK_LIMIT_S) -> None:
    """Wait for a fact, looking twenty times a second; raises `TimeoutError` naming it."""
    end = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {limit_s:.0f} s in vain for {what}")
        time.sleep(0.05)


class Stack:
    """One running stack. Processes are called as in `./run status`; `api` and `worker` mean the first of each."""

    def __init__(self, home: Home, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.home, self._child = home, child

    @classmethod
    def running(cls) -> "Stack":
        """The stack of `MILLRACE_HOME`, else of this checkout; raises `Failed` if none is ready."""
        stack = cls(Home.current(ROOT))
        if not stack.home.running() or not stack.home.read_state().ready:
            raise Failed(f"No stack is ready in {stack.home.folder}: ./run up --detach starts one.")
        return stack

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        apis: int = 1,
        workers: int = 1,
        bare: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> "Stack":
        """Start a stack in `folder` and return when it is ready; what is there already is kept.

        `bare` leaves API and workers out; `settings` are further environment variables for them. Raises `Failed` with
        the reason when it cannot start.
        """
        home = Home(folder.resolve())
        environ = {**environment.inherited(), **(settings or {}), "MILLRACE_HOME": str(home.folder)}
        command = [
            "setpriv",
            "--pdeathsig",
            "TERM",
            "--",
            str(ROOT / "run"),
            "up",
            "--api",
            str(apis),
            "--workers",
            str(workers),
        ]
        with home.log("supervisor").open("ab") as log:
            begin = log.tell()
            child = subprocess.Popen(
                [*command, *(["--bare"] if bare else [])], env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        stack = cls(home, child)

        def ready_or_over() -> bool:
            state = home.read_state()
            return child.poll() is not None or (state.ready and state.pid == child.pid)

        try:
            wait_until(ready_or_over, f"the stack in {home.folder}", START_LIMIT_S)
        except TimeoutError:
            stack.stop()
            raise Failed(f"The stack was not ready after {START_LIMIT_S} s: {why_over(home, 0, begin)}") from None
        except BaseException:
            stack.stop()
            raise
        if child.poll() is not None:
            raise Failed(f"The stack did not start: {why_over(home, child.pid, begin)}")
        return stack

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, *, wait: bool = True) -> None:
        """Stop a stack that we started, in order, keeping its data; one that runs without us is left alone.

        Without `wait` it only begins to stop.
        """
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        if not wait:
            return
        try:
            self._child.wait(120)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            raise

    def environment(self) -> dict[str, str]:
        """What `./run env` exports, with the process ids of this moment."""
        return environment.exported(self.home, self.home.read_state())

    def process(self, name: str) -> ProcessState:
        """State, process id and number of restarts."""
        processes = self.home.read_state().processes
        return processes[name if name in processes else f"{name}-1"]

    def pid(self, name: str) -> int:
        """The process's id; raises `Failed` while it is down."""
        pid = self.process(name).pid
        if pid is None:
            raise Failed(f"{name} is not running.")
        return pid

    def kill(self, name: str, *, wait: bool = True) -> None:
        """SIGKILL; returns when the supervisor has it back and ready, or at once without `wait`."""
        restarts = self.process(name).restarts
        os.kill(self.pid(name), signal.SIGKILL)
        if wait:
            self.wait_back(name, restarts)

    def wait_back(self, name: str, restarts: int, limit_s: float = BACK_LIMIT_S) -> None:
        """Wait until the process is ready after more than this many restarts."""

        def back() -> bool:
            process = self.process(name)
            return process.restarts > restarts and process.state == "ready"

        wait_until(back, f"{name} to be back", limit_s)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """SIGSTOP for the length of the block: the process lives and holds its connections, but says nothing.

        One that was killed meanwhile stays dead.
        """
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Stopped in good order for the length of the block, and ready again after it."""
        self.hold(name)
        try:
            yield
        finally:
            self.release(name)

    def hold(self, name: str) -> None:
        """Stop a process in good order; the supervisor keeps it down until `release`."""
        self.home.hold(self._exact(name)).touch()
        wait_until(lambda: self.process(name).state == "held", f"{name} to stop")

    def release(self, name: str, *, wait: bool = True) -> None:
        """Let a held process start again; returns when it is ready, or at once without `wait`."""
        self.home.hold(self._exact(name)).unlink(missing_ok=True)
        if wait:
            wait_until(lambda: self.process(name).state == "ready", f"{name} to be back")

    def _exact(self, name: str) -> str:
        return name if name in self.home.read_state().processes else f"{name}-1"

    def bitcoin(self, wallet: str | None = None) -> BitcoinRpc:
        """Give bitcoind, or a wallet of it, with all rights."""
        return BitcoinRpc(environment.bitcoind_url(self.home, with_credentials=True), wallet=wallet)

    def chain(self) -> Regtest:
        """The chain in the hands of its miner, who also pays: replacements, reorganisations, evictions."""
        return Regtest(self.bitcoin, MINER)

    def mine(self, blocks: int = 1) -> list[str]:
        """Mine to the miner's wallet; the blocks are on disk when this returns. Returns their hashes."""
        return self.bitcoin().mine(blocks)
