"""Runs of the reconciliation for operators: the last ones, and one on demand. The use cases, for any door.

A run moves no money.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.service import temporal
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from engine.contracts.reconciliation import FindingKind, Reconcile, asked_reconciliation
from engine.domain.errors import no_such
from engine.domain.page import START, Position, Slice
from engine.views.reconciliation import RUNS, find_run


class InFlightOut(BaseModel):
    """Money that a place has moved and the books have not yet, or that another account of the same place has."""

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
    """A possible reason for a difference."""

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
    """A run that was started, or is already under way."""

    id: str
    workflow_id: str


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
        found = await RUNS.read(conn, after, limit)
    return found.map(_run)


async def show_run(resources: Resources, caller: Caller, run_id: str) -> RunOut:
    """One run. Raises NotFound until a worker has begun it."""
    caller.require_role(*MAY["reconcile"])
    async with resources.reading() as conn:
        row = await find_run(conn, run_id)
    if row is None:
        raise no_such("run")
    return _run(row)


def _run(row: dict[str, Any]) -> RunOut:
    report = row["report"] or {"accounts": [], "findings": []}
    broken = [each["detail"] for each in report["findings"] if each["kind"] == FindingKind.BROKEN_RULE]
    return RunOut(**{**row, **report, "broken_rules": broken})
