"""A payment's workflow as the API meets it: started or found, waited for, and asked what it was started with.

It is the payment's own, or a lane's that carries others as well; both are a `Run`. Starting is repeatable: the same id
finds the running workflow, or says that it has ended. Whatever goes wrong between us and Temporal leaves either no
workflow or exactly one, so the caller may always repeat with its key.

The worker that ends a payment says so to whoever listens, and Temporal is asked only where no such word comes.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio.client import Client, WorkflowHandle

from api.service import temporal
from api.service.deadline import MAX_WAIT_S, Deadline
from engine.clients.announcements import Listener, Word
from engine.contracts import workflow_ids
from engine.contracts.lane import LaneOutcome, LaneRequest, lane_start
from engine.contracts.payment import PaymentOutcome, PaymentRequest, payment_start
from engine.domain.ids import AccountId, new_id

Handle = WorkflowHandle[Any, PaymentOutcome]
LaneHandle = WorkflowHandle[Any, LaneOutcome]

_WORD_S = 0.25
"""So long the word of an end is waited for alone; then Temporal is asked as well, which is slower and loses nothing."""


@dataclass(frozen=True, slots=True)
class Started:
    """What a running workflow was started with, and when."""

    request: PaymentRequest
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A payment on its way in a workflow: its own, or a lane's."""

    workflow_id: str
    ended: "asyncio.Task[Sequence[PaymentOutcome] | None]"
    """How it ended, with all that shared it; None when Postgres may tell: all words came, or Temporal is silent."""
    word: Word | None = None
    """Done when a worker has said that this payment has ended: Postgres knows how."""
    started_here: bool = True
    """Whether this request started it, or found it."""
    place: int | None = None
    """In its lane, from 0; also the only one of a lane. None for what is waited for by its caller alone."""
    accepted: Started | None = None
    """The request that a lane carries of this payment, and since when."""

    def leave(self) -> None:
        """This request waits no longer; the payment goes on. Others may wait for the same lane."""
        if self.place is None:
            self.ended.cancel()


async def start(client: Client, listener: Listener, asked: PaymentRequest, *, payee: str) -> Run:
    """Start the payment in a workflow of its own, or find it.

    Raises Unavailable when Temporal did not answer: a repeat with the same key finds whatever there is.
    """
    with _expected(listener, [asked]) as words:
        started = await temporal.start(client, payment_start(asked, payee=payee))
        workflow_id = started.handle.id
        if started.is_taken:
            words[0].cancel()
            return find(client, workflow_id)
    ended = _ended(_own_end(started.handle), words, listener)
    return Run(workflow_id=workflow_id, ended=ended, word=words[0], started_here=started.is_new)


async def start_lane(
    client: Client, listener: Listener, asked: Sequence[PaymentRequest], *, over_lightning: bool
) -> list[Run]:
    """Start payments of different keys in one workflow; their runs, in the same order.

    Raises Unavailable when Temporal did not answer: a repeat with the same key is answered by whichever comes first.
    """
    workflow_id = workflow_ids.lane(new_id("lane"))
    lane = LaneRequest(items=list(asked), over_lightning=over_lightning)
    with _expected(listener, asked) as words:
        handle = (await temporal.start(client, lane_start(lane, workflow_id))).handle
    ended = _ended(_lane_end(handle), words, listener)
    now = datetime.now(UTC)
    return [
        Run(workflow_id=workflow_id, ended=ended, word=words[place], place=place, accepted=Started(each, now))
        for place, each in enumerate(asked)
    ]


def find(client: Client, workflow_id: str) -> Run:
    """The workflow of this id, if there is one. Its word may have been said already."""
    handle = client.get_workflow_handle(workflow_id, result_type=PaymentOutcome)
    return Run(workflow_id=workflow_id, ended=asyncio.create_task(_own_end(handle)), started_here=False)


def workflow_id_of(account_id: AccountId, payment_id: str) -> str:
    """Where the account's payment with this id would run alone: both ids share the digest of the key."""
    return f"payment-{account_id}-{payment_id.partition('_')[2]}"


async def wait_for_end(run: Run, deadline: Deadline) -> PaymentOutcome | None:
    """How it ended. None when Postgres may tell, or it has not by then."""
    told: set[asyncio.Future[Any]] = {run.ended} if run.word is None else {run.ended, run.word}
    await asyncio.wait(told, timeout=deadline.left_s, return_when=asyncio.FIRST_COMPLETED)
    if not run.ended.done():
        run.leave()
        return None
    outcomes = run.ended.result()
    return None if outcomes is None else outcomes[run.place or 0]


@contextmanager
def _expected(listener: Listener, asked: Sequence[PaymentRequest]) -> Iterator[list[Word]]:
    """The words of their ends, waited for from before they are started."""
    words = [listener.expect(each.payment_id) for each in asked]
    try:
        yield words
    except BaseException:
        for word in words:
            word.cancel()
        raise


def _ended(
    temporals: Coroutine[Any, Any, Sequence[PaymentOutcome] | None], words: Sequence[Word], listener: Listener
) -> "asyncio.Task[Sequence[PaymentOutcome] | None]":
    """Temporal's answer, or None when all words came before it was asked."""

    async def end() -> Sequence[PaymentOutcome] | None:
        if listener.hears:
            _heard, missing = await asyncio.wait(words, timeout=_WORD_S)
            if not missing:
                return None
        return await temporals

    def forget(_: object) -> None:
        temporals.close()
        for word in words:
            word.cancel()

    task = asyncio.create_task(end())
    task.add_done_callback(forget)
    return task


async def _own_end(handle: Handle) -> Sequence[PaymentOutcome] | None:
    outcome = await temporal.wait(handle, MAX_WAIT_S)
    return None if outcome is None else [outcome]


async def _lane_end(handle: LaneHandle) -> Sequence[PaymentOutcome] | None:
    """Not cancelled by one that leaves, for others wait as well; nobody waits longer than this."""
    outcome = await temporal.wait(handle, MAX_WAIT_S)
    return None if outcome is None else outcome.outcomes


async def find_started(client: Client, workflow_id: str) -> Started | None:
    """What a payment's own workflow was started with, while it runs. None when it has ended, or never was.

    Raises Unavailable when Temporal does not answer.
    """
    found = await temporal.read_input(client.get_workflow_handle(workflow_id), PaymentRequest)
    return found and Started(*found)


async def find_in_lane(client: Client, workflow_id: str, payment_id: str, at: datetime) -> Started | None:
    """What a lane was started with for this payment, `at` the moment that its caller was told. None when it has ended.

    Raises Unavailable when Temporal does not answer.
    """
    found = await temporal.read_input(client.get_workflow_handle(workflow_id), LaneRequest)
    if found is None:
        return None
    lane, _started_at = found
    return next((Started(each, at) for each in lane.items if each.payment_id == payment_id), None)
