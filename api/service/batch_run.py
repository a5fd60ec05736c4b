"""A batch's workflow as the API meets it: started or found, waited for, and asked what it was started with.

Every call may be repeated: the same id finds the workflow that there is, or says that it has ended.
"""

import asyncio
from dataclasses import asdict, dataclass
from datetime import datetime

from pydantic import TypeAdapter
from temporalio.client import Client, RPCTimeoutOrCancelledError, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from api.service.deadline import Deadline
from api.service.payment_run import CALL_LIMIT, START_LIMIT_S, amount_text, read_input, starting
from engine.bank.accepted import find_boarded, note_boarded
from engine.contracts import queues, workflow_ids
from engine.contracts.batch import BatchOutcome, BatchRequest, batch_attributes
from engine.domain.ids import AccountId, BatchId
from engine.ledger.database import Connection
from workflows.batch import BatchWorkflow

Handle = WorkflowHandle[BatchWorkflow, BatchOutcome]

_LISTED = 100
_REQUEST = TypeAdapter(BatchRequest)


@dataclass(frozen=True, slots=True)
class Started:
    """What a running workflow was started with, and when."""

    request: BatchRequest
    at: datetime


async def start(client: Client, asked: BatchRequest) -> tuple[Handle, bool]:
    """The workflow, and whether this call started it. Raises Unavailable when Temporal did not answer: a repeat with
    the same key finds whatever there is."""
    workflow_id = workflow_ids.batch(asked.account_id, asked.idempotency_key)
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
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                    static_summary=f"{len(asked.items)} internal payments, {total} in all, for {asked.account_id}",
                    static_details=_listed(asked),
                    search_attributes=batch_attributes(asked),
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


async def find_accepted(conn: Connection, batch_id: BatchId) -> Started | None:
    """A batch whose caller was told to come back, and that no worker has opened."""
    boarded = await find_boarded(conn, batch_id)
    if boarded is None or boarded.request is None:
        return None
    return Started(_REQUEST.validate_python(boarded.request), boarded.created_at)


async def keep_accepted(conn: Connection, started: Started) -> Started | None:
    """Before a caller is told to come back: from now on the workflow can be begun again from the request.

    Gives what is kept, which another caller may have accepted before; None when a worker has opened that meanwhile.
    """
    asked = started.request
    body_hash = bytes.fromhex(asked.body_hash)
    kept = await note_boarded(
        conn,
        asked.batch_id,
        workflow_ids.batch(asked.account_id, asked.idempotency_key),
        started.at,
        body_hash,
        request=asdict(asked),
        kind="batch",
    )
    return started if kept == body_hash else await find_accepted(conn, asked.batch_id)


def _listed(asked: BatchRequest) -> str:
    """For people who look at a batch: whom it pays, as far as Temporal takes the text."""
    lines = [f"- {amount_text(each.amount_msat)} to `{each.destination[:50]}`" for each in asked.items[:_LISTED]]
    more = len(asked.items) - len(lines)
    return "\n".join([*lines, f"- and {more} more"] if more else lines)
