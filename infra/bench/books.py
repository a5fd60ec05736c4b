"""The ledger alone and PostgreSQL's own benchmark: the same server, the same driver (`pgbench`), the same clients.

    TPC-B           pgbench's standard: three updates, a read and an insert, in one transaction; over 20 branches
    TPC-B, hot      the same over one branch, whose row every transaction updates; shown beside the hot account
    post            ledger.post of one transfer between two users
    hold + settle   two transactions; counted as two transfers

Each transfer commits by itself, with the durability that PostgreSQL has by default. *Hot* means that one account takes
part in every transfer.
"""

import asyncio
import itertools
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from engine.ledger import book, checks, store
from engine.ledger.database import Connection, open_pool, transaction
from infra.bench.contest import NOT_BUILT, Begin, Contest, Contestant, Work, Wrong, keep_asking
from infra.bench.figures import Goal
from infra.bench.servers import Servers
from infra.local import environment
from infra.local.database import SUPERUSER

USERS = 1000
FUNDS_MSAT = 10**12
SCALE = 20
"""The scale of TPC-B: 20 branches, 2,000,000 accounts; the branches are its hot rows. The goals refer to this scale."""
TITLE = "ledger"
TPCB = "pgbench TPC-B"
TPCB_HOT = "pgbench TPC-B, hot"
BATCH = 100
BATCHES = (f"post_batch of {BATCH}, random", f"post_batch of {BATCH}, hot")
PostBatch = Callable[[Connection, Sequence[book.Posting]], Awaitable[object]]
_PROCESSED = re.compile(r"number of transactions actually processed: (\d+)")
_FAILED = re.compile(r"number of failed transactions: (\d+)")
_LATENCY = re.compile(r"latency average = ([\d.]+) ms")
_PROGRESS = re.compile(r"progress: ([\d.]+) s, ([\d.]+) tps")

_PICK = {
    "random": """\\set a :first + random(0, :users - 1)
\\set b :first + (:a - :first + random(1, :users - 1)) % :users
""",
    "hot": "\\set a :first + random(1, :users - 1)\n\\set b :first\n",
}
_NUMBER = "\\set i :i + 1\n"
_CALL = """SELECT fresh FROM ledger.post('{ref}' || :run || ':' || :client_id || ':' || :i,
 sha256('bench'), 'bench', '{phase}', {relates}, ARRAY[:a, {other}]::bigint[],
 ARRAY[{debit}, {credit}]::bigint[], 'bench');
"""
_POST = _CALL.format(ref="p:", phase="post", relates="'{}'", other=":b", debit="1000", credit="-1000")
_HOLD = _CALL.format(ref="h:", phase="hold", relates="'{}'", other=":outbox", debit="1010", credit="-1010")
_SETTLE = _CALL.format(
    ref="s:",
    phase="settle",
    relates="ARRAY['h:' || :run || ':' || :client_id || ':' || :i]",
    other=":channels",
    debit="1000",
    credit="-1000",
)
_RUNS = itertools.count()
_HOT_PAYER = "\\set a :first\n"
SCRIPTS = {
    "post, random": _PICK["random"] + _NUMBER + _POST,
    "post, hot": _PICK["hot"] + _NUMBER + _POST,
    "hold + settle, random": _PICK["random"] + _NUMBER + _HOLD + _SETTLE,
    "hold + settle, hot": _HOT_PAYER + _NUMBER + _HOLD + _SETTLE,
}


@dataclass(frozen=True, slots=True)
class Book:
    """A database with our books, and the accounts that the scripts use."""

    name: str
    variables: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Warm:
    """What was done while warming up, and when that ended by pgbench's own clock."""

    at_s: float = 0.0
    done: float = 0.0

    def until(self, at_s: float, rate: float) -> "Warm":
        """With one more interval, at this rate."""
        return Warm(at_s, self.done + (at_s - self.at_s) * rate)


@dataclass(frozen=True, slots=True)
class Counted:
    """What pgbench did: transactions in all, and those after the warm-up with the time that they took."""

    total: int
    done: int
    elapsed_s: float
    latency_ms: float

    def work(self, each: int = 1) -> Work:
        """The count as operations, when each transaction has `each` of them."""
        return Work(self.done * each, self.elapsed_s, self.latency_ms / each)


