"""The run of a payment: its workflow, started or found, and waited for.

The workflow is the payment's own, or a lane's that carries other payments too. Starting is safe to repeat: the same id
finds the running workflow, or says that it has ended. Whatever fails between the API and Temporal leaves either no
workflow or exactly one, so the caller may always repeat with its key.

The worker that ends a payment announces it (`engine/clients/announcements.py`). Temporal is asked only where no
announcement comes.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio.client import Client, WorkflowHandle

from api.http.prefer import MAX_WAIT_S
from api.service import temporal
from api.service.deadline import Deadline
from engine.clients.announcements import Announcement, Listener
from engine.contracts import workflow_ids
from engine.contracts.lane import LaneOutcome, LaneRequest, lane_start
from engine.contracts.payment import PaymentOutcome, PaymentRequest, payment_start
from engine.domain.ids import new_id

Handle = WorkflowHandle[Any, PaymentOutcome]
LaneHandle = WorkflowHandle[Any, LaneOutcome]

_ANNOUNCED_S = 0.25
"""How long the announcement alone is waited for. Then Temporal is asked too, which is slower and loses nothing."""


@dataclass(frozen=True, slots=True)
class AcceptedPayment:
    """A payment as it was accepted: its request, and the workflow that carries it."""

    request: PaymentRequest
    at: datetime
    """When its caller was told, or its workflow was started."""
    workflow_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A payment in its workflow."""

    workflow_id: str
    ended: "asyncio.Task[Sequence[PaymentOutcome] | None]"
    """The outcomes of all payments of the workflow. None when Postgres knows more: all ends were announced, or Temporal
    does not answer."""
    announced: Announcement | None = None
    """Done when a worker has announced the end of this payment: Postgres knows the outcome."""
    started_here: bool = True
    """Whether this request started the workflow. False: it found the workflow."""
    place: int | None = None
    """The payment's place in its lane, from 0, also where it is alone there. None: only its caller waits for it."""
    accepted: AcceptedPayment | None = None
    """The payment, when its workflow is a lane."""

    def leave(self) -> None:
        """Stop waiting for the workflow, unless others wait for the same lane. The payment goes on."""
        if self.place is None:
            self.ended.cancel()


async def start(client: Client, listener: Listener, asked: PaymentRequest, *, payee: str) -> Run:
    """Start the payment in a workflow of its own, or find it.

    Raises Unavailable when Temporal does not answer: a repeat with the same key finds the workflow, if there is one.
    """
    with _expected(listener, [asked]) as announcements:
        started = await temporal.start(client, payment_start(asked, payee=payee))
        workflow_id = started.handle.id
        if started.is_taken:
            announcements[0].cancel()
            return find(client, workflow_id)
    ended = _ended(_own_end(started.handle), announcements, listener)
    return Run(workflow_id=workflow_id, ended=ended, announced=announcements[0], started_here=started.is_new)


async def start_lane(
    client: Client, listener: Listener, asked: Sequence[PaymentRequest], *, over_lightning: bool
) -> list[Run]:
    """Start payments of different keys in one workflow. Returns their runs, in the same order.

    Raises Unavailable when Temporal does not answer. A repeat with the same key may start another workflow; the first
    of them to open the payment pays it.
    """
    workflow_id = workflow_ids.lane(new_id("lane"))
    lane = LaneRequest(items=list(asked), over_lightning=over_lightning)
    with _expected(listener, asked) as announcements:
        handle = (await temporal.start(client, lane_start(lane, workflow_id))).handle
    ended = _ended(_lane_end(handle), announcements, listener)
    now = datetime.now(UTC)
    return [
        Run(
            workflow_id=workflow_id,
            ended=ended,
            announced=announcements[place],
            place=place,
            accepted=AcceptedPayment(each, now, workflow_id),
        )
        for place, each in enumerate(asked)
    ]


def find(client: Client, workflow_id: str) -> Run:
    """The workflow with this id, if there is one. Its end may have been announced already."""
    handle = client.get_workflow_handle(workflow_id, result_type=PaymentOutcome)
    return Run(workflow_id=workflow_id, ended=asyncio.create_task(_own_end(handle)), started_here=False)


async def wait_for_end(run: Run, deadline: Deadline) -> PaymentOutcome | None:
    """The outcome. None when Postgres knows more, or the payment has not ended by the deadline."""
    ends: set[asyncio.Future[Any]] = {run.ended} if run.announced is None else {run.ended, run.announced}
    await asyncio.wait(ends, timeout=deadline.left_s, return_when=asyncio.FIRST_COMPLETED)
    if not run.ended.done():
        run.leave()
        return None
    outcomes = run.ended.result()
    return None if outcomes is None else outcomes[run.place or 0]


async def follow(
    client: Client, run: Run, own_workflow_id: str, deadline: Deadline
) -> tuple[Run, PaymentOutcome | None]:
    """As `wait_for_end`, also where a lane hands the payment over to its own workflow; with the run that ended."""
    outcome = await wait_for_end(run, deadline)
    if outcome is not None and not outcome.is_final:
        run = find(client, own_workflow_id)
        outcome = await wait_for_end(run, deadline)
    return run, outcome


@contextmanager
def _expected(listener: Listener, asked: Sequence[PaymentRequest]) -> Iterator[list[Announcement]]:
    """The announcements of their ends. We listen before the start, so that none is missed."""
    announcements = [listener.expect(each.payment_id) for each in asked]
    try:
        yield announcements
    except BaseException:
        for each in announcements:
            each.cancel()
        raise


def _ended(
    temporals: Coroutine[Any, Any, Sequence[PaymentOutcome] | None],
    announcements: Sequence[Announcement],
    listener: Listener,
) -> "asyncio.Task[Sequence[PaymentOutcome] | None]":
    """Temporal's answer. None when all ends were announced before Temporal was asked."""

    async def end() -> Sequence[PaymentOutcome] | None:
        if listener.hears:
            _announced, missing = await asyncio.wait(announcements, timeout=_ANNOUNCED_S)
            if not missing:
                return None
        return await temporals

    def forget(_: object) -> None:
        temporals.close()
        for each in announcements:
            each.cancel()

    task = asyncio.create_task(end())
    task.add_done_callback(forget)
    return task


async def _own_end(handle: Handle) -> Sequence[PaymentOutcome] | None:
    outcome = await temporal.wait(handle, MAX_WAIT_S)
    return None if outcome is None else [outcome]


async def _lane_end(handle: LaneHandle) -> Sequence[PaymentOutcome] | None:
    """A caller that leaves does not cancel it, because others wait too. Nobody waits longer than MAX_WAIT_S."""
    outcome = await temporal.wait(handle, MAX_WAIT_S)
    return None if outcome is None else outcome.outcomes
