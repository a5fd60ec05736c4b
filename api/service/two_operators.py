"""What a second operator says to what a first has proposed: yes with a note, or no with a reason.

The second is another person: neither the same account, nor a key that comes from the same account as the first's. The
bootstrap key comes from nowhere: who has it has the bank's configuration, and no rule of the API binds him.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from pydantic import Field
from temporalio.client import RPCTimeoutOrCancelledError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from api.http.body import Content, Text
from api.http.codes import Forbidden
from api.service.auth import Caller
from api.service.temporal import temporal_away
from engine.bank.accounts import are_of_one_person
from engine.bank.audit import find_proposer_key
from engine.contracts import updates
from engine.domain.correction import LONGEST_REASON
from engine.domain.errors import NotFound, Unavailable
from engine.domain.ids import ApiKeyId
from engine.ledger.database import Connection

Reason = Annotated[Text, Field(min_length=1, max_length=LONGEST_REASON, pattern=r"\S")]

_WORD_LOST = frozenset({updates.NOT_YET, "AcceptedUpdateCompletedWorkflow"})
"""Types of failure, ours and Temporal's, of a word whose workflow went on in a new run or was ended meanwhile."""


class ApprovalIn(Content):
    """Yes."""

    note: Annotated[Text, Field(max_length=LONGEST_REASON)] = ""


class RejectionIn(Content):
    """No, or taken back."""

    reason: Reason


async def require_another_person(conn: Connection, caller: Caller, subject: str, proposed_by: str) -> None:
    """Raises Forbidden (`own_proposal`) when the caller's key is in the hands of whoever has proposed this."""
    if proposed_by == caller.owner:
        raise own_proposal()
    proposer = await find_proposer_key(conn, subject)
    if proposer is not None and await are_of_one_person(conn, ApiKeyId(caller.key_id), ApiKeyId(proposer)):
        raise own_proposal()


def own_proposal() -> Forbidden:
    """Two people are needed."""
    return Forbidden(
        "You cannot approve what you, or a key from the same account, proposed: another operator must.",
        code="own_proposal",
    )


@asynccontextmanager
async def telling(workflow_id: str, limit_s: float) -> AsyncIterator[None]:
    """In the block a workflow is told an operator's word, by an update that ends within so many seconds.

    Raises ApplicationError, the workflow's own no; NotFound when it does not run; and Unavailable when Temporal does
    not answer, or when the word was lost: nothing was decided as far as is known, and the same word again finds what
    there is.
    """
    try:
        async with asyncio.timeout(limit_s):
            yield
    except WorkflowUpdateFailedError as failed:
        if not isinstance(failed.cause, ApplicationError):
            raise
        if failed.cause.type in _WORD_LOST:
            raise Unavailable(f"{workflow_id} has no end yet", code="temporarily_unavailable") from failed
        raise failed.cause from failed
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise NotFound(f"{workflow_id} does not run") from error
        raise temporal_away(error) from error
    except (RPCTimeoutOrCancelledError, RuntimeError, TimeoutError) as error:
        raise temporal_away(error) from error
