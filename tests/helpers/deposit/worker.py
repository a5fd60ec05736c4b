"""A worker process for deposits alone: the real activities and workflows, no Lightning nodes, and quicker to start.

It is forked from a process that has loaded everything, so a test may kill it as often as it likes. Its waits are
shorter than a real worker's, by `_hurry`; nothing else differs. It can die of itself at a chosen point:

    record before commit    the pump has written a deposit, and nobody will see it
    record after commit     facts are there, nobody was woken
    wake before start       a step is due, and its workflow has not heard of it
    wake after start        the workflow runs, the pump does not know it
    advance before commit   the step is posted, and nobody will see it
    advance after commit    the step is booked, Temporal does not know it
    decide before commit    an approved decision is posted, and nobody will see it
    decide after commit     it is carried out, and nobody was told
    form before commit      members, coins and plan of a payout are chosen, and nobody will see it
    form after commit       the payout is there, nobody was told
    draft, sign, sent and book: the same of the later steps of a payout
    send before call        its bytes are stored, the node has not heard of them
    send after call         the node has them, the books do not know it
"""

import asyncio
import ctypes
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from temporalio.service import RPCError

import worker
from activities import batcher, bootstrap, heartbeat
from activities.chain import chain as pump
from activities.chain import pool as keeping
from activities.chain import recording, wake
from activities.chain.registry import Onchain
from activities.deposit import decision, deposit
from activities.payout import booking, draft, send, sign, story
from engine.clients.announcements import Announcer
from engine.clients.bitcoind.rpc import Rpc
from engine.clients.bitcoind.spending import Spending
from engine.contracts import queues
from engine.domain.errors import EngineError
from engine.ledger.database import Connection, Pool, transaction
from engine.settings import WorkerSettings
from workflows import policies, streams

Point = Literal[
    "record before commit",
    "record after commit",
    "wake before start",
    "wake after start",
    "advance before commit",
    "advance after commit",
    "decide before commit",
    "decide after commit",
    "form before commit",
    "form after commit",
    "draft before commit",
    "draft after commit",
    "sign before commit",
    "sign after commit",
    "send before call",
    "send after call",
    "sent before commit",
    "sent after commit",
    "book before commit",
    "book after commit",
]
_OF_PAYOUTS: tuple[tuple[Any, Point, Point], ...] = (
    (batcher, "form before commit", "form after commit"),
    (draft, "draft before commit", "draft after commit"),
    (sign, "sign before commit", "sign after commit"),
    (send, "sent before commit", "sent after commit"),
    (booking, "book before commit", "book after commit"),
)
_DEATH_SIGNAL = 1
_LONG_S = 120
_WRITES_A_DEPOSIT = "SELECT EXISTS(SELECT FROM bank.deposits WHERE xmin = pg_current_xact_id()::xid)"
_WRITES_A_PAYOUT = """SELECT EXISTS(SELECT FROM bank.payouts WHERE xmin = pg_current_xact_id()::xid)
                           OR EXISTS(SELECT FROM bank.payout_versions WHERE xmin = pg_current_xact_id()::xid)"""


@dataclass(frozen=True)
class Told:
    """What a process is told. `crash` is a file that names the point where it is to die."""

    settings: Mapping[str, str]
    crash: Path
    log: Path
    rpc_limit_s: float = 3
    """A call of bitcoind may take so long; a rescan may take its time."""


