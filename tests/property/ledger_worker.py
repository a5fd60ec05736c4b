"""A process of its own that posts: several connections, several tasks, answers by pipe. One test kills it."""

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any

from engine.domain.errors import EngineError
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import Pool, open_pool, transaction
from engine.ledger.store import open_account_in_tx, post_in_tx
from tests.property.ledger_model import Op, posting_of

USERS = 3
TASKS = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one operation."""

    op: Op
    outcome: str
    transfer_id: int | None


class Worker:
    """The parent's end: one call at a time, or `send` to several and then `receive` from each."""

    def __init__(self, dsn: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self.process = context.Process(target=_serve, args=(dsn, far), daemon=True)
        self.process.start()
        far.close()

    def send(self, request: str, *arguments: object) -> None:
        self._pipe.send((request, arguments))

    def receive(self) -> Any:
        if not self._pipe.poll(60):
            raise TimeoutError("the worker process does not answer")
        answer = self._pipe.recv()
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
    requests: dict[str, Callable[..., Awaitable[object]]] = {"open": _open, "post": _post, "check": _check}
    while True:
        try:
            request, arguments = await asyncio.to_thread(pipe.recv)
        except EOFError:
            break
        try:
            pipe.send(await requests[request](pool, *arguments))
        except Exception as error:  # noqa: BLE001 - the parent raises it
            pipe.send(RuntimeError(repr(error)))
    await pool.close()


async def _open(pool: Pool, run: str) -> dict[str, int]:
    async with transaction(pool) as conn:
        ids = {
            "outside": await open_account_in_tx(conn, "asset:outside", "asset", mode="append"),
            "outbox": await open_account_in_tx(conn, "liab:outbox", "liability", mode="append"),
            "income": await open_account_in_tx(conn, "income:fees", "income", mode="append"),
        }
        for n in range(USERS):
            ids[f"user{n}"] = await open_account_in_tx(conn, f"liab:user:{run}-{n}", "liability", floor=0)
    return ids


async def _post(pool: Pool, run: str, ids: dict[str, int], ops: Sequence[Op], tasks: int) -> list[Answer]:
    waiting = iter(ops)
    answers: list[Answer] = []

    async def work() -> None:
        for op in waiting:
            try:
                async with transaction(pool) as conn:
                    posted = await post_in_tx(conn, posting_of(op, run, ids))
                answers.append(Answer(op, "fresh" if posted.fresh else "repeat", posted.transfer_id))
            except EngineError as error:
                answers.append(Answer(op, error.code, None))

    await asyncio.gather(*(work() for _ in range(tasks)))
    return answers


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
