"""Reconciliation for operators: the runs, a run on demand, and the cases that wait for an operator. The use cases.

Nothing here moves money. A case is ended by its workflow, which writes operator and reason into a trail that nobody can
change. The operator is the account of the key, or `admin` for the bootstrap key.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from temporalio.exceptions import ApplicationError

from api.service import temporal
from api.service.auth import Caller, no_such
from api.service.resources import Resources
from api.service.role import MAY
from engine.contracts import workflow_ids
from engine.contracts.reconciliation import CaseResolution, FindingKind, Reconcile, asked_reconciliation
from engine.domain.errors import Conflict, NotFound, Unavailable
from engine.domain.ids import CaseId
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views import reconciliation as views
from workflows.reconciliation import CaseWorkflow

_LIMIT_S = 12
_LONGEST_TRAIL = 1_000
"""Lines of a case that are shown, the newest: the trail of one that comes and goes with every run has no end."""


class InFlightOut(BaseModel):
    """What a place has moved and the books have not yet, or stands in another account of the same place."""

    kind: str
    ref: str
    amount_msat: int


class ReconciledAccountOut(BaseModel):
    """One asset account, in the books and at its place."""

    account: str = Field(examples=["asset:lnd:lnd-1:channels"])
    books_msat: int
    place_msat: int
    in_flight: list[InFlightOut]
    difference_msat: int = Field(description="books − place − in flight")


class SuspectOut(BaseModel):
    """What may be the reason of a difference."""

    kind: str = Field(examples=["payment_hash"])
    ref: str
    amount_msat: int
    detail: str


class FindingOut(BaseModel):
    """One thing that a run found."""

    kind: FindingKind
    account: str
    subject: str
    amount_msat: int
    detail: str
    suspects: list[SuspectOut]


class RunOut(BaseModel):
    """One run."""

    id: str
    workflow_id: str
    status: str = Field(description="running, clean, explained, differs or incomplete")
    accounts: list[ReconciledAccountOut]
    broken_rules: list[str]
    findings: list[FindingOut]
    created_at: datetime
    finished_at: datetime | None


class StartedOut(BaseModel):
    """A run that was asked for, or is under way already."""

    id: str
    workflow_id: str


class UpdateOut(BaseModel):
    """A line of a case's trail."""

    event: str = Field(description="opened, vanished, found_again, explained or closed")
    actor: str
    note: str
    at: datetime


class CaseOut(BaseModel):
    """A difference that waits for an operator's word, or has it."""

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


async def start_reconciliation(resources: Resources, caller: Caller, key: str | None = None) -> tuple[StartedOut, bool]:
    """(the run, whether this call started it). With a key a run is started once; without, one that runs is found."""
    caller.require_role(*MAY["reconcile"])
    asked = Reconcile(asked_by=caller.owner, key_id=caller.key_id)
    started = await temporal.start(resources.temporal, asked_reconciliation(asked, caller.owner, key))
    run_id = f"rec_{started.run_id.replace('-', '')}"
    return StartedOut(id=run_id, workflow_id=started.handle.id), started.is_new


async def list_runs(resources: Resources, caller: Caller, *, after: Position = START, limit: int) -> Slice[RunOut]:
    """One page, newest first."""
    caller.require_role(*MAY["reconcile"])
    async with resources.reading() as conn:
        found = await views.list_runs(conn, after, limit)
    return found.map(_run)


async def show_run(resources: Resources, caller: Caller, run_id: str) -> RunOut:
    """One run. Raises NotFound until a worker has begun it."""
    caller.require_role(*MAY["reconcile"])
    async with resources.reading() as conn:
        row = await views.find_run(conn, run_id)
    if row is None:
        raise no_such("run")
    return _run(row)


async def list_cases(resources: Resources, caller: Caller, *, after: Position = START, limit: int) -> Slice[CaseOut]:
    """One page, newest first, whatever their status."""
    caller.require_role(*MAY["reconcile"])
    async with resources.reading() as conn:
        found = await views.list_cases(conn, after, limit)
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


def _run(row: dict[str, Any]) -> RunOut:
    report = row["report"] or {"accounts": [], "findings": []}
    broken = [each["detail"] for each in report["findings"] if each["kind"] == FindingKind.BROKEN_RULE]
    return RunOut(**{**row, **report, "broken_rules": broken})


def _case(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "workflow_id": workflow_ids.case(CaseId(row["id"]))}


async def _read_case(conn: Connection, case_id: str) -> CaseWithTrail:
    row = await views.find_case(conn, case_id)
    if row is None:
        raise no_such("case")
    trail = await views.list_trail(conn, case_id, _LONGEST_TRAIL)
    return CaseWithTrail(**_case(row), trail=[UpdateOut(**line) for line in trail])
