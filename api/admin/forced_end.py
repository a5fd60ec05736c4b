"""The door to forced ends, "decisions" in the API. The use cases are in api/service/forced_end/."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from api.access import PathId, get_resources, needs_role
from api.admin.approval import ApprovalIn, Reason, RejectionIn
from api.http.body import Body, Content, Id, JsonBody, Text, documented
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.forced_end import answer, decide, propose
from api.service.forced_end.answer import DecisionOut
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.forced_end import DecisionEnd, DecisionStatus
from engine.domain.money import MAX_AMOUNT_MSAT

router = APIRouter(prefix="/v1/admin/decisions", tags=["operators"])
Operator = Annotated[Caller, Depends(needs_role(*MAY["end a payment by force"]))]
Res = Annotated[Resources, Depends(get_resources)]


class DecisionIn(Content):
    """How the payment ends, and the evidence."""

    payment_id: Id
    end: Annotated[DecisionEnd, Field(strict=False)]
    preimage: Annotated[Text, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="The proof that it was paid; needed for 'settled'."
    )
    fee_msat: Annotated[int, Field(ge=0, le=MAX_AMOUNT_MSAT)] = Field(
        default=0, description="What the node paid for routing, if known; only for 'settled'."
    )
    reason: Reason


class DecisionsQuery(Paging):
    """Which decisions."""

    status: DecisionStatus | None = None


@router.post(
    "",
    status_code=201,
    summary="Propose how a stuck payment ends",
    responses=problems("forbidden", "not_found", "invalid_request", "payment_not_stuck", "decision_open"),
    openapi_extra=documented(
        DecisionIn,
        nothing_was_paid={
            "payment_id": "pay_…",
            "end": "failed",
            "reason": "the node's data are lost; its channels are closed, and no HTLC was claimed on chain",
        },
        paid={
            "payment_id": "pay_…",
            "end": "settled",
            "preimage": "5f…64 hex digits",
            "fee_msat": 1020,
            "reason": "the payee has shown the preimage",
        },
    ),
)
async def propose_decision(
    response: Response,
    caller: Operator,
    body: Annotated[Body[DecisionIn], Depends(JsonBody(DecisionIn))],
    resources: Res,
) -> DecisionOut:
    """Role: `finance`. The payment must need an operator. Nothing moves yet.

    The same proposal by the same operator is a repeat and gets the first one. Another proposal is refused until the
    first is decided.
    """
    order = propose.DecisionOrder(**body.content.model_dump())
    decision = await propose.propose_decision(resources, caller, order)
    response.headers["Location"] = f"{router.prefix}/{decision.id}"
    return decision


@router.get("", summary="List decisions", responses=problems("forbidden", "invalid_request"))
async def list_decisions(
    caller: Operator, resources: Res, query: Annotated[DecisionsQuery, Query()]
) -> Page[DecisionOut]:
    """Role: `finance`. Newest first. `status=proposed` lists those that wait for a second operator."""
    name = f"decisions {query.status}"
    found = await answer.list_decisions(resources, caller, query.status, after=position(query, name), limit=query.limit)
    return page_of(found, name)


@router.get("/{decision_id}", summary="Show a decision", responses=problems("forbidden", "not_found"))
async def show_decision(caller: Operator, resources: Res, decision_id: PathId) -> DecisionOut:
    """Role: `finance`."""
    return await answer.show_decision(resources, caller, decision_id)


@router.post(
    "/{decision_id}/approve",
    summary="Approve a decision",
    responses=problems(
        *("forbidden", "own_proposal", "not_found", "invalid_request", "decision_made", "payment_not_stuck")
    ),
    openapi_extra=documented(ApprovalIn, looked_at={"note": "Seen on chain, too."}, bare={}),
)
async def approve_decision(
    caller: Operator,
    body: Annotated[Body[ApprovalIn], Depends(JsonBody(ApprovalIn))],
    resources: Res,
    decision_id: PathId,
) -> DecisionOut:
    """Role: `finance`; another operator than the one who proposed it. Answers when the payment has ended.

    The engine looks at the node once more: a payment that the node can end is not overruled. A repeat by the same
    operator gets the same answer.
    """
    return await decide.approve_decision(resources, caller, decision_id, note=body.content.note)


@router.post(
    "/{decision_id}/reject",
    summary="Reject a decision, or take it back",
    responses=problems("forbidden", "not_found", "invalid_request", "decision_made"),
    openapi_extra=documented(RejectionIn, alive={"reason": "The node is back, with its data."}),
)
async def reject_decision(
    caller: Operator,
    body: Annotated[Body[RejectionIn], Depends(JsonBody(RejectionIn))],
    resources: Res,
    decision_id: PathId,
) -> DecisionOut:
    """Role: `finance`; the proposer may, too. The same operator may repeat it."""
    return await decide.reject_decision(resources, caller, decision_id, reason=body.content.reason)
