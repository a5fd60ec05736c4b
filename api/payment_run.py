"""A payment's workflow as the API meets it: started or found, waited for, and asked what it was started with.

Starting is repeatable: the same id finds the running workflow, or says that it has ended. Whatever goes wrong between
us and Temporal leaves either no workflow or exactly one, so the caller may always repeat with its key.
"""

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

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

from api.waiting import Deadline
from engine.contracts import queues
from engine.contracts.payment import PaymentOutcome, PaymentRequest
from engine.domain.errors import InvariantBroken, Unavailable
from engine.domain.ids import AccountId
from engine.domain.money import MSAT_PER_SAT, Msat, msat_to_sat_floor
from workflows.payment import PaymentWorkflow

Handle = WorkflowHandle[PaymentWorkflow, PaymentOutcome]

PAYMENT_ID = re.compile(r"pay_[0-9a-z]{25}")
_CALL_LIMIT = timedelta(seconds=5)
_START_LIMIT_S = 12
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


async def start(client: Client, asked: PaymentRequest, *, payee: str) -> tuple[Handle, bool]:
    """Start the payment, or find it: (its workflow, whether this call started it).

    Raises Unavailable when Temporal did not answer: a repeat with the same key finds whatever there is.
    """
    workflow_id = queues.payment_workflow_id(asked.account_id, asked.idempotency_key)
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            handle = await client.start_workflow(
                PaymentWorkflow.run,
                asked,
                id=workflow_id,
                task_queue=queues.PAYMENTS,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                static_summary=f"pay {_amount(asked.amount_msat)} to {payee} for {asked.account_id}",
                search_attributes=_search_attributes(asked),
                task_timeout=queues.TASK_TIMEOUT,
                rpc_timeout=_CALL_LIMIT,
            )
    except WorkflowAlreadyStartedError:
        return find(client, workflow_id), False
    except RPCError as error:
        if error.status in _OUR_MISTAKE:
            raise InvariantBroken(f"Temporal refused to start {workflow_id}: {error}") from error
        raise _away(error) from error
    except (RuntimeError, TimeoutError) as error:  # a lazy client that cannot connect says RuntimeError
        raise _away(error) from error
    # Private in the SDK, and the only place that tells a start from a find; without it a find is not marked as one.
    response = vars(handle).get("_start_workflow_response")
    return handle, bool(getattr(response, "started", True))


def find(client: Client, workflow_id: str) -> Handle:
    """The workflow of this id, if there is one."""
    return client.get_workflow_handle_for(PaymentWorkflow.run, workflow_id)


def workflow_id_of(account_id: AccountId, payment_id: str) -> str:
    """Where the account's payment with this id would run: both ids share the digest of the key."""
    return f"payment-{account_id}-{payment_id.partition('_')[2]}"


async def wait_for_end(handle: Handle, deadline: Deadline) -> PaymentOutcome | None:
    """How it ended. None when it has not by then, or Temporal cannot tell (then Postgres may)."""
    try:
        async with asyncio.timeout(deadline.left_s):
            return await handle.result()
    except (TimeoutError, RPCError, RPCTimeoutOrCancelledError, WorkflowFailureError, RuntimeError):
        return None


async def find_started(handle: Handle) -> Started | None:
    """What the workflow was started with, while it runs. None when it has ended, or never was.

    Raises Unavailable when Temporal does not answer.
    """
    try:
        description = await handle.describe(rpc_timeout=_CALL_LIMIT)
        if description.status is not WorkflowExecutionStatus.RUNNING:
            return None
        async for event in handle.fetch_history_events(page_size=1, rpc_timeout=_CALL_LIMIT):
            attributes = event.workflow_execution_started_event_attributes
            (request,) = await description.data_converter.decode(attributes.input.payloads, [PaymentRequest])
            return Started(request, event.event_time.ToDatetime(UTC))
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise _away(error) from error
    except (RPCTimeoutOrCancelledError, RuntimeError) as error:
        raise _away(error) from error
    return None


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"Temporal: {error}", code="temporarily_unavailable")


def _search_attributes(asked: PaymentRequest) -> TypedSearchAttributes:
    pairs: list[SearchAttributePair[str] | SearchAttributePair[int] | SearchAttributePair[bool]] = [
        SearchAttributePair(queues.KIND, "payment"),
        SearchAttributePair(queues.STATUS, "pending"),
        SearchAttributePair(queues.ACCOUNT, asked.account_id),
        SearchAttributePair(queues.AMOUNT_SAT, msat_to_sat_floor(asked.amount_msat)),
        SearchAttributePair(queues.NEEDS_OPERATOR, value=False),
    ]
    if asked.payment_hash is not None:
        pairs.append(SearchAttributePair(queues.PAYMENT_HASH, asked.payment_hash))
    return TypedSearchAttributes(pairs)


def _amount(amount_msat: Msat) -> str:
    if amount_msat % MSAT_PER_SAT:
        return f"{amount_msat:,} msat"
    return f"{msat_to_sat_floor(amount_msat):,} sat"
