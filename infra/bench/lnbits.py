"""LNbits, the bench's yardstick for an app's payments: the published package in an environment of its own.

It runs as its README says, one process, with the funding source FakeWallet (it makes its invoices itself and asks no
node), on a database of its own on the same PostgreSQL. Its rate limit is raised and its extensions are off; what it
would ask of the internet (prices, lists of extensions) is answered on loopback at once, so that nothing outside counts.
"""

import asyncio
import contextlib
import random
import shutil
import sys
from pathlib import Path

import asyncpg

from infra.bench.contest import Wrong, eventually
from infra.bench.http import Broken, Wire
from infra.bench.pairs import LNBITS, OverHttp
from infra.bench.people import Json, expect
from infra.bench.servers import Servers
from infra.local.parts import python
from infra.local.parts.provision import cache_folder
from infra.local.parts.store import Failed, Store

LOCK = Path(__file__).parent / "lnbits.lock"
FITTING = ((3, 12), (3, 11), (3, 10))
"""Pythons that LNbits 1.6.2 says it runs on."""
COMPONENT = "lnbits"
DATABASE = "lnbits"
WALLETS = 64
EACH_SAT = 50_000
AMOUNT_SAT = 1
SERVER_ERROR = 500
PASSWORD = "bench-bench-bench"  # noqa: S105 - of a server that lives for minutes, on loopback
PRICE = b'{"rates": {"median": 100000.0}, "extensions": [], "featured": [], "repos": []}'
_GROW = """
WITH leg AS ((SELECT * FROM apipayments WHERE amount = 1000 AND status = 'success' LIMIT 1) UNION ALL
             (SELECT * FROM apipayments WHERE amount = -1000 AND status = 'success' LIMIT 1)),
     made AS (SELECT to_jsonb(leg) AS old, 'old' || n AS hash, 'old' || n || amount AS id,
                     1 + (n / 2 + ((n % 2 = 0) = (amount > 0))::int) % cardinality($1::text[]) AS place
                FROM leg, generate_series($2::int, $3::int - 1) n)
INSERT INTO apipayments
SELECT (jsonb_populate_record(NULL::apipayments, old || jsonb_build_object(
            'checking_id', id, 'payment_hash', hash, 'wallet_id', ($1::text[])[place]))).* FROM made"""
"""Copies of one payment between all wallets in turn, there and back, so that no balance changes."""


def provision() -> Path | str:
    """The Python of its environment, built once in the cache; or why it cannot be had here."""
    interpreter = _interpreter()
    if interpreter is None:
        return f"LNbits needs Python {FITTING[-1][0]}.{FITTING[-1][1]} to {FITTING[0][0]}.{FITTING[0][1]} on PATH"
    store = Store(cache_folder())

    def build(folder: Path) -> None:
        pip = python.pip(store)
        store.run("lnbits", python.CURE, [interpreter, "-m", "venv", "--without-pip", folder])
        target = ("--python", folder / "bin" / "python")
        store.run("lnbits", python.CURE, [pip, "-m", "pip", *target, *python.INSTALL, "--no-deps", "-r", LOCK])

    key = f"lnbits-{python.digest(LOCK)}-{interpreter.name}"
    try:
        return store.item(key, build, what="LNbits", usually="1-2 minutes") / "bin" / "python"
    except Failed as failure:
        return str(failure)


def _interpreter() -> Path | None:
    """Our own Python when it fits, else one of PATH."""
    if sys.version_info[:2] in FITTING:
        return Path(sys.executable).resolve()
    names = (f"python{major}.{minor}" for major, minor in FITTING)
    return next((Path(found).resolve() for name in names if (found := shutil.which(name))), None)


