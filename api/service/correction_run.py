"""A correction's workflow as the API meets it: started or found, waited for, and told an operator's word.

Every call may be repeated: the same id finds the workflow that there is, and the same word of the same operator is the
same decision.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError

from api.service.idempotency import Intent, check_same
from api.service.resources import Resources
from api.service.temporal import temporal_away
from api.service.two_operators import own_proposal, telling
from engine.bank.idempotency import find_key
from engine.contracts import queues, workflow_ids
from engine.contracts.correction import Decision, Proposal, correction_attributes, correction_summary
from engine.domain.errors import Conflict, InvariantBroken, NotFound, Unavailable
from workflows.correction import CorrectionWorkflow

_CALL_LIMIT = timedelta(seconds=5)
_LIMIT_S = 12
_POLL_S = 0.05


async def start(client: Client, proposal: Proposal) -> bool:
    """Start the workflow; False when there is one already, which then is this key's."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            await client.start_workflow(
                CorrectionWorkflow.run,
                proposal,
                id=workflow_ids.correction(proposal.correction),
                task_queue=queues.PAYMENTS,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                static_summary=correction_summary(proposal),
                search_attributes=correction_attributes(proposal),
                task_timeout=queues.TASK_TIMEOUT,
                rpc_timeout=_CALL_LIMIT,
            )
    except WorkflowAlreadyStartedError:
        return False
    except (RPCError, RuntimeError, TimeoutError) as error:
        raise temporal_away(error) from error
    return True


async def until_kept(resources: Resources, intent: Intent) -> str:
    """The id of the proposal, once the workflow has taken the key for it.

    Raises Conflict when another request took it, and Unavailable when no worker did: a repeat finds what came of it.
    """
    if intent.key is None:
        raise InvariantBroken("a proposal has a key")
    try:
        async with asyncio.timeout(_LIMIT_S):
            while True:
                async with resources.reading() as conn:
                    known = await find_key(conn, intent.owner, intent.key)
                if known is not None and known.resource_id is not None:
                    check_same(known.body_hash, intent.body_hash)
                    return known.resource_id
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise Unavailable("no worker has taken the proposal yet", code="temporarily_unavailable") from error


async def tell(client: Client, workflow_id: str, word: Decision) -> None:
    """Returns when it is decided and, if approved, posted or refused by the books; or when it had ended before.

    Raises Forbidden (`own_proposal`), Conflict (`correction_decided`), and Unavailable when Temporal does not answer.
    """
    try:
        with suppress(NotFound):  # it has ended meanwhile, and the row says how
            async with telling(workflow_id, _LIMIT_S):
                await client.get_workflow_handle(workflow_id).execute_update(CorrectionWorkflow.decide, word)
    except ApplicationError as refusal:
        if refusal.type == "OwnProposal":
            raise own_proposal() from refusal
        if refusal.type != "CorrectionDecided":
            raise
        raise Conflict("Another operator has decided this.", code="correction_decided") from refusal
