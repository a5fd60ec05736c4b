"""A batch's workflow as the API meets it: started or found, waited for, and asked what it was started with.

Every call may be repeated: the same id finds the workflow that there is, or says that it has ended.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from temporalio.client import Client, RPCTimeoutOrCancelledError, WorkflowFailureError, WorkflowHandle
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from api.payment_run import CALL_LIMIT, START_LIMIT_S, amount_text, read_input, starting
from api.waiting import Deadline
from engine.contracts import queues
from engine.contracts.batch import BatchOutcome, BatchRequest
from engine.domain.ids import AccountId
from engine.domain.money import msat_to_sat_floor
from workflows.batch import BatchWorkflow

Handle = WorkflowHandle[BatchWorkflow, BatchOutcome]

_LISTED = 100


@dataclass(frozen=True, slots=True)
class Started:
    """What a running workflow was started with, and when."""

    request: BatchRequest
    at: datetime


async def start(client: Client, asked: BatchRequest) -> tuple[Handle, bool]:
    """The workflow, and whether this call started it. Raises Unavailable when Temporal did not answer: a repeat with
    the same key finds whatever there is."""
    workflow_id = queues.batch_workflow_id(asked.account_id, asked.idempotency_key)
    total = amount_text(asked.total_msat)
    with starting(workflow_id):
        try:
            async with asyncio.timeout(START_LIMIT_S):
                handle = await client.start_workflow(
                    BatchWorkflow.run,
                    asked,
                    id=workflow_id,
                    task_queue=queues.PAYMENTS,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    static_summary=f"{len(asked.items)} internal payments, {total} in all, for {asked.account_id}",
                    static_details=_listed(asked),
                    search_attributes=TypedSearchAttributes(
                        [
                            SearchAttributePair(queues.KIND, "batch"),
                            SearchAttributePair(queues.STATUS, "pending"),
                            SearchAttributePair(queues.ACCOUNT, asked.account_id),
                            SearchAttributePair(queues.AMOUNT_SAT, msat_to_sat_floor(asked.total_msat)),
                            SearchAttributePair(queues.NEEDS_OPERATOR, value=False),
                        ]
                    ),
                    task_timeout=queues.TASK_TIMEOUT,
                    rpc_timeout=CALL_LIMIT,
                )
        except WorkflowAlreadyStartedError:
            return find(client, workflow_id), False
    return handle, True


def find(client: Client, workflow_id: str) -> Handle:
    """The workflow of this id, if there is one."""
    return client.get_workflow_handle_for(BatchWorkflow.run, workflow_id)


async def wait_for_end(handle: Handle, deadline: Deadline) -> BatchOutcome | None:
    """How it ended. None when it has not by then, or Temporal cannot tell (then Postgres may)."""
    try:
        async with asyncio.timeout(deadline.left_s):
            return await handle.result()
    except (TimeoutError, RPCError, RPCTimeoutOrCancelledError, WorkflowFailureError, RuntimeError):
        return None


async def find_started(client: Client, account_id: AccountId, batch_id: str) -> Started | None:
    """What the account's batch with this id was started with, while it runs. Raises Unavailable."""
    workflow_id = f"batch-{account_id}-{batch_id.partition('_')[2]}"
    found = await read_input(client.get_workflow_handle_for(BatchWorkflow.run, workflow_id), BatchRequest)
    return found and Started(*found)


def _listed(asked: BatchRequest) -> str:
    """For people who look at a batch: whom it pays, as far as Temporal takes the text."""
    lines = [f"- {amount_text(each.amount_msat)} to `{each.destination[:50]}`" for each in asked.items[:_LISTED]]
    more = len(asked.items) - len(lines)
    return "\n".join([*lines, f"- and {more} more"] if more else lines)
