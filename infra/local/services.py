"""How each process of the stack is started and known to be ready."""

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

from infra.local import database, environment
from infra.local.bitcoin_rpc import BitcoinRpc, RpcError
from infra.local.home import BANK, NODES, Home
from infra.local.lightning import Node, active
from infra.local.parts.store import Failed, end_of
from infra.local.supervisor import Process
from infra.local.tools import Tools

SEARCH_ATTRIBUTES = {
    "MillraceStatus": "Keyword",
    "MillraceKind": "Keyword",
    "AccountId": "Keyword",
    "PaymentHash": "Keyword",
    "Txid": "Keyword",
    "AmountSat": "Int",
    "NeedsOperator": "Bool",
}
TEMPORAL_CONFIG = {
    "history.transferProcessorMaxPollRPS": "100",
    "history.timerProcessorMaxPollRPS": "100",
    "history.timerProcessorMaxTimeShift": '"10ms"',
    "matching.enableFairness": "true",
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
}
SQLITE = {"journal_mode": "WAL", "synchronous": "NORMAL"}
LND_FLAGS = """
bitcoin.regtest=true
bitcoin.node=bitcoind
bitcoin.defaultchanconfs=1
bitcoin.defaultremotedelay=144
bitcoind.rpcpolling=true
bitcoind.blockpollinginterval=250ms
bitcoind.txpollinginterval=1s
noseedbackup=true
nobootstrap=true
norest=true
trickledelay=50
gossip.sub-batch-delay=5ms
db.batch-commit-interval=10ms
maxpendingchannels=20
healthcheck.chainbackend.attempts=0
minbackoff=200ms
maxbackoff=1s
logging.file.disable=true
restlisten=127.0.0.1:8080
tor.socks=127.0.0.1:9050
tor.control=127.0.0.1:9051
"""  # The last three are never used; LND looks `localhost` up for them, which fails where there is no hosts file.
STALE_TIP_S = 3600  # LND holds itself to be out of date when the tip is two hours old.


def rpc(home: Home, timeout_s: float = 10) -> BitcoinRpc:
    """This stack's bitcoind."""
    return BitcoinRpc(environment.bitcoind_url(home, with_credentials=True), timeout_s)


def node(home: Home, name: str) -> Node:
    """One Lightning node, with all rights."""
    return Node(name, f"127.0.0.1:{home.ports()[name]}", home.certificate(name), home.macaroon(name, "admin"))


def postgres(home: Home, tools: Tools, words: list[str]) -> Process:
    """PostgreSQL; SIGINT is its quick, clean shutdown."""
    return Process(
        "postgres",
        database.command(home, tools),
        ready=lambda: database.ready(home),
        environment=database.environment(),
        prefix=words,
        stop_signal=database.STOP,
    )


def redis(home: Home, tools: Tools) -> Process:
    """A cache: nothing is kept on disk."""
    folder = home.folder / "redis"
    folder.mkdir(exist_ok=True)
    options = ["--bind", "127.0.0.1", "--port", str(home.ports()["redis"]), "--dir", str(folder)]
    options += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
    return Process(
        "redis",
        [tools.redis, *options],
        ready=lambda: _answers(home, "redis", b"PING\r\n"),
        environment=environment.inherited(),
    )


def temporal(home: Home, tools: Tools) -> Process:
    """Temporal's development server on a file, with the polling that one history shard needs."""
    folder = home.folder / "temporal"
    folder.mkdir(exist_ok=True)
    ports = home.ports()
    command: list[str | Path] = [
        tools.temporal,
        "server",
        "start-dev",
        "--ip",
        "127.0.0.1",
        "--db-filename",
        folder / "temporal.db",
    ]
    command += [
        "--port",
        str(ports["temporal"]),
        "--ui-port",
        str(ports["temporal-ui"]),
        "--namespace",
        environment.NAMESPACE,
    ]
    command += ["--log-level", "warn", "--ui-disable-news-fetch"]
    for option, values in (
        ("dynamic-config-value", TEMPORAL_CONFIG),
        ("sqlite-pragma", SQLITE),
        ("search-attribute", SEARCH_ATTRIBUTES),
    ):
        command += [word for name, value in values.items() for word in (f"--{option}", f"{name}={value}")]
    return Process(
        "temporal", command, ready=lambda: _temporal_serves(home, tools), environment=environment.inherited()
    )


async def keep_histories(home: Home, tools: Tools) -> None:
    """Closed workflows are kept for 30 days; the development server's own namespace keeps them for one."""
    command = ["operator", "namespace", "update", "--retention", "30d", "--namespace", environment.NAMESPACE]
    if not await _temporal_says(home, tools, *command):
        failure = f"Temporal's namespace could not be set up: the end of {home.log('temporal')} says why."
        raise Failed(failure + end_of(home.log("temporal")))


