"""The connection to Postgres: a bounded pool, one transaction at a time, and errors of our own types.

What an error means for the money depends on when it comes. Before COMMIT was sent, nothing has happened, whatever
broke: `Unavailable`, and the same call may be repeated. During COMMIT nobody knows: `OutcomeUnknown`. Then ask by
reference, or post the same again, which is safe and returns the first answer.

A lost connection shows in many ways: a class of SQLSTATE, a complaint of the driver about its own state, an error of
the socket or of TLS. The code does not read messages. Whatever a connection raises that is neither an answer of
Postgres nor about an argument means that the connection is lost. `Line` closes it at once, so the pool never gives it
out again.
"""

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import asyncpg
import orjson

from engine.domain.errors import Conflict, EngineError, InvariantBroken, OutcomeUnknown, Refused, Unavailable

_RULES: dict[str, tuple[type[EngineError], str]] = {
    "LD001": (InvariantBroken, "posting_malformed"),
    "LD002": (InvariantBroken, "posting_exceeds_target"),
    "LD402": (Refused, "insufficient_funds"),
    "LD403": (Refused, "account_locked"),
    "LD404": (InvariantBroken, "ledger_target_missing"),
    "LD405": (InvariantBroken, "append_only"),
    "LD406": (Unavailable, "ledger_unavailable"),
    "LD409": (Conflict, "reference_conflict"),
    "LD410": (Conflict, "hold_already_resolved"),
    "LD411": (Refused, "hold_expired"),
    "LD412": (Refused, "hold_not_due"),
    "LD413": (Conflict, "already_reversed"),
    "LD423": (Refused, "account_closed"),
    "LD424": (Refused, "account_not_empty"),
    "LD429": (Refused, "limit_exceeded"),
}
"""The SQLSTATEs that `engine/ledger/sql/post.sql` lists. The detail of the first that applies comes along as fields."""

_TRY_AGAIN = ("08", "40", "53", "55", "57", "58", "25006", "25P03", "25P04")
"""Classes of SQLSTATE after which the transaction can be made anew: lost, raced, full, locked, shut down."""
_GONE = ("08", "57P", "25006", "25P03", "25P04")
"""After these Postgres has ended the session, or the session is at a server that takes no writes (a failover)."""
_ROLLED_BACK = "40"
"""The class that says that a COMMIT was not made, except 40003, "statement completion unknown"."""

_FAILURES = (
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(OSError, TimeoutError),
)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Reader: TypeAlias = "Connection | Pool"
"""A read of one statement takes a connection or a pool."""
if TYPE_CHECKING:
    _DriversConnection: TypeAlias = asyncpg.Connection[asyncpg.Record]
    _DriversPool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    _DriversConnection = asyncpg.Connection
    _DriversPool = asyncpg.Pool

_ACQUIRE_S = 10
"""How long a caller waits for a connection while all are in use."""


async def open_pool(dsn: str, *, min_size: int = 1, max_size: int = 10, command_timeout_s: int = 15) -> Pool:
    """Connect. No statement runs longer than `command_timeout_s`. Raises Unavailable when there is no Postgres."""
    with translated():
        return await _BoundedPool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            command_timeout=command_timeout_s,
            timeout=10,
            max_queries=50_000,
            max_inactive_connection_lifetime=300,
            statement_cache_size=200,
            loop=None,
            connect=_connect,
            connection_class=Line,
            record_class=asyncpg.Record,
            init=_prepare_connection,
            reset=_leave_as_it_is,
            server_settings={
                "application_name": "millrace",
                "idle_in_transaction_session_timeout": "60s",
                "default_transaction_isolation": "read committed",
            },
        )


