"""What two operators decide once: it waits for the second one, and is then done or rejected for good."""

from datetime import datetime

from pydantic import BaseModel, Field

from engine.domain.errors import Conflict
from engine.domain.forced_end import DecisionStatus


class DecisionBase(BaseModel):
    """A proposal and what has become of it: a `two_operators.Proposal`."""

    id: str
    reason: str
    status: DecisionStatus
    proposed_by: str = Field(description="An account, or 'admin' for the bootstrap key.")
    decided_by: str | None
    note: str | None = Field(description="The note of the operator who approved or rejected it.")
    created_at: datetime
    decided_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether it waits for a second operator."""
        return self.status is DecisionStatus.PROPOSED

    @property
    def approved_by(self) -> str | None:
        """The second operator, who said yes."""
        return self.decided_by if self.status is DecisionStatus.DONE else None

    @property
    def rejected_by(self) -> str | None:
        """The operator who said no."""
        return self.decided_by if self.status is DecisionStatus.REJECTED else None

    def decided(self) -> Conflict:
        """The refusal of another decision."""
        return Conflict("This is decided already; its row says how.", code="decision_made")
