"""The door to reconciliation: runs, a run on demand, and cases. The use cases are in api/service/reconciliation/.

difference_msat = books − place − in flight     per asset account
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from api.access import PathId, get_resources, needs_role
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.reconciliation import case, resolve, run
from api.service.reconciliation.case import CaseOut, CaseWithTrail
from api.service.reconciliation.run import RunOut, StartedOut
from api.service.resources import Resources
from api.service.role import MAY

router = APIRouter(prefix="/v1/admin/reconciliation", tags=["operators"])
Operator = Annotated[Caller, Depends(needs_role(*MAY["reconcile"]))]
Res = Annotated[Resources, Depends(get_resources)]
Reason = Annotated[Text, Field(min_length=1, max_length=1000, pattern=r"\S")]


class ResolutionIn(Content):
    """Why there is this difference, or what was done about it."""

    reason: Reason


@router.post("", status_code=202, summary="Start a reconciliation", responses=problems("forbidden"))
async def start_reconciliation(
    response: Response,
    caller: Operator,
    key: Annotated[str | None, Depends(optional_key)],
    resources: Res,
) -> StartedOut:
    """Role: `finance` or `treasury`. Without a key, a requested run that is still under way is the answer."""
    started, is_new = await run.start_reconciliation(resources, caller, key)
    if key is not None and not is_new:
        mark_replayed(response)
    response.headers["Location"] = f"{router.prefix}/runs/{started.id}"
    response.headers["Retry-After"] = "1"
    return started


@router.get("", summary="List the last runs", responses=problems("forbidden", "invalid_request"))
async def list_reconciliations(caller: Operator, resources: Res, paging: Annotated[Paging, Query()]) -> Page[RunOut]:
    """Role: `finance` or `treasury`. Newest first."""
    name = "reconciliations"
    found = await run.list_runs(resources, caller, after=position(paging, name), limit=paging.limit)
    return page_of(found, name)


@router.get("/runs/{run_id}", summary="Show a run", responses=problems("forbidden", "not_found"))
async def show_reconciliation(caller: Operator, resources: Res, run_id: PathId) -> RunOut:
    """Role: `finance` or `treasury`. A run exists as soon as a worker has begun it."""
    return await run.show_run(resources, caller, run_id)


@router.get("/cases", summary="List cases", responses=problems("forbidden", "invalid_request"))
async def list_cases(caller: Operator, resources: Res, paging: Annotated[Paging, Query()]) -> Page[CaseOut]:
    """Role: `finance` or `treasury`. Newest first, whatever their status."""
    found = await case.list_cases(resources, caller, after=position(paging, "cases"), limit=paging.limit)
    return page_of(found, "cases")


@router.get("/cases/{case_id}", summary="Show a case", responses=problems("forbidden", "not_found"))
async def show_case(caller: Operator, resources: Res, case_id: PathId) -> CaseWithTrail:
    """Role: `finance` or `treasury`. With the newest 1,000 lines of its trail, the oldest of them first."""
    return await case.show_case(resources, caller, case_id)


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
    """Role: `finance` or `treasury`. Records the reason, once. Moves no money. The caller is named.

    The same request by the same operator is a repeat and gets the case as it is. Any other is refused.
    """
    return await resolve.resolve_case(resources, caller, case_id, reason=body.content.reason)