class _BoundedPool(_DriversPool):
    """A pool with a timeout for a free connection. asyncpg's own statements (`pool.fetchrow`) would wait for ever."""

    def acquire(self, *, timeout: Any = None) -> Any:  # noqa: ANN401 - asyncpg's own
        """As asyncpg's. Raises TimeoutError."""
        return super().acquire(timeout=_ACQUIRE_S if timeout is None else timeout)


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """One READ COMMITTED transaction: committed when the block ends, rolled back when it raises.

    Raises Unavailable when the connection fails before COMMIT (nothing happened) and OutcomeUnknown when it fails
    during COMMIT (look by reference, or repeat the same content). To go on after a refusal, put the refused call into
    a savepoint: `async with conn.transaction(): await post_in_tx(conn, …)`, and catch the error outside of it.
    """
    async with _opened(pool, "read_committed") as conn:
        yield conn


@asynccontextmanager
async def borrowed(pool: Pool, *, timeout_s: int | None = None) -> AsyncIterator[Connection]:
    """A connection for single statements, each committed by itself: for reads, and for writes that may be repeated.

    Raises Unavailable when there is none in time, or when it fails.
    """
    with translated():
        conn = await pool.acquire(timeout=timeout_s)
    try:
        with translated():
            yield conn
    finally:
        await _give_back(pool, conn)


async def answers(pool: Pool) -> bool:
    """Whether Postgres answers. Raises Unavailable when it does not."""
    with translated():
        return bool(await pool.fetchval("SELECT true"))


@asynccontextmanager
async def snapshot(pool: Pool) -> AsyncIterator[Connection]:
    """One REPEATABLE READ transaction for reads: all its statements see the books of one moment. Raises Unavailable."""
    async with _opened(pool, "repeatable_read", readonly=True) as conn:
        yield conn


@asynccontextmanager
async def _opened(
    pool: Pool, isolation: Literal["read_committed", "repeatable_read"], *, readonly: bool = False
) -> AsyncIterator[Connection]:
    with translated():
        conn = await pool.acquire()
    try:
        running = conn.transaction(isolation=isolation, readonly=readonly)
        with translated():
            await running.start()
        try:
            with translated():
                yield conn
        except BaseException:
            with suppress(Exception):  # a transaction that cannot be rolled back ends with its connection: _give_back
                await running.rollback()
            raise
        with translated(committing=not readonly):
            await running.commit()
    finally:
        await _give_back(pool, conn)


