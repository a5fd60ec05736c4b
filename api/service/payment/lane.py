"""Lanes, natural batching: payments that come while others are being started share one workflow.

    no workflow in flight       a workflow of its own, at once: a lone payment never waits
    workflows in flight         wait until one of them ends, then share a workflow with all that wait

At most `width` workflows are in flight from one process, so the lanes fill as the load grows, and the payments share
the cost of a start, an activity and a commit. A slow workflow blocks nobody: after `patience_s` the next starts.
Internal payments and payments over Lightning have lanes of their own, because their pace differs. A payment that waits
here has not been accepted: its caller was told nothing, and a process that dies leaves nothing behind.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_core import to_json
from temporalio.client import Client

from api.service.payment import payment_run
from api.service.payment.payment_run import Run
from engine.clients.announcements import Listener
from engine.contracts.lane import MAX_ITEMS
from engine.contracts.payment import PaymentRequest

_MAX_BYTES = 500_000
"""Of the requests in one workflow, encoded for Temporal, which takes messages of 2 MB."""


@dataclass(slots=True)
class _Waiting:
    request: PaymentRequest
    payee: str
    run: asyncio.Future[Run] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def key(self) -> tuple[str, str]:
        return self.request.account_id, self.request.idempotency_key

    @property
    def size(self) -> int:
        """In bytes, with every text whose length a caller or a payee chooses."""
        return len(to_json(self.request))


class Lanes:
    """One per process and kind."""

    def __init__(
        self, client: Client, listener: Listener, *, width: int, patience_s: float, over_lightning: bool = False
    ) -> None:
        self._client = client
        self._listener = listener
        self._width = width
        self._patience_s = patience_s
        self._over_lightning = over_lightning
        self._in_flight = 0
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, request: PaymentRequest, *, payee: str) -> Run:
        """Start a payment, alone or with others. Raises Unavailable when Temporal does not answer."""
        if self._width == 0:
            return await payment_run.start(self._client, self._listener, request, payee=payee)
        waiting = _Waiting(request, payee)
        self._waiting.append(waiting)
        self._dispatch()
        return await waiting.run

    def _dispatch(self) -> None:
        while self._in_flight < self._width and (taken := self._take()):
            self._in_flight += 1
            task = asyncio.create_task(self._run(taken))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take(self) -> list[_Waiting]:
        """The payments of the next workflow: all that wait, up to its limits, and no two with the same key."""
        taken: dict[tuple[str, str], _Waiting] = {}
        left: list[_Waiting] = []
        size = 0
        while self._waiting and len(taken) < MAX_ITEMS and size < _MAX_BYTES:
            each = self._waiting.popleft()
            if each.run.cancelled():
                continue
            if each.key in taken:
                left.append(each)
            else:
                taken[each.key] = each
                size += each.size
        self._waiting.extendleft(reversed(left))
        return list(taken.values())

    async def _run(self, taken: Sequence[_Waiting]) -> None:
        try:
            runs = await self._start(taken)
            for each, run in zip(taken, runs, strict=True):
                if not each.run.done():
                    each.run.set_result(run)
            ends: set[asyncio.Future[Any]] = {
                runs[0].ended,
                *(run.announced for run in runs if run.announced is not None),
            }
            await asyncio.wait(ends, timeout=self._patience_s, return_when=asyncio.FIRST_COMPLETED)
        except Exception as error:  # noqa: BLE001 - each that waits raises it
            for each in taken:
                if not each.run.done():
                    each.run.set_exception(error)
        finally:
            self._in_flight -= 1
            self._dispatch()

    async def _start(self, taken: Sequence[_Waiting]) -> list[Run]:
        if len(taken) == 1:
            run = await payment_run.start(self._client, self._listener, taken[0].request, payee=taken[0].payee)
            return [replace(run, place=0)]  # in flight also when its caller leaves
        asked = [each.request for each in taken]
        return await payment_run.start_lane(self._client, self._listener, asked, over_lightning=self._over_lightning)
