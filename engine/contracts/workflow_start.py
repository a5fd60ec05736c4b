"""The start of a workflow as one value, and the only calls that start one from outside of workflows.

Each capability builds its value in its own contract (`payment_start`, `case_start`, …). The API, the activities and the
janitor use the same value, so a workflow that is started again is the same as the first.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Generic, TypeVar

from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle
from temporalio.common import TypedSearchAttributes, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.workflow import UpdateMethodMultiParam

from engine.contracts import queues

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStart(Generic[R]):
    """A workflow to start: its name, argument and id, and what operators see of it in the Temporal UI."""

    workflow: str
    argument: object
    id: str
    summary: str
    attributes: TypedSearchAttributes
    details: str | None = None
    result: type[R] | None = None
    """The type of its result, for callers that wait for it."""
    conflict_policy: WorkflowIDConflictPolicy = WorkflowIDConflictPolicy.UNSPECIFIED
    """What a start does while a workflow with this id runs."""
    reuse_policy: WorkflowIDReusePolicy = WorkflowIDReusePolicy.ALLOW_DUPLICATE
    """What a start does after a workflow with this id has ended."""
    task_timeout: timedelta | None = None
    execution_timeout: timedelta | None = None

    def again(self) -> "WorkflowStart[R]":
        """The same start, for a row whose workflow is gone: it finds a running one, and ignores one that has ended."""
        return replace(
            self,
            conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )


async def start_workflow(
    client: Client, start: WorkflowStart[R], *, call_limit: timedelta | None = None, signal: str | None = None
) -> WorkflowHandle[Any, R]:
    """Start the workflow on the workflows' queue, or find it, as its policies say. Either way it gets the signal.

    Raises WorkflowAlreadyStartedError when the policies allow neither, RPCError, and RuntimeError when a lazy client
    cannot connect.
    """
    return await client.start_workflow(
        start.workflow,
        start.argument,
        id=start.id,
        task_queue=queues.PAYMENTS,
        result_type=start.result,
        id_conflict_policy=start.conflict_policy,
        id_reuse_policy=start.reuse_policy,
        task_timeout=start.task_timeout,
        execution_timeout=start.execution_timeout,
        static_summary=start.summary,
        static_details=start.details,
        search_attributes=start.attributes,
        start_signal=signal,
        rpc_timeout=call_limit,
    )


async def tell_or_start_workflow(
    client: Client,
    start: WorkflowStart[R],
    update: UpdateMethodMultiParam[[Any, W], T],
    word: W,
    *,
    call_limit: timedelta | None = None,
) -> T:
    """Send an update to the workflow, which is started for it if it does not run. Returns the update's result.

    The policies of `start` must allow both. Start and update arrive together, so a workflow with nothing left to do
    still takes the update. Raises as `start_workflow`, and WorkflowUpdateFailedError.
    """
    operation = WithStartWorkflowOperation[Any, R](
        start.workflow,
        start.argument,
        id=start.id,
        task_queue=queues.PAYMENTS,
        id_conflict_policy=start.conflict_policy,
        id_reuse_policy=start.reuse_policy,
        task_timeout=start.task_timeout,
        execution_timeout=start.execution_timeout,
        static_summary=start.summary,
        static_details=start.details,
        search_attributes=start.attributes,
    )
    return await client.execute_update_with_start_workflow(
        update, word, start_workflow_operation=operation, rpc_timeout=call_limit
    )