def run(told: Told) -> None:
    """The whole life of the process."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    with told.log.open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    os.environ.update(told.settings)
    _hurry(told.rpc_limit_s)
    _plan_crash(told.crash)
    asyncio.run(_work(WorkerSettings()))


async def _work(settings: WorkerSettings) -> None:
    pool, client = await worker._connect(settings, [])
    announcer = Announcer(settings.redis_url.get_secret_value())
    workers = [
        worker._payments_worker(client, pool, [], announcer, settings),
        worker._onchain_worker(client, pool, Onchain(settings)),
    ]
    async with asyncio.TaskGroup() as tasks:
        for each in workers:
            tasks.create_task(each.run())
        while True:
            try:
                await bootstrap.ensure_standing(client, pool, [], settings.hot_wallet)
            except (RPCError, EngineError) as away:
                print("cannot check what must exist:", away, flush=True)  # noqa: T201 - to the log
            await asyncio.sleep(1)


def _hurry(rpc_limit_s: float) -> None:
    policies.PUMP["heartbeat_timeout"] = timedelta(seconds=1.5)
    policies.NODE["start_to_close_timeout"] = timedelta(seconds=4)
    replace(heartbeat, "_EVERY_S", 0.4)
    replace(queues, "TASK_TIMEOUT", timedelta(seconds=1))
    replace(worker, "_STICKY", timedelta(seconds=0.5))
    replace(streams, "_PAUSE", timedelta(seconds=1))
    replace(keeping, "_CHECK_EVERY_S", 1)
    replace(wake, "_TOLD_AGAIN_AFTER_S", 2)
    replace(pump, "_REPORT_EVERY_S", 1)
    replace(pump, "_WHOLE_EVERY_S", 1)
    replace(story, "_TROUBLED_LOOK_S", 1.0)
    replace(story, "_LOOK_S", 2.0)
    replace(batcher, "_WAITING_LOOK_S", 1.0)
    call, batch = Rpc.call, Rpc.batch

    def brief(timeout_s: float) -> float:
        return timeout_s if timeout_s > _LONG_S else min(timeout_s, rpc_limit_s)

    async def brief_call(self: Rpc, *asked: Any, timeout_s: float = 30, **more: Any) -> Any:
        return await call(self, *asked, timeout_s=brief(timeout_s), **more)

    async def brief_batch(self: Rpc, *asked: Any, timeout_s: float = 60, **more: Any) -> Any:
        return await batch(self, *asked, timeout_s=brief(timeout_s), **more)

    replace(Rpc, "call", brief_call)
    replace(Rpc, "batch", brief_batch)


def replace(owner: Any, name: str, value: object) -> None:
    assert hasattr(owner, name)
    setattr(owner, name, value)


def _plan_crash(file: Path) -> None:
    def at(point: Point) -> bool:
        return file.exists() and file.read_text() == point

    def die() -> None:
        file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)

    def mortal(before: Point, after: Point, writing: str = _WRITES_A_DEPOSIT) -> Any:
        @asynccontextmanager
        async def mortal_transaction(pool: Pool) -> AsyncIterator[Connection]:
            writes = False
            async with transaction(pool) as conn:
                yield conn
                if at(before) or at(after):
                    writes = await conn.fetchval(writing)
                if at(before) and writes:
                    die()
            if at(after) and writes:
                die()

        return mortal_transaction

    replace(recording, "transaction", mortal("record before commit", "record after commit"))
    replace(deposit, "transaction", mortal("advance before commit", "advance after commit"))
    replace(decision, "transaction", mortal("decide before commit", "decide after commit"))
    for module, before, after in _OF_PAYOUTS:
        replace(module, "transaction", mortal(before, after, _WRITES_A_PAYOUT))
    _plan_crash_at_broadcast(at, die)
    start: Any = vars(wake)["start_workflow"]

    async def mortal_start(*asked: Any, **more: Any) -> Any:
        if at("wake before start"):
            die()
        started = await start(*asked, **more)
        if at("wake after start"):
            die()
        return started

    replace(wake, "start_workflow", mortal_start)


def _plan_crash_at_broadcast(at: Callable[[Point], bool], die: Callable[[], None]) -> None:
    broadcast = Spending.broadcast

    async def mortal_broadcast(self: Spending, raw: str) -> Any:
        if at("send before call"):
            die()
        verdict = await broadcast(self, raw)
        if at("send after call"):
            die()
        return verdict

    replace(Spending, "broadcast", mortal_broadcast)
