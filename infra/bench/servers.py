"""The stack that is measured, and what the bench needs of it: its processes by component, and databases of its own."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import asyncpg

from engine.settings import ApiSettings
from infra.local import database, environment, services
from infra.local.commands import ROOT
from infra.local.parts.store import Failed, end_of, remove
from infra.local.stack import Stack
from infra.local.tools import Tools

COMPONENTS = {
    "api-1": "api",
    "worker-1": "worker",
    "temporal": "temporal",
    "postgres": "postgres",
    "redis": "redis",
    "lnd-1": "lnd",
    "lnd-2": "lnd",
    "outside-1": "outside",
    "outside-2": "outside",
    "bitcoind": "bitcoind",
}
OURS = ("api", "worker", "temporal", "postgres", "redis", "lnd", "bitcoind")
"""The components whose CPU counts as ours; the outside nodes belong to others."""
BATCHING, PLAIN = {"MILLRACE_PAYMENT_LANES": "1"}, {"MILLRACE_PAYMENT_LANES": "0"}
FEE_RATE = 3_000
"""Of withdrawals, in satoshi for 1,000 virtual bytes."""
_ONE_RATE = {"MILLRACE_FIXED_FEE_RATE": str(FEE_RATE)}
UNLIMITED = {"MILLRACE_RATE_LIMIT_PER_MINUTE": "0"}


def folder() -> Path:
    """A folder of its own next to that of the usual stack."""
    usual = Path(os.environ.get("MILLRACE_HOME") or ROOT / ".millrace")
    return usual.with_name(f"{usual.name}-bench")


def start() -> Stack:
    """A fresh stack: figures of books that grew over many runs would not be comparable."""
    remove(folder())
    return Stack.start(folder(), settings={**UNLIMITED, **BATCHING, **_ONE_RATE})


def can_batch() -> bool:
    """Whether this API collects payments into batches, switched by a setting."""
    return "payment_lanes" in ApiSettings.model_fields


def api_command(tools: Tools, port: int) -> list[str | Path]:
    """One more API process."""
    return services.api_command(tools.python, port)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Servers:
    """The running stack, and further processes that take part."""

    def __init__(self, stack: Stack, tools: Tools) -> None:
        self.stack, self.tools = stack, tools
        self.beside: dict[str, int] = {}
        """Further root processes by component, while they run."""

    def roots(self) -> Mapping[str, Sequence[int]]:
        """The root processes of each component, now."""
        found: dict[str, list[int]] = {}
        for name, process in self.stack.home.read_state().processes.items():
            if process.pid is not None and name in COMPONENTS:
                found.setdefault(COMPONENTS[name], []).append(process.pid)
        for name, pid in self.beside.items():
            found.setdefault(name, []).append(pid)
        return found

    async def spawn(
        self, name: str, command: Sequence[str | Path], settings: Mapping[str, str], cwd: Path = ROOT
    ) -> asyncio.subprocess.Process:
        """Start a process beside the stack's, which dies with us. Under this name it is a component until `end`."""
        with self.stack.home.log(f"bench-{name.replace(' ', '-')}").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--", *command),
                cwd=cwd,
                env={**environment.inherited(), **settings},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self.beside[name] = process.pid
        return process

    async def end(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Ask it to end, and after ten seconds make it, with all that it started."""
        self.beside.pop(name, None)
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def dsn(self, name: str) -> str:
        """A database of this server, as its superuser."""
        home = self.stack.home
        secret = home.secrets()["postgres_password"]
        return f"postgresql://{database.SUPERUSER}:{secret}@127.0.0.1:{home.ports()['postgres']}/{name}"

    @contextlib.asynccontextmanager
    async def books(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the bank's own database, as its superuser."""
        connection = await asyncpg.connect(self.dsn(environment.DATABASE))
        try:
            yield connection
        finally:
            await connection.close()

    async def have_database(self, name: str, owner: str = database.SUPERUSER) -> None:
        """A new and empty database."""
        connection = await asyncpg.connect(self.dsn("postgres"))
        try:
            await connection.execute(f"CREATE DATABASE {name} OWNER {owner}")
        finally:
            await connection.close()

    async def have_books(self, name: str) -> None:
        """A database of its own with all our migrations. Raises Failed."""
        await self.have_database(name, environment.OWNER)
        owner = environment.dsn(self.stack.home, environment.OWNER).rpartition("/")[0]
        environ = {**environment.inherited(), "MILLRACE_POSTGRES_OWNER_DSN": f"{owner}/{name}"}
        command = [str(self.tools.python), "-m", "alembic", "-c", "infra/migrations/alembic.ini", "upgrade", "head"]
        log = self.stack.home.log("bench-migrations")
        with log.open("ab") as out:
            begin = out.tell()
            child = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out
            )
            if await child.wait() != 0:
                raise Failed(f"The bench's books could not be made: the end of {log} says why.{end_of(log, begin)}")
        connection = await asyncpg.connect(self.dsn(name))
        try:
            await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO {environment.APP}")
        finally:
            await connection.close()
