"""Cases of the reconciliation for operators: differences that wait for a reason. The use cases, for any door.

A case is ended by its workflow, which writes operator and reason into a trail that nobody can change. It moves no
money. The operator is the account of the key, or `admin` for the bootstrap key.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from temporalio.exceptions import ApplicationError

from api.service import temporal
from api.service.auth import Caller
from api.service.reconciliation.run import SuspectOut
from api.service.resources import Resources
from api.service.role import MAY
from engine.contracts import workflow_ids
from engine.contracts.reconciliation import CaseResolution, FindingKind
from engine.domain.errors import Conflict, NotFound, Unavailable, no_such
from engine.domain.ids import CaseId
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views.reconciliation import CASES, find_case, list_trail
from workflows.reconciliation import CaseWorkflow

_LIMIT_S = 12
_LONGEST_TRAIL = 1_000
"""Lines of a case that are shown, the newest: the trail of one that comes and goes with every run has no end."""


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
    status: str = Field(description="open, explained (and still found) or closed (explained, and gone)")
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
        return await _read_case(conn, case_id)


async def resolve_case(resources: Resources, caller: Caller, case_id: str, *, reason: str) -> CaseWithTrail:
    """The case with its reason, which is written once. It moves no money.

    The same reason of the same operator again is a repeat. Raises NotFound, Conflict (`case_resolved`) for another
    one, and Unavailable when Temporal does not answer or the case's workflow does not run.
    """
    caller.require_role(*MAY["reconcile"])
    async with resources.reading() as conn:
        known = await _read_case(conn, case_id)
    if known.status != "open":
        if (known.resolved_by, known.note) == (caller.owner, reason):
            return known
        raise _resolved(known.resolved_by)
    await _tell(resources, known, CaseResolution(operator=caller.owner, key_id=caller.key_id, reason=reason))
    async with resources.reading() as conn:
        return await _read_case(conn, case_id)


async def _tell(resources: Resources, known: CaseWithTrail, resolution: CaseResolution) -> None:
    try:
        await temporal.tell(resources.temporal, known.workflow_id, CaseWorkflow.resolve, resolution, limit_s=_LIMIT_S)
    except ApplicationError as refusal:
        if refusal.type == "CaseResolved":
            raise _resolved(None) from refusal
        raise
    except NotFound as error:  # ended since, or the run that opened the case has yet to start its workflow
        raise Unavailable(error.detail, code="temporarily_unavailable") from error


def _resolved(operator: str | None) -> Conflict:
    by = f" by {operator}" if operator else ""
    return Conflict(f"This case has been resolved{by}; its trail says how.", code="case_resolved")


def _case(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "workflow_id": workflow_ids.case(CaseId(row["id"]))}


async def _read_case(conn: Connection, case_id: str) -> CaseWithTrail:
    row = await find_case(conn, case_id)
    if row is None:
        raise no_such("case")
    trail = await list_trail(conn, case_id, _LONGEST_TRAIL)
    return CaseWithTrail(**_case(row), trail=[UpdateOut(**line) for line in trail])