class Pgbench:
    """The driver. One thread serves up to 16 clients."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._program = servers.tools.postgres / "pgbench"

    @property
    def missing(self) -> str | None:
        """Why it cannot run here."""
        return None if self._program.exists() else "this PostgreSQL came without pgbench"

    async def start(self, database: str, *words: str) -> asyncio.subprocess.Process:
        """Start it on a database of this stack."""
        home = self._servers.stack.home
        environ = {**environment.inherited(), "PGPASSWORD": home.secrets()["postgres_password"], "LC_ALL": "C"}
        where = ("-h", "127.0.0.1", "-p", str(home.ports()["postgres"]), "-U", SUPERUSER)
        return await asyncio.create_subprocess_exec(
            self._program,
            *where,
            *words,
            database,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def fill(self, database: str, scale: int) -> None:
        """Make TPC-B's tables. Raises Wrong."""
        child = await self.start(database, "-i", "-q", "-s", str(scale))
        _, complained = await child.communicate()
        if child.returncode != 0:
            raise Wrong(f"pgbench failed: {complained.decode()[-400:]}")

    async def measure(self, database: str, clients: int, seconds: float, begin: Begin, *words: str) -> Counted:
        """One turn. Raises Wrong when a transaction failed.

        The first second does not count, with many clients the first two: a new connection compiles the functions and
        makes its plans, which a pool's connections did long ago.
        """
        warm_s = 1 + clients // 32
        options = ("-n", "-M", "prepared", "-c", str(clients), "-j", str(1 + clients // 17), "-P", "1")
        child = await self.start(database, *options, "-T", str(warm_s + max(1, round(seconds))), *words)
        began, warm, complained = time.monotonic(), Warm(), ""
        while child.stderr is not None and (line := (await child.stderr.readline()).decode()):
            progress = _PROGRESS.match(line)
            if progress is None:
                complained += line
            elif warm.at_s == 0 or float(progress[1]) < warm_s + 0.5:  # the interval that ends here was warming up
                warm = warm.until(float(progress[1]), float(progress[2]))
                began = time.monotonic()
                begin()
        elapsed_s = time.monotonic() - began
        said = (await child.stdout.read()).decode() if child.stdout is not None else ""
        if await child.wait() != 0 or int(_found(_FAILED, said)) != 0:
            raise Wrong(f"pgbench failed: {said} {complained[-400:]}")
        total = int(_found(_PROCESSED, said))
        return Counted(total, max(0, total - round(warm.done)), elapsed_s, float(_found(_LATENCY, said)))


class TpcB(Contestant):
    """PostgreSQL's own benchmark."""

    components = ("postgres",)

    def __init__(self, name: str, pgbench: Pgbench, servers: Servers, database: str) -> None:
        self.name, self._pgbench, self._servers, self._database = name, pgbench, servers, database

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        return (await self._pgbench.measure(self._database, clients, seconds, begin, "-b", "tpcb-like")).work()

    async def check(self) -> None:
        """Branches, tellers and history agree."""
        connection = await asyncpg.connect(self._servers.dsn(self._database))
        try:
            sums = await connection.fetchrow(
                """SELECT (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
                          (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers)"""
            )
        finally:
            await connection.close()
        if sums is None or len(set(sums)) != 1:
            raise Wrong(f"TPC-B's sums differ: {sums}")


class OnBook(Contestant):
    """Posts on one book and counts what it posted."""

    components = ("postgres",)

    def __init__(self, name: str, servers: Servers, filled: Book) -> None:
        self.name, self._servers, self._book = name, servers, filled
        self._transfers = 0

    async def check(self) -> None:
        """As many transfers as were counted, and balances that equal the entries, to the millisatoshi."""
        if (found := await self._count()) != self._transfers:
            raise Wrong(f"{self.name}: {found} transfers in the books, {self._transfers} were posted")
        differing = await self._ask(
            """SELECT count(*) FROM ledger.balances b JOIN
                   (SELECT account_id, sum(amount) FILTER (WHERE layer = 0) AS settled,
                           coalesce(sum(amount) FILTER (WHERE layer = 1), 0) AS held
                      FROM ledger.entries GROUP BY 1) e USING (account_id)
                WHERE (b.settled, b.held_dr - b.held_cr) IS DISTINCT FROM (e.settled, e.held)"""
        )
        if differing:
            raise Wrong(f"{self.name}: {differing} balances differ from their entries")

    async def _count(self) -> int:
        return await self._ask("SELECT count(*) FROM ledger.transfers")

    async def _ask(self, query: str) -> int:
        connection = await asyncpg.connect(self._servers.dsn(self._book.name))
        try:
            return int(await connection.fetchval(query))
        finally:
            await connection.close()


class Posting(OnBook):
    """One of the scripts above."""

    def __init__(self, name: str, pgbench: Pgbench, servers: Servers, filled: Book, script: str) -> None:
        super().__init__(name, servers, filled)
        self._pgbench, self._script = pgbench, SCRIPTS[script]
        self._each = self._script.count("ledger.post")
        self._file = servers.stack.home.folder / f"{re.sub('[^a-z]+', '-', f'{filled.name} {name}')}.sql"

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        await asyncio.to_thread(self._file.write_text, self._script)
        variables = {**self._book.variables, "i": 0, "run": next(_RUNS)}
        words = [word for name, value in variables.items() for word in ("-D", f"{name}={value}")]
        self._transfers = await self._count()
        file = ("-f", str(self._file))
        counted = await self._pgbench.measure(self._book.name, clients, seconds, begin, *file, *words)
        self._transfers += counted.total * self._each
        return counted.work(self._each)


class Batched(OnBook):
    """`post_batch` from Python, in transactions of their own."""

    def __init__(self, name: str, servers: Servers, filled: Book, post_batch: PostBatch, *, hot: bool) -> None:
        super().__init__(name, servers, filled)
        self._post_batch, self._hot = post_batch, hot

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        self._transfers = await self._count()
        pool = await open_pool(self._servers.dsn(self._book.name), min_size=clients, max_size=clients)

        async def operation(_client: int) -> None:
            async with transaction(pool) as conn:
                await self._post_batch(conn, [self._posting() for _ in range(BATCH)])

        try:
            for _ in range(3):
                await asyncio.gather(*(operation(number) for number in range(clients)))
            begin()
            work = await keep_asking(operation, clients, seconds)
        finally:
            await pool.close()
        self._transfers += (work.done + 3 * clients) * BATCH
        return Work(work.done * BATCH, work.elapsed_s, work.latency_ms)

    def _posting(self) -> book.Posting:
        first, users = self._book.variables["first"], self._book.variables["users"]
        payer, payee = random.sample(range(first, first + users), 2)
        if self._hot:
            payer, payee = random.randrange(first + 1, first + users), first
        legs = [book.debit(payer, 1000), book.credit(payee, 1000)]
        return book.Posting(ref=f"b:{next(_RUNS)}", template="bench", phase="post", actor="bench", legs=legs)


async def prepare_book(servers: Servers, name: str, users: int = USERS) -> Book:
    """A new book with funded users."""
    await servers.have_books(name)
    connection = await asyncpg.connect(servers.dsn(name))
    try:
        first = await connection.fetchval(
            """SELECT min(ledger.open_account('liab:user:bench_' || n, 'liability', 'BTC', 0, 'locked'))
                 FROM generate_series(1, $1::int) n""",
            users,
        )
        channels = await connection.fetchval(
            "SELECT ledger.open_account('asset:lnd:bench:channels', 'asset', 'BTC', NULL, 'append')"
        )
        outbox = await connection.fetchval("SELECT id FROM ledger.accounts WHERE code = 'liab:outbox'")
        last = await connection.fetchval("SELECT max(account_id) FROM ledger.balances")
        if last - first + 1 != users:
            raise Wrong("the accounts of the bench's users do not follow each other")
        await connection.execute(
            """SELECT ledger.post('fund:' || n, sha256('bench'), 'bench', 'post', '{}', ARRAY[$1::bigint, n],
                                  ARRAY[$2::bigint, -$2::bigint], 'bench')
                 FROM generate_series($3::bigint, $4::bigint) n""",
            channels,
            FUNDS_MSAT,
            first,
            last,
        )
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
    return Book(name, {"first": first, "users": users, "channels": channels, "outbox": outbox})


async def prepare(servers: Servers) -> Contest:
    """The contest, with its databases filled."""
    pgbench = Pgbench(servers)
    if pgbench.missing:
        return Contest(TITLE, "transfers/s", [(TPCB, pgbench.missing)])
    for database, scale in (("bench_tpcb", SCALE), ("bench_tpcb_hot", 1)):
        await servers.have_database(database)
        await pgbench.fill(database, scale)
    made = await prepare_book(servers, "bench_books")
    postings = [Posting(name, pgbench, servers, made, name) for name in SCRIPTS]
    goals = [Goal(name, TPCB, at_least=0.5) for name in SCRIPTS]
    goals += [Goal(name, TPCB, at_least=2.0) for name in BATCHES]
    beside = [TpcB(TPCB, pgbench, servers, "bench_tpcb"), TpcB(TPCB_HOT, pgbench, servers, "bench_tpcb_hot")]
    contestants = [*beside, *postings, *_batches(servers, made)]
    return Contest(TITLE, "transfers/s", contestants, goals)


def _batches(servers: Servers, made: Book) -> Sequence[Contestant | tuple[str, str]]:
    post_batch: PostBatch | None = getattr(store, "post_batch_in_tx", None)
    if post_batch is None:
        return [(name, NOT_BUILT) for name in BATCHES]
    return [Batched(name, servers, made, post_batch, hot=name.endswith("hot")) for name in BATCHES]


async def prove(servers: Servers, database: str = "bench_books") -> None:
    """Every rule of the books, over all that was posted. Raises Wrong."""
    connection = await asyncpg.connect(servers.dsn(database))
    try:
        broken = await checks.find_broken_rules(connection)
    finally:
        await connection.close()
    if broken:
        raise Wrong("; ".join(broken))


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    if match is None:
        raise Wrong(f"pgbench said something new: {text}")
    return match[1]
