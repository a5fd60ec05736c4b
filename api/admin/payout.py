"""The door to payouts and batchers, for operators. The use cases are in api/service/payout/ and
api/service/withdrawal_decision/. Nothing here calls bitcoind."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from api.access import PathId, get_resources, needs_role
from api.admin.approval import Reason
from api.http.body import Body, Content, JsonBody, documented
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.payout import batcher, story
from api.service.payout.batcher import BatcherOut
from api.service.payout.story import PayoutFilter, PayoutOut, PayoutStoryOut
from api.service.resources import Resources
from api.service.role import MAY
from api.service.withdrawal_decision import propose
from api.service.withdrawal_decision.answer import WithdrawalDecisionOut
from engine.domain.withdrawal.decision import WithdrawalDecisionKind
from engine.domain.withdrawal.withdrawal import PayoutStatus, Speed

router = APIRouter(prefix="/v1/admin", tags=["operators"])
Reader = Annotated[Caller, Depends(needs_role(*MAY["see withdrawals"]))]
Operator = Annotated[Caller, Depends(needs_role(*MAY["decide about payouts"]))]
Res = Annotated[Resources, Depends(get_resources)]
_HIGHEST_RATE = 10_000_000


class PayoutsQuery(Paging):
    """Which payouts; all conditions count together."""

    status: PayoutStatus | None = None
    speed: Speed | None = None
    waits_for_operator: bool = Field(default=False, description="Only those with a problem, or on hold.")

    @property
    def wanted(self) -> PayoutFilter:
        """The conditions."""
        return PayoutFilter(**self.model_dump(exclude={"limit", "after"}))


class PayoutDecisionIn(Content):
    """What is to become of the payout."""

    kind: Literal["hold", "resume", "bump", "child"] = Field(
        description="`hold`: no further step is taken. `resume`: steps are taken again. `bump`: another version pays a "
        "higher fee. `child`: another payout spends its change, and pulls it into a block."
    )
    rate_sat_kvb: Annotated[int, Field(ge=1, le=_HIGHEST_RATE)] | None = Field(
        default=None,
        description="For `bump` and `child`: the fee rate in sat per 1,000 virtual bytes, within the bounds of the "
        "rules. By default what the present estimate asks for.",
    )
    reason: Reason


class FlushIn(Content):
    """Why the window is not waited for."""

    reason: Reason


class BatchersOut(BaseModel):
    """The batcher of each speed."""

    items: list[BatcherOut]


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


@router.post(
    "/payouts/{payout_id}/decisions",
    status_code=201,
    summary="Decide about a payout",
    responses=problems(
        *("forbidden", "not_found", "invalid_request", "payout_not_waiting", "decision_open", "decision_made"),
        "idempotency_conflict",
    ),
    openapi_extra=documented(
        PayoutDecisionIn,
        bump={"kind": "bump", "rate_sat_kvb": 40_000, "reason": "no block has taken it for a day"},
        hold={"kind": "hold", "reason": "the node is being replaced"},
    ),
)
async def decide_payout(
    response: Response,
    caller: Operator,
    key: Annotated[str | None, Depends(optional_key)],
    body: Annotated[Body[PayoutDecisionIn], Depends(JsonBody(PayoutDecisionIn))],
    resources: Res,
    payout_id: PathId,
) -> WithdrawalDecisionOut:
    """Role: `treasury` or `finance`. Done at once; for a payout above `second_operator_above_sat` of the rules, all but
    `hold` waits for another operator, as `proposed`.

    What a bump or a child costs is the bank's, never the members'. The same by the same operator while it is open is a
    repeat. With an Idempotency-Key, a later one is, too.
    """
    asked = body.content
    order = propose.DecisionOrder(
        kind=WithdrawalDecisionKind(asked.kind), rate_sat_kvb=asked.rate_sat_kvb, reason=asked.reason, key=key
    )
    made = await propose.decide_payout(resources, caller, payout_id, order)
    if made.is_replay:
        mark_replayed(response)
    response.headers["Location"] = f"{router.prefix}/withdrawal-decisions/{made.content.id}"
    return made.content


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
) -> BatcherOut:
    """Role: `treasury` or `finance`. Does not wait for the window. What lacks money, coins or an approval still waits.

    A repeat while nothing new waits changes nothing.
    """
    return await batcher.flush_batcher(resources, caller, speed, reason=body.content.reason)
