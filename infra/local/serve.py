"""The life of one stack: `python -m infra.local.serve`, which `./run up` becomes.

Starting, in three lines that run side by side:

    postgres → roles → migrations ─────────────────────┐
    redis, temporal → retention ───────────────────────┼→ workers, API → ready
    bitcoind → wallets, a block → four LNDs → network ─┘

Stopping goes the other way, and works at every moment.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from infra.local import database, environment, services
from infra.local.bitcoin_rpc import HOT, MINER, RpcError
from infra.local.commands import STOP_SIGNALS
from infra.local.home import BANK, MOST_APIS, NODES, Home
from infra.local.network import FIRST_BLOCKS, Network
from infra.local.parts.provision import cache_folder
from infra.local.parts.store import Failed, end_of
from infra.local.supervisor import Supervisor
from infra.local.tools import Tools

ROOT = Path(__file__).resolve().parent.parent.parent
MIGRATIONS = Path("infra/migrations/alembic.ini")
TIP_CHECK_S = 60
CHAIN_LIMIT_S = 90  # A busy disk takes its time over a wallet and a hundred blocks.


class Stack:
    """One stack, from claimed home to last process."""

    def __init__(self, home: Home, tools: Tools, options: argparse.Namespace) -> None:
        self._home, self._tools, self._options = home, tools, options
        self._supervisor = Supervisor(home, ROOT)
        self._prepared = False
        self._chores: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Start, stay, stop; gives the exit code."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stop.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and (error := _first(starting.exception())) is not None:
            self._supervisor.state.failure = self._told(error)
        elif starting.done():
            await stopping
        for task in (starting, stopping, *self._chores):
            task.cancel()
        await asyncio.gather(starting, *self._chores, return_exceptions=True)
        await self._stop()
        if self._supervisor.state.failure:
            print(f"run: {self._supervisor.state.failure}", file=sys.stderr, flush=True)
            return 1
        return 0

    def _told(self, error: BaseException) -> str:
        """The message for a start that failed: why, and the ends of the logs of what was not ready."""
        sentence = str(error) if isinstance(error, Failed) else f"The stack could not start: {error!r}."
        if "\n" in sentence:
            return sentence
        late = [name for name, process in self._supervisor.state.processes.items() if process.state != "ready"]
        logs = [self._home.log(name) for name in late or ("bitcoind", *NODES)]
        ends = [f"\nThe end of {log}:{end}" for log in logs if (end := end_of(log))]
        return f"{sentence} The logs are in {self._home.folder / 'logs'}." + "".join(ends)

    async def _start(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._database())
            group.create_task(self._temporal())
            group.create_task(self._network())
        bare = self._options.bare
        workers = self._options.workers if (ROOT / "worker.py").exists() and not bare else 0
        apis = self._options.api if (ROOT / "api" / "app.py").exists() and not bare else 0
        if workers or apis:
            self._supervisor.say("workers and API: starting")
        await self._supervisor.start(
            *(services.worker(self._home, self._tools, f"worker-{number}") for number in range(1, workers + 1)),
            *(services.api(self._home, self._tools, f"api-{number}") for number in range(1, apis + 1)),
        )
        self._greet()
        self._supervisor.state.ready = True
        self._supervisor.say("ready")

    async def _database(self) -> None:
        database.folder(self._home).mkdir(mode=0o700, exist_ok=True)
        words = await asyncio.to_thread(database.prefix, database.folder(self._home), self._tools)
        await database.initialise(self._home, self._tools, words)
        await self._supervisor.start(services.postgres(self._home, self._tools, words))
        await database.have_roles(self._home)
        if (ROOT / MIGRATIONS).exists():
            await self._migrate()
        self._supervisor.say("postgres: ready")

    async def _migrate(self) -> None:
        environ = {
            **environment.inherited(),
            "MILLRACE_POSTGRES_OWNER_DSN": environment.dsn(self._home, environment.OWNER),
        }
        with self._home.log("migrations").open("ab") as log:
            begin = log.tell()
            command = [str(self._tools.python), "-m", "alembic", "-c", str(MIGRATIONS), "upgrade", "head"]
            child = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
            if await child.wait() != 0:
                failure = f"The database could not be migrated: the end of {self._home.log('migrations')} says why."
                raise Failed(failure + end_of(self._home.log("migrations"), begin))

    async def _temporal(self) -> None:
        await self._supervisor.start(
            services.redis(self._home, self._tools), services.temporal(self._home, self._tools)
        )
        await services.keep_histories(self._home, self._tools)
        self._supervisor.say("redis, temporal: ready")

    async def _network(self) -> None:
        await self._supervisor.start(services.bitcoind(self._home, self._tools))
        chain = services.rpc(self._home, timeout_s=CHAIN_LIMIT_S)
        self._chores += [asyncio.create_task(self._stay_fresh()), asyncio.create_task(self._keep_blocks())]
        for wallet in (MINER, HOT):
            await asyncio.to_thread(chain.have_wallet, wallet)
        height = await asyncio.to_thread(chain.call, "getblockcount")
        await asyncio.to_thread(chain.mine, max(1, FIRST_BLOCKS - height))
        self._supervisor.say("bitcoind: ready")
        await self._supervisor.start(*services.lnds(self._home, self._tools, self._reconnect))
        mark = self._home.folder / "network-prepared"
        async with Network(self._home, chain, [services.node(self._home, name) for name in NODES]) as network:
            if mark.exists():
                await network.synced()
                await network.connect_peers()
                await network.channels_active()
            else:
                self._supervisor.say("lightning: opening channels")
                await network.prepare()
            await network.bake_macaroons()
        mark.touch()
        self._prepared = True
        self._supervisor.say("lightning: ready")

    async def _reconnect(self) -> None:
        """A node that comes back meets its peers at once."""
        if self._prepared:
            async with Network(
                self._home, services.rpc(self._home), [services.node(self._home, name) for name in NODES]
            ) as network:
                await asyncio.wait_for(network.connect_peers(), 5)

    async def _stay_fresh(self) -> None:
        while True:
            await asyncio.sleep(TIP_CHECK_S)
            await services.freshen_tip(self._home)

    async def _keep_blocks(self) -> None:
        """Every block reaches the disk within milliseconds, whoever mined it."""
        while True:
            try:
                await asyncio.to_thread(services.rpc(self._home).flush_next, 1)
            except (OSError, RpcError):
                await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        self._supervisor.state.ready = False
        self._supervisor.say("stopping")
        for prefix in ("api-", "worker-", "temporal", BANK, "outside-", "bitcoind", "redis", "postgres"):
            prefixes = (prefix,) if isinstance(prefix, str) else prefix
            await self._supervisor.stop(*(name for each in prefixes for name in self._supervisor.names(each)))
        self._supervisor.say("stopped")

    def _greet(self) -> None:
        told = environment.exported(self._home, self._supervisor.state)
        api = [f"  API          {told['MILLRACE_API_URL']}"] if self._supervisor.names("api-") else []
        lines = [
            *api,
            f"  Temporal UI  {told['MILLRACE_TEMPORAL_UI_URL']}",
            f"  logs         {self._home.folder / 'logs'}",
        ]
        print("\n".join(lines), flush=True)


def _first(error: BaseException | None) -> BaseException | None:
    """The most telling of several errors: a sentence for a person comes before an unexpected error."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inner = [found for each in error.exceptions if (found := _first(each)) is not None]
    return next((found for found in inner if isinstance(found, Failed)), inner[0])


def main() -> int:
    """Parse the arguments, claim the home, run the stack."""
    parser = argparse.ArgumentParser(prog="./run up")
    parser.add_argument("--api", type=int, default=1, choices=range(1, MOST_APIS + 1), metavar="N")
    parser.add_argument("--workers", type=int, default=1, choices=range(1, 65), metavar="N")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    home = Home.current(ROOT)
    claimed = home.claim()
    if claimed is None:
        print(f"run: a stack is running in {home.folder}: ./run down stops it.", file=sys.stderr)
        return 1
    with claimed:
        home.settle_ports(cache_folder() / "ports")
        for held in (home.folder / "hold").iterdir():
            held.unlink()
        return asyncio.run(Stack(home, Tools.given(), options).run())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        print(f"run: {failure}", file=sys.stderr)
        sys.exit(1)
