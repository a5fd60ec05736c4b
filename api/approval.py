"""What a second operator says to what a first has proposed: yes with a note, or no with a reason."""

from typing import Annotated

from pydantic import Field

from api.body import Content, Text
from api.errors import Forbidden
from engine.domain.correction import LONGEST_REASON

Reason = Annotated[Text, Field(min_length=1, max_length=LONGEST_REASON, pattern=r"\S")]


class ApprovalIn(Content):
    """Yes."""

    note: Annotated[Text, Field(max_length=LONGEST_REASON)] = ""


class RejectionIn(Content):
    """No, or taken back."""

    reason: Reason


def own_proposal() -> Forbidden:
    """Two people are needed."""
    return Forbidden("Nobody approves what he proposed himself: another operator must.", code="own_proposal")
