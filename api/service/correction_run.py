"""A correction's workflow as the API meets it: started or found, waited for, and told an operator's word.

Every call may be repeated: the same id finds the workflow that there is, and the same word of the same operator is the
same decision.
"""

import asyncio
from contextlib import suppress

from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from api.service import temporal
from api.service.idempotency import Intent, check_same
from api.service.resources import Resources
from api.service.two_operators import own_proposal
from engine.bank.idempotency import find_key
from engine.contracts.correction import Decision
from engine.domain.errors import Conflict, InvariantBroken, NotFound, Unavailable
from workflows.correction import CorrectionWorkflow

_LIMIT_S = 12
_POLL_S = 0.05


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
            await temporal.tell(client, workflow_id, CorrectionWorkflow.decide, word, limit_s=_LIMIT_S)
    except ApplicationError as refusal:
        if refusal.type == "OwnProposal":
            raise own_proposal() from refusal
        if refusal.type != "CorrectionDecided":
            raise
        raise Conflict("Another operator has decided this.", code="correction_decided") from refusal
