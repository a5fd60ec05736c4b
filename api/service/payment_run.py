"""A payment's workflow as the API meets it: started or found, waited for, and asked what it was started with.

It is the payment's own, or a lane's that carries others as well; both are a `Run`. Starting is repeatable: the same id
finds the running workflow, or says that it has ended. Whatever goes wrong between us and Temporal leaves either no
workflow or exactly one, so the caller may always repeat with its key.

The worker that ends a payment says so to whoever listens, and Temporal is asked only where no such word comes.
"""

import asyncio
import re
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio.client import (
    Client,
    RPCTimeoutOrCancelledError,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from api.http.prefer import MAX_WAIT_S
from api.service.deadline import Deadline
from api.service.temporal import temporal_away
from engine.clients.announcements import Listener, Word
from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.lane import LaneOutcome, LaneRequest
from engine.contracts.payment import PaymentOutcome, PaymentRequest, found_by
from engine.domain.errors import InvariantBroken
from engine.domain.ids import AccountId, new_id
from engine.domain.money import MSAT_PER_SAT, Msat, msat_to_sat_floor
from workflows.lane import LaneWorkflow
from workflows.payment import PaymentWorkflow

Handle = WorkflowHandle[PaymentWorkflow, PaymentOutcome]
LaneHandle = WorkflowHandle[LaneWorkflow, LaneOutcome]

T = TypeVar("T")

PAYMENT_ID = re.compile(r"pay_[0-9a-z]{25}")
CALL_LIMIT = timedelta(seconds=5)
START_LIMIT_S = 12
_WORD_S = 0.25
"""So long the word of an end is waited for alone; then Temporal is asked as well, which is slower and loses nothing."""
_LISTED = 100
_OUR_MISTAKE = {
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNIMPLEMENTED,
    RPCStatusCode.UNAUTHENTICATED,
}


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
    boarded: Started | None = None
    """What a lane carries of this payment, and since when."""

    def leave(self) -> None:
        """This request waits no longer; the payment goes on. Others may wait for the same lane."""
        if self.place is None:
            self.ended.cancel()


async def start(client: Client, listener: Listener, asked: PaymentRequest, *, payee: str) -> Run:
    """Start the payment in a workflow of its own, or find it.

    Raises Unavailable when Temporal did not answer: a repeat with the same key finds whatever there is.
    """
    workflow_id = workflow_ids.payment(asked.account_id, asked.idempotency_key)
    with _expected(listener, [asked]) as words, starting(workflow_id):
        try:
            async with asyncio.timeout(START_LIMIT_S):
                handle = await client.start_workflow(
                    PaymentWorkflow.run,
                    asked,
                    id=workflow_id,
                    task_queue=queues.PAYMENTS,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                    static_summary=f"pay {amount_text(asked.amount_msat)} to {payee} for {asked.account_id}",
                    search_attributes=found_by(asked),
                    task_timeout=queues.TASK_TIMEOUT,
                    rpc_timeout=CALL_LIMIT,
                )
        except WorkflowAlreadyStartedError:
            words[0].cancel()
            return find(client, workflow_id)
    # Private in the SDK, and the only place that tells a start from a find; without it a find is not marked as one.
    response = vars(handle).get("_start_workflow_response")
    ended = _ended(_own_end(handle), words, listener)
    return Run(
        workflow_id=workflow_id, ended=ended, word=words[0], started_here=bool(getattr(response, "started", True))
    )


async def start_lane(
    client: Client, listener: Listener, asked: Sequence[PaymentRequest], *, over_lightning: bool
) -> list[Run]:
    """Start payments of different keys in one workflow; their runs, in the same order.

    Raises Unavailable when Temporal did not answer: a repeat with the same key is answered by whichever comes first.
    """
    workflow_id = workflow_ids.lane(new_id("lane"))
    total_msat = Msat(sum(each.amount_msat for each in asked))
    kind = "Lightning" if over_lightning else "internal"
    with _expected(listener, asked) as words, starting(workflow_id):
        async with asyncio.timeout(START_LIMIT_S):
            handle = await client.start_workflow(
                LaneWorkflow.run,
                LaneRequest(items=list(asked), over_lightning=over_lightning),
                id=workflow_id,
                task_queue=queues.PAYMENTS,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                static_summary=f"{len(asked)} {kind} payments, {amount_text(total_msat)} in all",
                static_details=_listed(asked),
                search_attributes=TypedSearchAttributes(
                    [
                        SearchAttributePair(search_attributes.KIND, "lane"),
                        SearchAttributePair(search_attributes.STATUS, "pending"),
                        SearchAttributePair(search_attributes.AMOUNT_SAT, msat_to_sat_floor(total_msat)),
                        SearchAttributePair(search_attributes.NEEDS_OPERATOR, value=False),
                    ]
                ),
                task_timeout=queues.TASK_TIMEOUT,
                rpc_timeout=CALL_LIMIT,
            )
    ended = _ended(_lane_end(handle), words, listener)
    now = datetime.now(UTC)
    return [
        Run(workflow_id=workflow_id, ended=ended, word=words[place], place=place, boarded=Started(each, now))
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
    try:
        async with asyncio.timeout(MAX_WAIT_S):
            return [await handle.result()]
    except (TimeoutError, RPCError, RPCTimeoutOrCancelledError, WorkflowFailureError, RuntimeError):
        return None


async def _lane_end(handle: LaneHandle) -> Sequence[PaymentOutcome] | None:
    """Not cancelled by one that leaves, for others wait as well; nobody waits longer than this."""
    try:
        async with asyncio.timeout(MAX_WAIT_S):
            return (await handle.result()).outcomes
    except (TimeoutError, RPCError, RPCTimeoutOrCancelledError, WorkflowFailureError, RuntimeError):
        return None


async def find_started(client: Client, workflow_id: str) -> Started | None:
    """What a payment's own workflow was started with, while it runs. None when it has ended, or never was.

    Raises Unavailable when Temporal does not answer.
    """
    found = await read_input(client.get_workflow_handle_for(PaymentWorkflow.run, workflow_id), PaymentRequest)
    return found and Started(*found)


async def find_boarded(client: Client, workflow_id: str, payment_id: str, at: datetime) -> Started | None:
    """What a lane was started with for this payment, `at` the moment that its caller was told. None when it has ended.

    Raises Unavailable when Temporal does not answer.
    """
    found = await read_input(client.get_workflow_handle_for(LaneWorkflow.run, workflow_id), LaneRequest)
    if found is None:
        return None
    lane, _started_at = found
    return next((Started(each, at) for each in lane.items if each.payment_id == payment_id), None)


async def read_input(handle: WorkflowHandle[Any, Any], kind: type[T]) -> tuple[T, datetime] | None:
    """The only argument of a workflow that runs, and when it was started; None when it has ended, or never was.

    Raises Unavailable when Temporal does not answer.
    """
    try:
        description = await handle.describe(rpc_timeout=CALL_LIMIT)
        if description.status is not WorkflowExecutionStatus.RUNNING:
            return None
        async for event in handle.fetch_history_events(page_size=1, rpc_timeout=CALL_LIMIT):
            attributes = event.workflow_execution_started_event_attributes
            (request,) = await description.data_converter.decode(attributes.input.payloads, [kind])
            return request, event.event_time.ToDatetime(UTC)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise temporal_away(error) from error
    except (RPCTimeoutOrCancelledError, RuntimeError) as error:
        raise temporal_away(error) from error
    return None


@contextmanager
def starting(workflow_id: str) -> Iterator[None]:
    """What a start raises, in our words: Unavailable when Temporal did not answer."""
    try:
        yield
    except RPCError as error:
        if error.status in _OUR_MISTAKE:
            raise InvariantBroken(f"Temporal refused to start {workflow_id}: {error}") from error
        raise temporal_away(error) from error
    except (RuntimeError, TimeoutError) as error:  # a lazy client that cannot connect says RuntimeError
        raise temporal_away(error) from error


def _listed(asked: Sequence[PaymentRequest]) -> str:
    """For people who look at a lane: whose payments it carries, as far as Temporal takes the text."""
    lines = [
        f"- `{each.payment_id}` {amount_text(each.amount_msat)} for `{each.account_id}`" for each in asked[:_LISTED]
    ]
    more = len(asked) - len(lines)
    return "\n".join([*lines, f"- and {more} more"] if more else lines)


def amount_text(amount_msat: Msat) -> str:
    """For people: in sat where it is whole."""
    if amount_msat % MSAT_PER_SAT:
        return f"{amount_msat:,} msat"
    return f"{msat_to_sat_floor(amount_msat):,} sat"
