"""The door to what two operators decide about deposits. The use cases are in api/service/deposit_decision/."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from api.access import PathId, get_resources, needs_role
from api.admin.approval import ApprovalIn, Reason, RejectionIn
from api.http.body import Body, Content, Id, JsonBody, documented
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.deposit_decision import answer, decide, propose
from api.service.deposit_decision.answer import DepositDecisionOut
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.deposit_decision import DepositDecisionKind
from engine.domain.forced_end import DecisionStatus

router = APIRouter(prefix="/v1/admin", tags=["operators"])
Operator = Annotated[Caller, Depends(needs_role(*MAY["decide about deposits"]))]
Res = Annotated[Resources, Depends(get_resources)]


class DepositDecisionIn(Content):
    """What is to become of the deposit."""

    kind: Annotated[DepositDecisionKind, Field(strict=False)] = Field(
        description="`release`: one that is held or below the minimum goes to its owner. `attribute`: one without an "
        "owner goes to `wallet_id`. `forgive`: its open receivable is given up."
    )
    wallet_id: Id | None = Field(default=None, description="Only for `attribute`.")
    reason: Reason


class DepositDecisionsQuery(Paging):
    """Which decisions."""

    status: DecisionStatus | None = None


@router.post(
    "/deposits/{deposit_id}/decisions",
    status_code=201,
    summary="Propose what becomes of a deposit",
    responses=problems(
        *("forbidden", "not_found", "invalid_request", "deposit_not_waiting", "decision_open", "payee_closed")
    ),
    openapi_extra=documented(
        DepositDecisionIn,
        release={"kind": "release", "reason": "the owner has shown where the coins come from"},
        attribute={"kind": "attribute", "wallet_id": "wal_…", "reason": "paid to an address of an older system"},
        forgive={"kind": "forgive", "reason": "the sender has spent the coins elsewhere, 30 blocks ago"},
    ),
)
async def propose_deposit_decision(
    response: Response,
    caller: Operator,
    body: Annotated[Body[DepositDecisionIn], Depends(JsonBody(DepositDecisionIn))],
    resources: Res,
    deposit_id: PathId,
) -> DepositDecisionOut:
    """Role: `finance`. Nothing moves yet.

    The same proposal by the same operator is a repeat and gets the first one. Another proposal is refused until the
    first is decided.
    """
    order = propose.DepositDecisionOrder(deposit_id=deposit_id, **body.content.model_dump())
    decision = await propose.propose_deposit_decision(resources, caller, order)
    response.headers["Location"] = f"{router.prefix}/deposit-decisions/{decision.id}"
    return decision


@router.get(
    "/deposit-decisions", summary="List decisions about deposits", responses=problems("forbidden", "invalid_request")
)
async def list_deposit_decisions(
    caller: Operator, resources: Res, query: Annotated[DepositDecisionsQuery, Query()]
) -> Page[DepositDecisionOut]:
    """Role: `finance`. Newest first. `status=proposed` lists those that wait for a second operator."""
    name = f"deposit decisions {query.status}"
    found = await answer.list_deposit_decisions(
        resources, caller, query.status, after=position(query, name), limit=query.limit
    )
    return page_of(found, name)


@router.get(
    "/deposit-decisions/{decision_id}",
    summary="Show a decision about a deposit",
    responses=problems("forbidden", "not_found"),
)
async def show_deposit_decision(caller: Operator, resources: Res, decision_id: PathId) -> DepositDecisionOut:
    """Role: `finance`."""
    return await answer.show_deposit_decision(resources, caller, decision_id)


@router.post(
    "/deposit-decisions/{decision_id}/approve",
    summary="Approve a decision about a deposit",
    responses=problems(
        *("forbidden", "own_proposal", "not_found", "invalid_request", "decision_made", "deposit_not_waiting"),
        "payee_closed",
    ),
    openapi_extra=documented(ApprovalIn, looked_at={"note": "The letter and the transaction agree."}, bare={}),
)
async def approve_deposit_decision(
    caller: Operator,
    body: Annotated[Body[ApprovalIn], Depends(JsonBody(ApprovalIn))],
    resources: Res,
    decision_id: PathId,
) -> DepositDecisionOut:
    """Role: `finance`; another operator than the one who proposed it. Answers when it is carried out.

    A deposit that has changed meanwhile, so that it does not wait for this any more, is refused; reject the decision
    then. Forgiving does not unlock the account: `PATCH /v1/admin/accounts/{id}` does. A repeat by the same operator
    gets the same answer.
    """
    return await decide.approve_deposit_decision(resources, caller, decision_id, note=body.content.note)


@router.post(
    "/deposit-decisions/{decision_id}/reject",
    summary="Reject a decision about a deposit, or take it back",
    responses=problems("forbidden", "not_found", "invalid_request", "decision_made"),
    openapi_extra=documented(RejectionIn, theirs={"reason": "It belongs to another customer."}),
)
async def reject_deposit_decision(
    caller: Operator,
    body: Annotated[Body[RejectionIn], Depends(JsonBody(RejectionIn))],
    resources: Res,
    decision_id: PathId,
) -> DepositDecisionOut:
    """Role: `finance`; the proposer may, too. The same operator may repeat it."""
    return await decide.reject_deposit_decision(resources, caller, decision_id, reason=body.content.reason)
