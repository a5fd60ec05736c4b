"""Temporal as the API uses it: start a workflow, wait for its result, read its input, send it an update.

What Temporal answers, in the engine's errors:

    answer                                       at a start         of a workflow that exists
    INVALID_ARGUMENT and others that we cause    InvariantBroken    Unavailable
    NOT_FOUND                                    Unavailable        NotFound
    any other RPC error, a timeout               Unavailable        Unavailable
    a lazy client that cannot connect            Unavailable        Unavailable
    an update refused by the workflow                               the workflow's ApplicationError
    an update whose workflow went on or ended                       Unavailable

After Unavailable there is either no workflow or exactly one, so the caller may repeat with the same key.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeAlias, TypeVar

from temporalio.client import (
    Client,
    RPCTimeoutOrCancelledError,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import UpdateMethodMultiParam

from engine.contracts import update_failure
from engine.contracts.workflow_start import WorkflowStart, start_workflow, tell_or_start_workflow
from engine.domain.errors import InvariantBroken, NotFound, Unavailable

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")

Workflow: TypeAlias = str | WorkflowStart[Any]
"""A workflow that exists, by its id, or one that is started if it does not run."""
CALL_LIMIT = timedelta(seconds=5)
"""The timeout of one call. The SDK repeats the call until START_LIMIT_S has passed."""
START_LIMIT_S = 12
_AWAY = (RPCError, RPCTimeoutOrCancelledError, RuntimeError, TimeoutError)
"""The errors when Temporal does not answer. RuntimeError comes from a lazy client that cannot connect."""
_OUR_MISTAKE = {
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNIMPLEMENTED,
    RPCStatusCode.UNAUTHENTICATED,
}
_UPDATE_LOST = frozenset({update_failure.NOT_YET, "AcceptedUpdateCompletedWorkflow"})
"""Types of failure, ours and Temporal's, of an update whose workflow went on in a new run or ended meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Generic[R]):
    """A workflow that was started or found."""

    handle: WorkflowHandle[Any, R]
    run_id: str
    """Empty when Temporal did not say."""
    is_new: bool
    """Whether this call started it."""
    is_taken: bool = False
    """Whether the id belongs to another run, which the policies of the start do not let us join."""


async def start(client: Client, asked: WorkflowStart[R], *, signal: str | None = None) -> Started[R]:
    """Start the workflow, or find it; either way it gets the signal. Raises Unavailable, and InvariantBroken when
    Temporal refuses what we ask."""
    try:
        async with asyncio.timeout(START_LIMIT_S):
            handle = await start_workflow(client, asked, call_limit=CALL_LIMIT, signal=signal)
    except WorkflowAlreadyStartedError as known:
        found = client.get_workflow_handle(asked.id, result_type=asked.result)
        return Started(handle=found, run_id=known.run_id or "", is_new=False, is_taken=True)
    except _AWAY as error:
        if isinstance(error, RPCError) and error.status in _OUR_MISTAKE:
            raise InvariantBroken(f"Temporal refused to start {asked.id}: {error}") from error
        raise _away(error) from error
    # The SDK keeps this private, and nothing else tells a start from a find.
    response = vars(handle).get("_start_workflow_response")
    return Started(
        handle=handle,
        run_id=getattr(handle, "result_run_id", None) or "",
        is_new=bool(getattr(response, "started", True)),
    )


async def wait(handle: WorkflowHandle[Any, R], limit_s: float) -> R | None:
    """The workflow's result. None when it has none by then, has failed, or Temporal does not answer."""
    try:
        async with asyncio.timeout(limit_s):
            return await handle.result()
    except (*_AWAY, WorkflowFailureError):
        return None


async def is_running(client: Client, workflow_id: str) -> bool:
    """Whether a workflow with this id runs. Raises Unavailable when Temporal does not answer."""
    with suppress(NotFound), _asked():
        description = await client.get_workflow_handle(workflow_id).describe(rpc_timeout=CALL_LIMIT)
        return description.status is WorkflowExecutionStatus.RUNNING
    return False


async def read_input(handle: WorkflowHandle[Any, Any], kind: type[T]) -> tuple[T, datetime] | None:
    """The only argument of a workflow that runs, and when it was started; None when it has ended or never existed.

    Raises Unavailable when Temporal does not answer.
    """
    with suppress(NotFound), _asked():
        description = await handle.describe(rpc_timeout=CALL_LIMIT)
        if description.status is not WorkflowExecutionStatus.RUNNING:
            return None
        async for event in handle.fetch_history_events(page_size=1, rpc_timeout=CALL_LIMIT):
            attributes = event.workflow_execution_started_event_attributes
            (request,) = await description.data_converter.decode(attributes.input.payloads, [kind])
            return request, event.event_time.ToDatetime(UTC)
    return None


async def tell(
    client: Client,
    workflow: Workflow,
    update: UpdateMethodMultiParam[[Any, W], Any],
    word: W,
    *,
    limit_s: float,
) -> None:
    """Send an operator's decision to a workflow. Returns when the workflow has carried it out.

    A workflow that is named by its start is started if it does not run. Raises ApplicationError when the workflow
    refuses, NotFound when one that is named by its id does not run, and Unavailable when Temporal does not answer or
    the update was lost: the same update again finds what became of the first.
    """
    workflow_id = workflow if isinstance(workflow, str) else workflow.id
    with _updated(workflow_id):
        async with asyncio.timeout(limit_s):
            if isinstance(workflow, str):
                await client.get_workflow_handle(workflow_id).execute_update(update, word)
            else:
                await tell_or_start_workflow(client, workflow, update, word)


async def ask_for(
    client: Client, workflow_id: str, update: UpdateMethodMultiParam[[Any], Any], *, limit_s: float
) -> None:
    """As `tell`, for an update that needs no word."""
    with _updated(workflow_id):
        async with asyncio.timeout(limit_s):
            await client.get_workflow_handle(workflow_id).execute_update(update)


@contextmanager
def _updated(workflow_id: str) -> Iterator[None]:
    """What becomes of an update: the workflow's ApplicationError, NotFound, Unavailable."""
    try:
        with _asked(workflow_id):
            yield
    except WorkflowUpdateFailedError as failed:
        if not isinstance(failed.cause, ApplicationError):
            raise
        if failed.cause.type in _UPDATE_LOST:
            raise Unavailable(f"{workflow_id} has no end yet", code="temporarily_unavailable") from failed
        raise failed.cause from failed


@contextmanager
def _asked(workflow_id: str = "the workflow") -> Iterator[None]:
    """What Temporal answers about a workflow that exists, in the engine's errors: NotFound or Unavailable."""
    try:
        yield
    except _AWAY as error:
        if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
            raise NotFound(f"{workflow_id} does not run") from error
        raise _away(error) from error


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"Temporal: {error}", code="temporarily_unavailable")