def bitcoind(home: Home, tools: Tools) -> Process:
    """Regtest, reached by RPC only."""
    folder = home.folder / "bitcoind"
    folder.mkdir(exist_ok=True)
    settings = {
        "server": 1,
        "txindex": 1,
        "listen": 0,
        "rpcbind": "127.0.0.1",
        "rpcallowip": "127.0.0.1",
        "rpcport": home.ports()["bitcoind"],
        "rpcuser": "millrace",
        "rpcpassword": home.secrets()["bitcoind_password"],
        "rpcthreads": 16,
        "rpcworkqueue": 256,
        "fallbackfee": "0.00002",
        "addresstype": "bech32",
        "changetype": "bech32",
        **{f"zmqpub{what}": environment.bitcoind_zmq(home) for what in ("hashblock", "hashtx", "sequence")},
        # Checks that only regtest makes: their cost grows with the mempool and the chain.
        "checkmempool": 0,
        "checkblockindex": 0,
    }
    _write_private(home.bitcoind_auth, environment.bitcoind_credentials(home))
    _write_private(
        folder / "bitcoin.conf",
        "regtest=1\n[regtest]\n" + "".join(f"{name}={value}\n" for name, value in settings.items()),
    )
    command: list[str | Path] = [tools.bitcoind, f"-datadir={folder}", "-printtoconsole=1", "-nodebuglogfile"]
    return Process(
        "bitcoind", command, ready=lambda: _bitcoind_serves(home), environment=environment.inherited(), stop_limit_s=30
    )


def lnd(home: Home, tools: Tools, name: str, after: Callable[[], Awaitable[None]]) -> Process:
    """One Lightning node, with TLS and macaroons as in production."""
    ports = home.ports()
    return Process(
        name,
        lnd_command(home, tools, name, ports[name], ports[f"{name}-peer"]),
        ready=lambda: active(node(home, name)),
        environment=environment.inherited(),
        before=lambda: freshen_tip(home),
        after=after,
    )


def lnd_command(home: Home, tools: Tools, name: str, port: int, peer_port: int) -> list[str | Path]:
    """How one is started, with its folder and configuration made."""
    folder = home.folder / name
    folder.mkdir(exist_ok=True)
    own = {
        "alias": name,
        "rpclisten": f"127.0.0.1:{port}",
        "listen": f"127.0.0.1:{peer_port}",
        "externalip": f"127.0.0.1:{peer_port}",
        "bitcoind.rpchost": f"127.0.0.1:{home.ports()['bitcoind']}",
        "bitcoind.rpcuser": "millrace",
        "bitcoind.rpcpass": home.secrets()["bitcoind_password"],
    }
    if name not in BANK:
        own["accept-keysend"] = "true"
    _write_private(folder / "lnd.conf", LND_FLAGS + "".join(f"{key}={value}\n" for key, value in own.items()))
    return [tools.lnd, f"--lnddir={folder}", f"--configfile={folder / 'lnd.conf'}"]


def lnds(home: Home, tools: Tools, after: Callable[[], Awaitable[None]]) -> list[Process]:
    """All nodes, the bank's and the outside world's."""
    return [lnd(home, tools, name, after) for name in NODES]


async def freshen_tip(home: Home) -> None:
    """Mine a block when the last one is so old that LND would not start on it."""
    try:
        age_s = time.time() - (await asyncio.to_thread(rpc(home).call, "getblockchaininfo"))["time"]
        if age_s > STALE_TIP_S:
            await asyncio.to_thread(rpc(home).mine)
    except (OSError, RpcError) as error:
        print(f"bitcoind: no fresh block: {error}", flush=True)


def api_command(python: Path, port: int) -> list[str | Path]:
    """How an API process is started."""
    return [python, "-m", "api.serve", "--host", "127.0.0.1", "--port", str(port)]


def api(home: Home, tools: Tools, name: str) -> Process:
    """One API process."""
    port = home.ports()[name]
    command = api_command(tools.python, port)
    environ = {**environment.inherited(), **environment.of_api(home)}
    return Process(name, command, ready=lambda: _healthy(port), environment=environ)


def worker(home: Home, tools: Tools, name: str) -> Process:
    """One worker process."""
    settings = environment.of_worker(home, name)
    mark = Path(settings["MILLRACE_READY_FILE"])

    async def forget() -> None:
        await asyncio.to_thread(mark.unlink, missing_ok=True)

    async def ready() -> bool:
        return await asyncio.to_thread(mark.exists)

    environ = {**environment.inherited(), **settings}
    return Process(name, [tools.python, "worker.py"], ready=ready, environment=environ, before=forget, stop_limit_s=30)


async def _answers(home: Home, name: str, question: bytes) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.ports()[name])
        writer.write(question)
        answer = await asyncio.wait_for(reader.readline(), 2)
        writer.close()
    except (OSError, TimeoutError):
        return False
    return answer.startswith(b"+PONG")


async def _temporal_serves(home: Home, tools: Tools) -> bool:
    return await _temporal_says(home, tools, "operator", "namespace", "describe", "--namespace", environment.NAMESPACE)


async def _temporal_says(home: Home, tools: Tools, *command: str) -> bool:
    child = await asyncio.create_subprocess_exec(
        tools.temporal,
        *command,
        "--address",
        f"127.0.0.1:{home.ports()['temporal']}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await child.wait() == 0


async def _bitcoind_serves(home: Home) -> bool:
    try:
        await asyncio.to_thread(rpc(home).call, "getblockchaininfo")
    except (OSError, RpcError):
        return False
    return True


async def _healthy(port: int) -> bool:
    def ask() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)

    try:
        return await asyncio.to_thread(ask)
    except (OSError, urllib.error.URLError):
        return False


def _write_private(file: Path, content: str) -> None:
    file.touch(mode=0o600)
    file.write_text(content)