class Lnbits(OverHttp):
    """The running server and its wallets."""

    name = LNBITS
    components = (COMPONENT, "postgres")

    def __init__(self, servers: Servers, port: int, process: asyncio.subprocess.Process) -> None:
        super().__init__(port)
        self._servers, self._process = servers, process
        self._wallets: list[Json] = []
        self._owned_sat: list[int] = []

    async def operation(self, client: int) -> None:
        wire, (payer, payee) = self._wires[client], random.sample(range(len(self._wallets)), 2)
        asked = {"out": False, "amount": AMOUNT_SAT, "memo": "bench"}
        invoice = expect(await wire.ask("POST", "/api/v1/payments", asked, X_Api_Key=self._wallets[payee]["inkey"]))
        paying = {"out": True, "bolt11": invoice["bolt11"]}
        paid = expect(await wire.ask("POST", "/api/v1/payments", paying, X_Api_Key=self._wallets[payer]["adminkey"]))
        if paid["status"] != "success":
            raise Wrong(f"LNbits: a payment is {paid['status']}")
        self._owned_sat[payer] -= AMOUNT_SAT
        self._owned_sat[payee] += AMOUNT_SAT

    async def check(self) -> None:
        """Every balance that LNbits itself computes is what its answers say."""
        connection = await asyncpg.connect(self._servers.dsn(DATABASE))
        try:
            rows = await connection.fetch("SELECT wallet_id, balance FROM balances")
        finally:
            await connection.close()
        found = {row["wallet_id"]: int(row["balance"]) for row in rows}
        for wallet, owned_sat in zip(self._wallets, self._owned_sat, strict=True):
            if found.get(wallet["id"]) != owned_sat * 1000:
                raise Wrong(f"LNbits: a wallet has {found.get(wallet['id'])} msat and must have {owned_sat} sat")

    async def settle_in(self) -> None:
        """Wait for the first installation, take the super user's place, open wallets and give each the same."""
        wire = Wire(self._port)
        await eventually(lambda: _serves(wire), "LNbits to serve", limit_s=120)
        body = {"username": "bench", "password": PASSWORD, "password_repeat": PASSWORD}
        told = expect(await wire.ask("PUT", "/api/v1/auth/first_install", body), 200)
        bearer = f"Bearer {told['access_token']}"
        for number in range(WALLETS):
            wallet = expect(await wire.ask("POST", "/api/v1/account", {"name": f"bench {number}"}), 200)
            balance = {"id": wallet["id"], "amount": EACH_SAT}
            expect(await wire.ask("PUT", "/users/api/v1/balance", balance, Authorization=bearer), 200)
            self._wallets.append(wallet)
            self._owned_sat.append(EACH_SAT)
        wire.close()
        await self.check()

    async def grow(self, first: int, last: int) -> None:
        """Add these payments to its history."""
        self._wires.setdefault(0, Wire(self._port))
        await self.operation(0)
        connection = await asyncpg.connect(self._servers.dsn(DATABASE))
        try:
            await connection.execute(_GROW, [wallet["id"] for wallet in self._wallets], first, last)
        finally:
            await connection.close()

    async def stop(self) -> None:
        """End it with its children."""
        await self._servers.end(COMPONENT, self._process)


async def start(servers: Servers, interpreter: Path, port: int, loopback: int) -> Lnbits:
    """Start it on a fresh database. `loopback` is the port where the internet is played."""
    await servers.have_database(DATABASE)
    folder = servers.stack.home.folder / "lnbits"
    (folder / "lnbits").mkdir(parents=True)
    package = next(interpreter.parent.parent.glob("lib/python*/site-packages/lnbits"))
    (folder / "lnbits" / "static").symlink_to(package / "static")
    nothing = f"http://127.0.0.1:{loopback}"
    settings = {
        "LNBITS_DATABASE_URL": servers.dsn(DATABASE).replace("postgresql://", "postgres://"),
        "LNBITS_BACKEND_WALLET_CLASS": "FakeWallet",
        "LNBITS_DATA_FOLDER": str(folder / "data"),
        "LNBITS_EXTENSIONS_PATH": str(folder),
        "LNBITS_RATE_LIMIT_NO": "1000000",
        "LNBITS_RATE_LIMIT_UNIT": "second",
        "LNBITS_EXTENSIONS_DEACTIVATE_ALL": "true",
        "LNBITS_EXTENSIONS_MANIFESTS": f'["{nothing}/extensions.json"]',
        "LNBITS_WASM_EXTENSIONS_MANIFESTS": f'["{nothing}/extensions.json"]',
        "LNBITS_PRICE_AGGREGATOR_URL": nothing,
        "LNBITS_EXCHANGE_RATE_PROVIDERS": "[]",
        "LNBITS_ADMIN_UI": "true",
        "DEBUG": "false",
    }
    command: list[str | Path] = [interpreter, interpreter.parent / "lnbits", "--host", "127.0.0.1", "--port", str(port)]
    return Lnbits(servers, port, await servers.spawn(COMPONENT, command, settings, folder))


async def play_internet() -> asyncio.Server:
    """Answers every request with a price and an empty list."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(PRICE)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + PRICE)
            await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


async def _serves(wire: Wire) -> bool:
    try:
        status, _ = await wire.ask("GET", "/api/v1/health")
    except (OSError, Broken, TimeoutError):
        return False
    return status < SERVER_ERROR  # until somebody is its super user it sends everybody to its first page