async def _give_back(pool: Pool, conn: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
    """A failure from here on changes nothing: the answer to COMMIT, ROLLBACK or the last statement has arrived.

    The pool closes a connection that it cannot roll back, and drops one that is closed.
    """
    with suppress(Exception):
        await pool.release(conn)


class Line(_DriversConnection):
    """A connection that closes itself as soon as it fails in any other way than by an answer of Postgres.

    After a FATAL message, for example, asyncpg takes the next statement and finds its own state unfit ("cannot switch
    to state …; another operation … is in progress"). Statements raise ConnectionDoesNotExistError for all of that.
    """

    async def execute(self, query: str, *args: object, **more: Any) -> str:  # noqa: ANN401 - the limit of time
        """As asyncpg's."""
        with _kept_whole(self):
            return await super().execute(query, *args, **more)

    async def executemany(self, command: str, args: Iterable[Sequence[object]], **more: Any) -> None:  # noqa: ANN401
        """As asyncpg's."""
        with _kept_whole(self):
            await super().executemany(command, args, **more)

    async def fetch(self, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - asyncpg's has overloads by record class
        """As asyncpg's."""
        with _kept_whole(self):
            return await super().fetch(*args, **more)

    async def fetchrow(self, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - as above
        """As asyncpg's."""
        with _kept_whole(self):
            return await super().fetchrow(*args, **more)

    async def fetchval(self, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - any value
        """As asyncpg's."""
        with _kept_whole(self):
            return await super().fetchval(*args, **more)


@contextmanager
def _kept_whole(line: Line) -> Iterator[None]:
    """Closes the connection unless it is known to be good, and raises one error for all such failures."""
    try:
        yield
    except asyncpg.PostgresError as answer:
        if (answer.sqlstate or "").startswith(_GONE):
            line.terminate()
        raise
    except TimeoutError:  # the driver cancels a statement that takes too long, or closes the connection
        raise
    except Exception as error:
        if isinstance(error, asyncpg.InterfaceError) and not line.is_closed():
            raise  # the caller's mistake: the connection is as good as before
        line.terminate()
        raise asyncpg.ConnectionDoesNotExistError(f"the connection was lost: {error!r}") from error


async def _connect(*args: Any, **more: Any) -> Any:  # noqa: ANN401 - what the pool hands on
    """One error for every refusal of the server, of TLS or of name resolution."""
    try:
        return await asyncpg.connect(*args, **more)
    except Exception as error:
        raise asyncpg.ClientCannotConnectError(f"there is no connection: {error!r}") from error


async def change_one(conn: Connection, query: str, *args: object) -> None:
    """Run a statement that changes one row. Raises InvariantBroken when it has changed none, or more than one."""
    await change_rows(conn, 1, query, *args)


async def change_rows(conn: Connection, count: int, query: str, *args: object) -> None:
    """Run a statement that changes `count` rows. Raises InvariantBroken when it has changed another number."""
    with translated():
        said = await conn.execute(query, *args)
    if said.split()[-1] != str(count):
        raise InvariantBroken(f"{count} rows were to be changed, and Postgres says {said}: {' '.join(query.split())}")


async def change_any(conn: Connection, query: str, *args: object) -> None:
    """Run a statement that changes any number of rows; a repeat may change none."""
    with translated():
        await conn.execute(query, *args)


@contextmanager
def translated(*, committing: bool = False) -> Iterator[None]:
    """Turn what the driver raises into the engine's errors; other exceptions pass."""
    try:
        yield
    except _FAILURES as error:
        raise translate(error, committing=committing) from error


def translate(error: Exception, *, committing: bool = False) -> EngineError:
    """The one mapping of SQLSTATEs and lost connections to our own errors."""
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):  # asyncpg's own DataError
        return InvariantBroken(f"no argument that Postgres can take: {error}")
    if not isinstance(error, asyncpg.PostgresError) or isinstance(error, asyncpg.InvalidCachedStatementError):
        return _lost(error, committing=committing)
    state = error.sqlstate or ""
    if state in _RULES:
        return ruled(state, str(error.args[0]), error.detail)
    if state == "23514" and error.constraint_name == "above_floor":
        return Refused("an account would fall below its floor", code="insufficient_funds")
    if state.startswith(_TRY_AGAIN):
        is_certain = state.startswith(_ROLLED_BACK) and state != "40003"
        return _lost(error, committing=committing and not is_certain)
    return InvariantBroken(f"Postgres refused what the engine asked: {error.args[0]}", sqlstate=state)


def ruled(state: str, message: str, detail: str | None) -> EngineError:
    """The engine's error for a rule of the ledger: raised, or returned as the verdict on one posting of many."""
    if state not in _RULES:
        return InvariantBroken(f"Postgres refused what the engine asked: {message}", sqlstate=state)
    kind, code = _RULES[state]
    return kind(message, code=code, **_fields(detail))


def _lost(error: Exception, *, committing: bool) -> EngineError:
    if committing:
        return OutcomeUnknown(f"the connection failed during COMMIT: {error!r}")
    return Unavailable(f"Postgres did not take it, nothing was booked: {error!r}", code="ledger_unavailable")


def _fields(detail: str | None) -> dict[str, Any]:
    try:
        fields = json.loads(detail or "{}")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


async def _leave_as_it_is(_connection: Connection) -> None:
    """Skip asyncpg's RESET ALL and its kin: they cost a query each time, and no state outlives its transaction.

    The driver has rolled back any open transaction. Tests ensure the rest: settings are `SET LOCAL` or belong to a
    function, advisory locks belong to a transaction, and no code uses LISTEN here.
    """


async def _prepare_connection(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda raw: orjson.loads(raw[1:]),
    )
