"""Forced ends, "decisions" in the API, as they are answered: one, or a page of them."""

from typing import Any

from pydantic import Field

from api.service.auth import Caller
from api.service.decision import DecisionBase
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.errors import no_such
from engine.domain.forced_end import DecisionEnd, DecisionStatus
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views.forced_end import DECISIONS, find_decision


class DecisionOut(DecisionBase):
    """A proposal and what has become of it."""

    id: str = Field(examples=["dec_4t7q2v6x1b0n8r5d01k5y8z3c"])
    payment_id: str
    end: DecisionEnd
    preimage: str | None
    fee_msat: int


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
