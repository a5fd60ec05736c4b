"""What a second operator says to what a first has proposed: yes with a note, or no with a reason.

The second is another person: neither the same account, nor a key that comes from the same account as the first's. The
bootstrap key comes from nowhere: who has it has the bank's configuration, and no rule of the API binds him.
"""

from typing import Annotated

from pydantic import Field

from api.http.body import Content, Text
from api.http.codes import Forbidden
from api.service.auth import Caller
from engine.bank.accounts import are_of_one_person
from engine.bank.audit import find_proposer_key
from engine.domain.correction import LONGEST_REASON
from engine.domain.ids import ApiKeyId
from engine.ledger.database import Connection

Reason = Annotated[Text, Field(min_length=1, max_length=LONGEST_REASON, pattern=r"\S")]


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
