"""The door to payouts and batchers, for operators. The use cases are in api/service/payout/. Nothing calls bitcoind."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from api.access import PathId, get_resources, needs_role
from api.admin.approval import Reason
from api.http.body import Body, Content, JsonBody, documented
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.payout import batcher, story
from api.service.payout.shape import PayoutOut, PayoutStoryOut
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.withdrawal.withdrawal import PayoutStatus, Speed
from engine.views.withdrawal.payout import PayoutFilter

router = APIRouter(prefix="/v1/admin", tags=["operators"])
Reader = Annotated[Caller, Depends(needs_role(*MAY["see withdrawals"]))]
Operator = Annotated[Caller, Depends(needs_role(*MAY["decide about payouts"]))]
Res = Annotated[Resources, Depends(get_resources)]


class PayoutsQuery(Paging):
    """Which payouts; all conditions count together."""

    status: PayoutStatus | None = None
    speed: Speed | None = None
    waits_for_operator: bool = Field(default=False, description="Only those with a problem, or on hold.")

    @property
    def wanted(self) -> PayoutFilter:
        """The conditions."""
        return PayoutFilter(**self.model_dump(exclude={"limit", "after"}))


class FlushIn(Content):
    """Why the window is not waited for."""

    reason: Reason


class BatchersOut(BaseModel):
    """The batcher of each speed."""

    items: list[batcher.BatcherOut]


@router.get("/payouts", summary="List payouts", responses=problems("forbidden", "invalid_request"))
async def list_payouts(caller: Reader, resources: Res, query: Annotated[PayoutsQuery, Query()]) -> Page[PayoutOut]:
    """Role: `support`, `treasury` or `finance`. Newest first, each with what it waits for."""
    name = f"payouts {query.model_dump_json(exclude={'limit', 'after'})}"
    found = await story.list_payouts(resources, caller, query.wanted, after=position(query, name), limit=query.limit)
    return page_of(found, name)


@router.get("/payouts/{payout_id}", summary="Tell the story of a payout", responses=problems("forbidden", "not_found"))
async def show_payout(caller: Reader, resources: Res, payout_id: PathId) -> PayoutStoryOut:
    """Role: `support`, `treasury` or `finance`. Its versions with their bytes, its coins with whose money they descend
    from, its members with their shares, and what operators decided."""
    return await story.show_payout(resources, caller, payout_id)


@router.get("/batchers", summary="Show the queues of the batchers", responses=problems("forbidden"))
async def list_batchers(caller: Reader, resources: Res) -> BatchersOut:
    """Role: `support`, `treasury` or `finance`. How many wait at each speed, and what a payout would cost now."""
    return BatchersOut(items=await batcher.list_batchers(resources, caller))


@router.post(
    "/batchers/{speed}/flush",
    status_code=202,
    summary="Let what waits at a speed go now",
    responses=problems("forbidden", "invalid_request"),
    openapi_extra=documented(FlushIn, cheap={"reason": "fees are low for the moment"}),
)
async def flush_batcher(
    caller: Operator, body: Annotated[Body[FlushIn], Depends(JsonBody(FlushIn))], resources: Res, speed: Speed
) -> batcher.BatcherOut:
    """Role: `treasury` or `finance`. Does not wait for the window. What lacks money, coins or an approval still waits.

    A repeat while nothing new waits changes nothing.
    """
    return await batcher.flush_batcher(resources, caller, speed, reason=body.content.reason)
