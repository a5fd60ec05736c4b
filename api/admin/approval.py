"""The bodies of an operator's decision on another operator's proposal."""

from typing import Annotated

from pydantic import Field

from api.http.body import Content, Text
from engine.domain.correction import LONGEST_REASON

Reason = Annotated[Text, Field(min_length=1, max_length=LONGEST_REASON, pattern=r"\S")]


class ApprovalIn(Content):
    """The approval of a proposal, with a note."""

    note: Annotated[Text, Field(max_length=LONGEST_REASON)] = ""


class RejectionIn(Content):
    """The rejection of a proposal, or its withdrawal by the proposer."""

    reason: Reason
