"""A process of its own that posts: several connections, several tasks, answers by pipe. One test kills it."""

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any, TypeAlias

from engine.domain.errors import EngineError, Unavailable
from engine.ledger.account import open_account_in_tx
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import Pool, open_pool, transaction
from engine.ledger.store import Posted, post_batch_in_tx, post_in_tx
from tests.helpers.ledger.model import Op, posting_of

USERS = 3
FROZEN, CLOSED = 3, 4
"""Two users more: one may only receive, the other has left."""
TASKS = 3
Call: TypeAlias = "Op | tuple[Op, ...]"
"""One operation by itself, or a batch."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one operation."""

    op: Op
    outcome: str
    transfer_id: int | None


class Worker:
    """The parent's end: one call at a time, or `send` to several and then `receive` from each.

    Requests are numbered. An answer that nobody received, because its test ended early, is not taken for a later one.
    """

    def __init__(self, dsn: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._sent = 0
        self.process = context.Process(target=_serve, args=(dsn, far), daemon=True)
        self.process.start()
        far.close()

    def send(self, request: str, *arguments: object) -> None:
        self._sent += 1
        self._pipe.send((self._sent, request, arguments))

    def receive(self) -> Any:
        number = 0
        while number < self._sent:
            if not self._pipe.poll(60):
                raise TimeoutError("the worker process does not answer")
            number, answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def call(self, request: str, *arguments: object) -> Any:
        self.send(request, *arguments)
        return self.receive()

    def close(self) -> None:
        self._pipe.close()
        self.process.join(10)
        self.process.kill()
        self.process.join()
        self.process.close()


def _serve(dsn: str, pipe: Pipe) -> None:
    asyncio.run(_answer_requests(dsn, pipe))


async def _answer_requests(dsn: str, pipe: Pipe) -> None:
    pool = await open_pool(dsn, max_size=TASKS)
    requests: dict[str, Callable[..., Awaitable[object]]] = {
        "open": _open,
        "post": _post,
        "check": _check,
        "tell": _tell,
    }
    while True:
        try:
            number, request, arguments = await asyncio.to_thread(pipe.recv)
        except EOFError:
            break
        try:
            pipe.send((number, await requests[request](pool, *arguments)))
        except Exception as error:  # noqa: BLE001 - the parent raises it
            pipe.send((number, RuntimeError(repr(error))))
    await pool.close()


async def _open(pool: Pool, run: str) -> dict[str, int]:
    async with transaction(pool) as conn:
        ids = {
            "outside": await open_account_in_tx(conn, "asset:outside", "asset", mode="append"),
            "outbox": await open_account_in_tx(conn, "liab:outbox", "liability", mode="append"),
            "income": await open_account_in_tx(conn, "income:fees", "income", mode="append"),
            "dollars": await open_account_in_tx(conn, "income:dollars", "income", "USD", mode="append"),
        }
        for n in (*range(USERS), FROZEN, CLOSED):
            ids[f"user{n}"] = await open_account_in_tx(conn, f"liab:user:{run}-{n}", "liability", floor=0)
        await conn.execute("SELECT ledger.set_frozen($1, true)", ids[f"user{FROZEN}"])
        await conn.execute("SELECT ledger.close_account($1)", ids[f"user{CLOSED}"])
    return ids


async def _post(pool: Pool, run: str, ids: dict[str, int], calls: Sequence[Call], tasks: int) -> list[Answer]:
    waiting = iter(calls)
    answers: list[Answer] = []

    async def work() -> None:
        for call in waiting:
            answers.extend(await _make(pool, run, ids, call))

    await asyncio.gather(*(work() for _ in range(tasks)))
    return answers


async def _make(pool: Pool, run: str, ids: dict[str, int], call: Call) -> list[Answer]:
    """Who loses a deadlock makes the transaction anew: batches and single posts may cross in their references."""
    ops = call if isinstance(call, tuple) else (call,)
    postings = [posting_of(op, run, ids) for op in ops]
    found: Sequence[Posted | EngineError]
    while True:
        try:
            async with transaction(pool) as conn:
                if isinstance(call, tuple):
                    found = await post_batch_in_tx(conn, postings)
                else:
                    found = [await post_in_tx(conn, postings[0])]
        except Unavailable as error:
            if "deadlock" in error.detail:
                continue
            found = [error] * len(ops)
        except EngineError as error:
            found = [error] * len(ops)
        return [_answer(op, each) for op, each in zip(ops, found, strict=True)]


def _answer(op: Op, found: Posted | EngineError) -> Answer:
    if isinstance(found, EngineError):
        return Answer(op, found.code, None)
    return Answer(op, "fresh" if found.fresh else "repeat", found.transfer_id)


History = tuple[tuple[int, ...], list[tuple[int, ...]], list[tuple[str, int, int]]]


async def _tell(pool: Pool, run: str, ids: dict[str, int]) -> tuple[dict[str, History], dict[str, list[str]]]:
    """All that is written: per user the balance row, entries and counters; per reference what its transfer says."""
    told: dict[str, History] = {}
    async with pool.acquire() as conn:
        for name, account in ids.items():
            if name.startswith("user"):
                row = await conn.fetchrow(
                    "SELECT settled, held_dr, held_cr, version FROM ledger.balances WHERE account_id = $1", account
                )
                entries = await conn.fetch(
                    "SELECT layer, amount, balance_after, version FROM ledger.entries WHERE account_id = $1 "
                    "ORDER BY version, layer",
                    account,
                )
                counted = await conn.fetch(
                    "SELECT kind, window_s, sum(amount)::bigint FROM ledger.counters WHERE account_id = $1 "
                    "GROUP BY 1, 2 HAVING sum(amount) > 0 ORDER BY 1, 2",
                    account,
                )
                assert row is not None
                told[name] = (tuple(row), [tuple(each) for each in entries], [tuple(each) for each in counted])
        names = {account: name for name, account in ids.items()}
        legs = await conn.fetch(
            """SELECT t.external_ref, t.phase, t.template, t.expires_at, t.count_kinds, t.count_amounts,
                      t.counts_account_id, e.account_id, e.amount
                 FROM ledger.transfers t JOIN ledger.entries e ON e.transfer_id = t.id
                WHERE t.external_ref LIKE $1 ORDER BY 1, e.account_id""",
            f"{run}:%",
        )
    transfers: dict[str, list[str]] = {}
    for leg in legs:
        facts = [str(each) for each in list(leg.values())[1:6]]
        who = [names.get(leg["counts_account_id"], ""), names[leg["account_id"]], str(leg["amount"])]
        transfers.setdefault(leg["external_ref"].partition(":")[2], []).append(" ".join([*facts, *who]))
    return told, transfers


Counters = dict[tuple[int, str, int], int]


async def _check(pool: Pool, ids: dict[str, int]) -> tuple[list[str], dict[int, tuple[int, int]], Counters]:
    """The broken rules; per user account settled and held (debit +); what each kind counts per window."""
    users = [account_id for name, account_id in ids.items() if name.startswith("user")]
    query = "SELECT account_id, settled, held_dr - held_cr AS held FROM ledger.balances WHERE account_id = ANY ($1)"
    async with pool.acquire() as conn:
        broken = await find_broken_rules(conn)
        balances = {row["account_id"]: (row["settled"], row["held"]) for row in await conn.fetch(query, users)}
        counted = await conn.fetch(
            "SELECT account_id, kind, window_s, sum(amount)::bigint FROM ledger.counters WHERE account_id = ANY ($1) "
            "GROUP BY 1, 2, 3",
            users,
        )
    return broken, balances, {tuple(row)[:3]: row[3] for row in counted}
