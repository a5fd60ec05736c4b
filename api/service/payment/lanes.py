"""Natural batching: payments that come while others are being started go together through one workflow.

    nothing on its way    a workflow of its own, at once: a lone payment never waits for company
    meanwhile             wait for one of those on their way to end, then go together with all that wait

At most `width` workflows are on their way from one process, so the lanes fill by themselves as the load grows, and the
price of a start, an activity and a commit is shared. One that takes long holds nobody up: after `patience_s` the next
goes. Payments between our users and those over Lightning have lanes of their own: each kind has its own pace. What
waits here has not been accepted: nobody was told anything, and a process that dies leaves nothing behind.
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
"""Of requests in one lane, as they are written for Temporal, which takes messages of 2 MB."""


@dataclass(slots=True)
class _Rider:
    asked: PaymentRequest
    payee: str
    boarded: asyncio.Future[Run] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def key(self) -> tuple[str, str]:
        return self.asked.account_id, self.asked.idempotency_key

    @property
    def size(self) -> int:
        """In bytes, with every text that a caller or a payee may have made long."""
        return len(to_json(self.asked))


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
        self._on_their_way = 0
        self._waiting: deque[_Rider] = deque()
        self._drives: set[asyncio.Task[None]] = set()

    async def start(self, asked: PaymentRequest, *, payee: str) -> Run:
        """Start a payment, alone or in company. Raises Unavailable when Temporal did not answer."""
        if self._width == 0:
            return await payment_run.start(self._client, self._listener, asked, payee=payee)
        rider = _Rider(asked, payee)
        self._waiting.append(rider)
        self._dispatch()
        return await rider.boarded

    def _dispatch(self) -> None:
        while self._on_their_way < self._width and (riders := self._take()):
            self._on_their_way += 1
            drive = asyncio.create_task(self._drive(riders))
            self._drives.add(drive)
            drive.add_done_callback(self._drives.discard)

    def _take(self) -> list[_Rider]:
        """All that wait, as far as one workflow takes them; of two with the same key the second goes next time."""
        taken: dict[tuple[str, str], _Rider] = {}
        left: list[_Rider] = []
        size = 0
        while self._waiting and len(taken) < MAX_ITEMS and size < _MAX_BYTES:
            rider = self._waiting.popleft()
            if rider.boarded.cancelled():
                continue
            if rider.key in taken:
                left.append(rider)
            else:
                taken[rider.key] = rider
                size += rider.size
        self._waiting.extendleft(reversed(left))
        return list(taken.values())

    async def _drive(self, riders: Sequence[_Rider]) -> None:
        try:
            runs = await self._start(riders)
            for rider, run in zip(riders, runs, strict=True):
                if not rider.boarded.done():
                    rider.boarded.set_result(run)
            ends: set[asyncio.Future[Any]] = {runs[0].ended, *(run.word for run in runs if run.word is not None)}
            await asyncio.wait(ends, timeout=self._patience_s, return_when=asyncio.FIRST_COMPLETED)
        except Exception as error:  # noqa: BLE001 - each that waits raises it
            for rider in riders:
                if not rider.boarded.done():
                    rider.boarded.set_exception(error)
        finally:
            self._on_their_way -= 1
            self._dispatch()

    async def _start(self, riders: Sequence[_Rider]) -> list[Run]:
        if len(riders) == 1:
            run = await payment_run.start(self._client, self._listener, riders[0].asked, payee=riders[0].payee)
            return [replace(run, place=0)]  # a caller that leaves does not end it: it is on its way, and counts as that
        asked = [rider.asked for rider in riders]
        return await payment_run.start_lane(self._client, self._listener, asked, over_lightning=self._over_lightning)
