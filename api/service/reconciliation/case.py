"""Cases of the reconciliation, differences that wait for a reason, as they are answered: one, or a page of them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.reconciliation.run import SuspectOut
from api.service.resources import Resources
from api.service.role import MAY
from engine.contracts import workflow_ids
from engine.contracts.reconciliation import FindingKind
from engine.domain.errors import no_such
from engine.domain.ids import CaseId
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views.reconciliation import CASES, find_case, list_trail

_LONGEST_TRAIL = 1_000
"""How many of the newest lines are shown. The trail of a case that comes and goes with every run has no end."""


class UpdateOut(BaseModel):
    """A line of a case's trail."""

    event: str = Field(description="opened, vanished, found_again, explained or closed")
    actor: str
    note: str
    at: datetime


class CaseOut(BaseModel):
    """A difference that waits for an operator's explanation, or has it."""

    id: str
    kind: FindingKind
    account: str
    subject: str
    amount_msat: int
    detail: str
    suspects: list[SuspectOut]
    status: str = Field(description="open, explained (runs still find it), or closed (explained, and no longer found)")
    vanished: bool = Field(description="the last run did not find it any more")
    run: str
    last_seen: str
    note: str | None
    resolved_by: str | None
    resolved_at: datetime | None
    created_at: datetime
    workflow_id: str


class CaseWithTrail(CaseOut):
    """A case and all that happened to it."""

    trail: list[UpdateOut]


async def list_cases(resources: Resources, caller: Caller, *, after: Position = START, limit: int) -> Slice[CaseOut]:
    """One page, newest first, whatever their status."""
    caller.require_role(*MAY["reconcile"])
    async with resources.reading() as conn:
        found = await CASES.read(conn, after, limit)
    return found.map(lambda row: CaseOut(**_case(row)))


async def show_case(resources: Resources, caller: Caller, case_id: str) -> CaseWithTrail:
    """One case with the newest lines of its trail. Raises NotFound."""
    caller.require_role(*MAY["reconcile"])
    async with resources.reading() as conn:
        return await read(conn, case_id)


def _case(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "workflow_id": workflow_ids.case(CaseId(row["id"]))}


async def read(conn: Connection, case_id: str) -> CaseWithTrail:
    """One case with the newest lines of its trail. Raises NotFound."""
    row = await find_case(conn, case_id)
    if row is None:
        raise no_such("case")
    trail = await list_trail(conn, case_id, _LONGEST_TRAIL)
    return CaseWithTrail(**_case(row), trail=[UpdateOut(**line) for line in trail])
