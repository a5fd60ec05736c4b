"""Forced ends, "decisions" in the API, as they are answered: one, or a page of them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.errors import Conflict, no_such
from engine.domain.forced_end import DecisionEnd, DecisionStatus
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views.forced_end import DECISIONS, find_decision


class DecisionOut(BaseModel):
    """A proposal and what has become of it."""

    id: str = Field(examples=["dec_4t7q2v6x1b0n8r5d01k5y8z3c"])
    payment_id: str
    end: DecisionEnd
    preimage: str | None
    fee_msat: int
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


async def list_decisions(
    resources: Resources, caller: Caller, status: DecisionStatus | None = None, *, after: Position = START, limit: int
) -> Slice[DecisionOut]:
    """One page, newest first."""
    caller.require_role(*MAY["end a payment by force"])
    async with resources.reading() as conn:
        found = await DECISIONS.read(conn, after, limit, status)
    return found.map(_shown)


async def show_decision(resources: Resources, caller: Caller, decision_id: str) -> DecisionOut:
    """One decision. Raises NotFound."""
    caller.require_role(*MAY["end a payment by force"])
    async with resources.reading() as conn:
        return await read(conn, decision_id)


async def read(conn: Connection, decision_id: str) -> DecisionOut:
    """One decision. Raises NotFound."""
    row = await find_decision(conn, decision_id)
    if row is None:
        raise no_such("decision")
    return _shown(row)


def _shown(row: dict[str, Any]) -> DecisionOut:
    return DecisionOut(**row, end=row["payment_end"])
