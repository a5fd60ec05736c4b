"""Ten times the history and ten times the accounts: does it become slower?

The books are compared in turns, a small one and a large one on the same server. Payments over HTTP are measured before
and after the bank has grown, because a stack has one bank; LNbits grows by the same factor, so that a machine that
became slower meanwhile is seen.
"""

import asyncpg

from infra.bench import books
from infra.bench.contest import Contest, Contestant, Wrong
from infra.bench.figures import Goal
from infra.bench.lnbits import DATABASE as LNBITS_DATABASE
from infra.bench.lnbits import Lnbits
from infra.bench.pairs import LNBITS, PAIR, Pairs
from infra.bench.people import People
from infra.bench.servers import OURS, Servers
from infra.local import environment

FACTOR = 10
BOOK_USERS, BOOK_TRANSFERS = 500, 2000
ACCOUNTS = 200
"""What the bank has before it grows."""
STEP = 1000
GROWN = ", 10× history"
SMALL, LARGE = "post", "post, 10× history and accounts"

_POST_MANY = """
SELECT count(ledger.post('old:' || n, sha256('bench'), 'bench', 'post', '{}', ARRAY[a, b], ARRAY[1000, -1000], 'bench'))
  FROM (SELECT n, $1::bigint + (n * 7919) % $2::bigint AS a, $1::bigint + (n * 7919 + 1 + n % 13) % $2::bigint AS b
          FROM generate_series($3::bigint, $4::bigint) n) made"""

_OPEN_MANY = """
WITH made AS (SELECT n, ledger.open_account('liab:user:wal_old' || n, 'liability', 'BTC', 0, 'locked') AS book
                FROM generate_series($1::int, $2::int) n),
     account AS (INSERT INTO bank.accounts (id, username) SELECT 'acct_old' || n, 'old_' || n FROM made RETURNING id)
INSERT INTO bank.wallets (id, account_id, currency, ledger_account_id)
SELECT 'wal_old' || n, 'acct_old' || n, 'BTC', book FROM made"""

_PAY_MANY = """
WITH users AS (SELECT row_number() OVER (ORDER BY id) - 1 AS place, id, account_id, ledger_account_id AS book
                 FROM bank.wallets WHERE id = ANY ($1)),
     made AS (SELECT n, payer.id AS payer, payer.book AS from_book, payee.id AS payee, payee.book AS to_book
                FROM generate_series($2::int, $3::int) n
                JOIN users payer ON payer.place = (n / 2) % cardinality($1)
                JOIN users payee ON payee.place = ((n / 2) % cardinality($1) + 1) % cardinality($1)),
     turned AS (SELECT n, CASE n % 2 WHEN 0 THEN payer ELSE payee END AS payer,
                       CASE n % 2 WHEN 0 THEN payee ELSE payer END AS payee,
                       CASE n % 2 WHEN 0 THEN from_book ELSE to_book END AS from_book,
                       CASE n % 2 WHEN 0 THEN to_book ELSE from_book END AS to_book FROM made),
     booked AS (SELECT t.*, ledger.post('pay:pay_old' || n, sha256('bench'), 'paid_internally', 'post', '{}',
                            ARRAY[from_book, to_book], ARRAY[1000, -1000], 'payment') FROM turned t)
INSERT INTO bank.payments (id, account_id, wallet_id, kind, status, destination, amount_msat, max_fee_msat,
                           payee_wallet_id, workflow_id, settled_at)
SELECT 'pay_old' || n, w.account_id, payer, 'internal', 'settled', 'wallet:' || payee, 1000, 0, payee, 'old-' || n,
       clock_timestamp()
  FROM booked JOIN bank.wallets w ON w.id = payer"""


async def prepare_books(servers: Servers) -> Contest:
    """A small and a large book."""
    pgbench = books.Pgbench(servers)
    if pgbench.missing:
        return Contest("history of the ledger", "transfers/s", [(SMALL, pgbench.missing)])
    contestants: list[Contestant | tuple[str, str]] = []
    for name, title, factor in (("bench_small", SMALL, 1), ("bench_large", LARGE, FACTOR)):
        book = await books.prepare_book(servers, name, BOOK_USERS * factor)
        accounts = (book.variables["first"], BOOK_USERS * factor)
        await _run_in_steps(servers, name, _POST_MANY, *accounts, first=0, last=BOOK_TRANSFERS * factor)
        await _run(servers, name, "VACUUM ANALYZE")
        contestants.append(books.Posting(title, pgbench, servers, book, "post, random"))
    return Contest("history of the ledger", "transfers/s", contestants, [Goal(LARGE, SMALL, at_least=0.9)])


class Growth:
    """Our bank and LNbits, before and after."""

    def __init__(self, servers: Servers, people: People, lnbits: Lnbits | tuple[str, str], payments: int) -> None:
        """`payments` is what each has before it grows; an even number, because they go there and back."""
        self._servers, self._people, self._lnbits, self._payments = servers, people, lnbits, payments

    def contest(self, suffix: str = "") -> Contest:
        """Pairs at both, under names that say when."""
        port = self._servers.stack.home.ports()["api-1"]
        ours = Pairs(PAIR + suffix, self._people, port, OURS)
        if isinstance(self._lnbits, Lnbits):
            self._lnbits.name = LNBITS + suffix
        goals = [Goal(PAIR + GROWN, PAIR, at_least=0.9), Goal(PAIR + GROWN, PAIR, "cpu", at_most=1.1)]
        goals += [Goal(LNBITS + GROWN, LNBITS), Goal(LNBITS + GROWN, LNBITS, "cpu")]
        return Contest("history of payments", "operations/s", [ours, self._lnbits], goals)

    async def fill(self, factor: int) -> None:
        """Give both this many times the history, and our bank this many times the accounts. Raises Wrong."""
        before = 0 if factor == 1 else 1
        main = environment.DATABASE
        wallets = [person.wallet_id for person in self._people.everybody]
        await _run_in_steps(self._servers, main, _OPEN_MANY, first=before * ACCOUNTS, last=factor * ACCOUNTS)
        first, last = before * self._payments, factor * self._payments
        await _run_in_steps(self._servers, main, _PAY_MANY, wallets, first=first, last=last)
        await _run(self._servers, main, "VACUUM ANALYZE")
        await self._people.check()
        if isinstance(self._lnbits, Lnbits):
            await self._lnbits.grow(first, last)
            await _run(self._servers, LNBITS_DATABASE, "VACUUM ANALYZE")
            await self._lnbits.check()


async def _run_in_steps(
    servers: Servers, database: str, statement: str, *arguments: object, first: int, last: int
) -> None:
    """Commit in steps: a balance row that changes often inside one transaction becomes a long chain of versions."""
    for begin in range(first, last, STEP):
        await _run(servers, database, statement, *arguments, begin, min(begin + STEP, last) - 1)


async def _run(servers: Servers, database: str, statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(servers.dsn(database))
    try:
        await connection.execute(statement, *arguments)
    except asyncpg.PostgresError as error:
        raise Wrong(f"{database} could not be filled: {error}") from error
    finally:
        await connection.close()
