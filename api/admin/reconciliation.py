"""Reconciliation for operators: the last runs, a run on demand, and the cases that wait for somebody's word.

    difference_msat = books − place − in flight     per asset account

Nothing here moves money. A case is ended by its workflow, which writes operator and reason into a trail that nobody can
change; here the operator is the account of the key that asked, or `admin` for the bootstrap key.
"""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from api.access import PathId, get_resources, needs_role
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.paging import Page, Paging, page_of, position
from api.service import temporal
from api.service.auth import Caller, no_such
from api.service.resources import Resources
from api.service.role import MAY
from engine.contracts import workflow_ids
from engine.contracts.reconciliation import CaseResolution, FindingKind, Reconcile, asked_reconciliation
from engine.domain.errors import Conflict, NotFound, Unavailable
from engine.domain.ids import CaseId
from engine.ledger.database import Connection
from engine.views.page import Listing
from workflows.reconciliation import CaseWorkflow

router = APIRouter(prefix="/v1/admin/reconciliation", tags=["operators"])
Operator = Annotated[Caller, Depends(needs_role(*MAY["reconcile"]))]
Res = Annotated[Resources, Depends(get_resources)]
_RUNS = Listing(columns="*", source="bank.reconciliations")
_LONGEST_TRAIL = 1_000
"""So many lines of a case are shown, the newest: one that comes and goes with every run has no end."""
_CASES = Listing(columns="*", source="bank.cases")
_LIMIT_S = 12


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


class ResolutionIn(Content):
    """Why there is this difference, or what was done about it."""

    reason: Annotated[Text, Field(min_length=1, max_length=1000, pattern=r"\S")]


@router.post("", status_code=202, summary="Start a reconciliation", responses=problems("forbidden"))
async def start_reconciliation(
    response: Response,
    caller: Operator,
    key: Annotated[str | None, Depends(optional_key)],
    resources: Res,
) -> StartedOut:
    """Role: `finance` or `treasury`. Without a key, one that was asked for and still runs is the answer."""
    asked = Reconcile(asked_by=caller.owner, key_id=caller.key_id)
    started = await temporal.start(resources.temporal, asked_reconciliation(asked, caller.owner, key))
    if key is not None and not started.is_new:
        mark_replayed(response)
    run = f"rec_{started.run_id.replace('-', '')}"
    response.headers["Location"] = f"{router.prefix}/runs/{run}"
    response.headers["Retry-After"] = "1"
    return StartedOut(id=run, workflow_id=started.handle.id)


@router.get("", summary="List the last runs", responses=problems("forbidden", "invalid_request"))
async def list_reconciliations(_caller: Operator, resources: Res, paging: Annotated[Paging, Query()]) -> Page[RunOut]:
    """Role: `finance` or `treasury`. Newest first."""
    async with resources.reading() as conn:
        found = await _RUNS.read(conn, position(paging, "reconciliations"), paging.limit)
    return page_of(found.map(_run), "reconciliations")


@router.get("/runs/{run_id}", summary="Show a run", responses=problems("forbidden", "not_found"))
async def show_reconciliation(_caller: Operator, resources: Res, run_id: PathId) -> RunOut:
    """Role: `finance` or `treasury`. A run is there as soon as a worker has begun it."""
    async with resources.reading() as conn:
        row = await conn.fetchrow("SELECT * FROM bank.reconciliations WHERE id = $1", run_id)
    if row is None:
        raise no_such("run")
    return _run(row)


@router.get("/cases", summary="List cases", responses=problems("forbidden", "invalid_request"))
async def list_cases(_caller: Operator, resources: Res, paging: Annotated[Paging, Query()]) -> Page[CaseOut]:
    """Role: `finance` or `treasury`. Newest first, whatever their status."""
    async with resources.reading() as conn:
        found = await _CASES.read(conn, position(paging, "cases"), paging.limit)
    return page_of(found.map(lambda row: CaseOut(**_case(row))), "cases")


@router.get("/cases/{case_id}", summary="Show a case", responses=problems("forbidden", "not_found"))
async def show_case(_caller: Operator, resources: Res, case_id: PathId) -> CaseWithTrail:
    """Role: `finance` or `treasury`. With the newest 1,000 lines of its trail, the oldest of them first."""
    async with resources.reading() as conn:
        return await _read_case(conn, case_id)


@router.post(
    "/cases/{case_id}/resolve",
    summary="Resolve a case",
    responses=problems("forbidden", "not_found", "invalid_request", "case_resolved"),
    openapi_extra=documented(ResolutionIn, by_hand={"reason": "Paid by hand to close the old hosting contract."}),
)
async def resolve_case(
    caller: Operator,
    body: Annotated[Body[ResolutionIn], Depends(JsonBody(ResolutionIn))],
    resources: Res,
    case_id: PathId,
) -> CaseWithTrail:
    """Role: `finance` or `treasury`. Says why, once; it moves no money. The caller is named.

    The same word of the same operator again is a repeat, and gets the case as it is; any other is refused.
    """
    async with resources.reading() as conn:
        known = await _read_case(conn, case_id)
    if known.status != "open":
        if (known.resolved_by, known.note) == (caller.owner, body.content.reason):
            return known
        raise _resolved(known.resolved_by)
    word = CaseResolution(operator=caller.owner, key_id=caller.key_id, reason=body.content.reason)
    await _resolve(resources.temporal, known.workflow_id, word)
    async with resources.reading() as conn:
        return await _read_case(conn, case_id)


async def _resolve(client: Client, workflow_id: str, word: CaseResolution) -> None:
    try:
        await temporal.tell(client, workflow_id, CaseWorkflow.resolve, word, limit_s=_LIMIT_S)
    except ApplicationError as refusal:
        if refusal.type == "CaseResolved":
            raise _resolved(None) from refusal
        raise
    except NotFound as error:  # ended since, or the run that opened it has yet to start it
        raise Unavailable(error.detail, code="temporarily_unavailable") from error


def _resolved(operator: str | None) -> Conflict:
    by = f" by {operator}" if operator else ""
    return Conflict(f"This case has been resolved{by}; its trail says how.", code="case_resolved")


def _run(row: Any) -> RunOut:  # noqa: ANN401 - a record of asyncpg
    report = row["report"] or {"accounts": [], "findings": []}
    broken = [each["detail"] for each in report["findings"] if each["kind"] == FindingKind.BROKEN_RULE]
    return RunOut(**{**row, **report, "broken_rules": broken})


def _case(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a record of asyncpg
    return {**row, "workflow_id": workflow_ids.case(CaseId(row["id"]))}


async def _read_case(conn: Connection, case_id: str) -> CaseWithTrail:
    row = await conn.fetchrow("SELECT * FROM bank.cases WHERE id = $1", case_id)
    if row is None:
        raise no_such("case")
    trail = await conn.fetch(
        """SELECT event, actor, note, at FROM (
               SELECT id, event, actor, note, at FROM bank.case_updates WHERE case_id = $1
                ORDER BY id DESC LIMIT $2) newest ORDER BY id""",
        case_id,
        _LONGEST_TRAIL,
    )
    return CaseWithTrail(**_case(row), trail=[UpdateOut(**line) for line in trail])
