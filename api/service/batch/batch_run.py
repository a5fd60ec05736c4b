"""The run of a batch: its workflow, started or found, waited for, and asked what it was started with.

Every call may be repeated: the same id finds the running workflow, or says that it has ended.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from temporalio.client import Client, WorkflowHandle

from api.service import temporal
from api.service.deadline import Deadline
from engine.bank import accepted
from engine.contracts import workflow_ids
from engine.contracts.batch import BatchOutcome, BatchRequest, batch_start
from engine.domain.ids import AccountId, BatchId
from engine.ledger.database import Connection
from workflows.batch import BatchWorkflow

Handle = WorkflowHandle[Any, BatchOutcome]

_REQUEST = TypeAdapter(BatchRequest)


@dataclass(frozen=True, slots=True)
class Started:
    """What a running workflow was started with, and when."""

    request: BatchRequest
    at: datetime


async def start(client: Client, asked: BatchRequest) -> tuple[Handle, bool]:
    """The workflow, and whether this call started it. Raises Unavailable when Temporal did not answer: a repeat with
    the same key finds the workflow, if there is one."""
    started = await temporal.start(client, batch_start(asked))
    return started.handle, started.is_new


def find(client: Client, workflow_id: str) -> Handle:
    """The workflow of this id, if there is one."""
    return client.get_workflow_handle_for(BatchWorkflow.run, workflow_id)


async def wait_for_end(handle: Handle, deadline: Deadline) -> BatchOutcome | None:
    """How it ended. None when it has not by then, or Temporal cannot tell (then Postgres may)."""
    return await temporal.wait(handle, deadline.left_s)


async def find_started(client: Client, account_id: AccountId, batch_id: str) -> Started | None:
    """What the account's batch with this id was started with, while it runs. Raises Unavailable."""
    workflow_id = f"batch-{account_id}-{batch_id.partition('_')[2]}"
    found = await temporal.read_input(client.get_workflow_handle_for(BatchWorkflow.run, workflow_id), BatchRequest)
    return found and Started(*found)


async def find_accepted(conn: Connection, batch_id: BatchId) -> Started | None:
    """A batch whose caller was told 202, and that no worker has opened."""
    row = await accepted.find_accepted(conn, batch_id)
    if row is None or row.request is None:
        return None
    return Started(_REQUEST.validate_python(row.request), row.created_at)


async def keep_accepted(conn: Connection, started: Started) -> Started | None:
    """Store the request before its caller is told 202: from now on the workflow can be started again from it.

    Returns what is stored, perhaps by an earlier request. None when a worker has opened the batch meanwhile.
    """
    asked = started.request
    body_hash = bytes.fromhex(asked.body_hash)
    kept = await accepted.note_accepted(
        conn,
        asked.batch_id,
        workflow_ids.batch(asked.account_id, asked.idempotency_key),
        started.at,
        body_hash,
        request=asdict(asked),
        kind="batch",
    )
    return started if kept == body_hash else await find_accepted(conn, asked.batch_id)
