"""The door to what operators decide about withdrawals and payouts. See api/service/withdrawal_decision/."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from api.access import PathId, get_resources, needs_role
from api.admin.approval import ApprovalIn, Reason, RejectionIn
from api.http.body import Body, Content, JsonBody, documented
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from api.service.withdrawal_decision import answer, decide, propose
from engine.domain.forced_end import DecisionStatus
from engine.domain.withdrawal.decision import WithdrawalDecisionKind

router = APIRouter(prefix="/v1/admin", tags=["operators"])
Reader = Annotated[Caller, Depends(needs_role(*MAY["see withdrawals"]))]
OfWithdrawals = Annotated[Caller, Depends(needs_role(*MAY["decide about withdrawals"]))]
OfPayouts = Annotated[Caller, Depends(needs_role(*MAY["decide about payouts"]))]
Res = Annotated[Resources, Depends(get_resources)]
Key = Annotated[str | None, Depends(optional_key)]
_HIGHEST_RATE = 10_000_000


class WithdrawalDecisionIn(Content):
    """What is to become of the withdrawal."""

    kind: Literal["approve", "reject", "hold", "resume"] = Field(
        description="`approve`: a large one may go. `reject`: it fails, and its money is free again. `hold`: no "
        "batcher takes it. `resume`: it waits for its turn again."
    )
    reason: Reason


class PayoutDecisionIn(Content):
    """What is to become of the payout."""

    kind: Literal["hold", "resume", "bump", "child"] = Field(
        description="`hold`: no further step is taken. `resume`: steps are taken again. `bump`: another version pays a "
        "higher fee. `child`: another payout spends its change, and pulls it into a block."
    )
    rate_sat_kvb: Annotated[int, Field(ge=1, le=_HIGHEST_RATE)] | None = Field(
        default=None,
        description="For `bump` and `child`: the fee rate in sat per 1,000 virtual bytes, within the bounds of the "
        "rules, and above what it pays now. `GET /v1/admin/batchers` tells the present one.",
    )
    reason: Reason


class WithdrawalDecisionsQuery(Paging):
    """Which decisions."""

    status: DecisionStatus | None = None


@router.post(
    "/withdrawals/{withdrawal_id}/decisions",
    status_code=201,
    summary="Decide about a withdrawal",
    responses=problems(
        *("forbidden", "own_account", "not_found", "invalid_request", "withdrawal_not_waiting", "decision_open"),
        *("decision_made", "idempotency_conflict"),
    ),
    openapi_extra=documented(
        WithdrawalDecisionIn,
        approve={"kind": "approve", "reason": "called the customer, who confirms the address"},
        hold={"kind": "hold", "reason": "the customer says that his phone was stolen"},
    ),
)
async def decide_withdrawal(
    response: Response,
    caller: OfWithdrawals,
    key: Key,
    body: Annotated[Body[WithdrawalDecisionIn], Depends(JsonBody(WithdrawalDecisionIn))],
    resources: Res,
    withdrawal_id: PathId,
) -> answer.WithdrawalDecisionOut:
    """Role: `finance`. Done at once; above `second_operator_above_sat` of the rules, `approve` and `resume` wait for
    another operator, as `proposed`. Nobody does either to a withdrawal of his own account.

    The same by the same operator while it is open is a repeat. With an Idempotency-Key, a later one is, too.
    """
    order = propose.DecisionOrder(kind=WithdrawalDecisionKind(body.content.kind), reason=body.content.reason, key=key)
    made = await propose.decide_withdrawal(resources, caller, withdrawal_id, order)
    if made.is_replay:
        mark_replayed(response)
    response.headers["Location"] = f"{router.prefix}/withdrawal-decisions/{made.content.id}"
    return made.content


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
    caller: OfPayouts,
    key: Key,
    body: Annotated[Body[PayoutDecisionIn], Depends(JsonBody(PayoutDecisionIn))],
    resources: Res,
    payout_id: PathId,
) -> answer.WithdrawalDecisionOut:
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


@router.get(
    "/withdrawal-decisions",
    summary="List decisions about withdrawals and payouts",
    responses=problems("forbidden", "invalid_request"),
)
async def list_withdrawal_decisions(
    caller: Reader, resources: Res, query: Annotated[WithdrawalDecisionsQuery, Query()]
) -> Page[answer.WithdrawalDecisionOut]:
    """Role: `support`, `treasury` or `finance`. Newest first. `status=proposed`: those that wait for a second one."""
    name = f"withdrawal decisions {query.status}"
    found = await answer.list_withdrawal_decisions(
        resources, caller, query.status, after=position(query, name), limit=query.limit
    )
    return page_of(found, name)


@router.get(
    "/withdrawal-decisions/{decision_id}",
    summary="Show a decision about a withdrawal or a payout",
    responses=problems("forbidden", "not_found"),
)
async def show_withdrawal_decision(caller: Reader, resources: Res, decision_id: PathId) -> answer.WithdrawalDecisionOut:
    """Role: `support`, `treasury` or `finance`."""
    return await answer.show_withdrawal_decision(resources, caller, decision_id)


@router.post(
    "/withdrawal-decisions/{decision_id}/approve",
    summary="Approve a decision about a withdrawal or a payout",
    responses=problems(
        *("forbidden", "own_proposal", "own_account", "not_found", "invalid_request", "decision_made"),
        *("withdrawal_not_waiting", "payout_not_waiting"),
    ),
    openapi_extra=documented(ApprovalIn, looked_at={"note": "I have called the customer, too."}, bare={}),
)
async def approve_withdrawal_decision(
    caller: OfPayouts,
    body: Annotated[Body[ApprovalIn], Depends(JsonBody(ApprovalIn))],
    resources: Res,
    decision_id: PathId,
) -> answer.WithdrawalDecisionOut:
    """Role: `treasury` or `finance`; about a withdrawal only `finance`. Another operator than the one who proposed
    it. Answers when it is done.

    What has changed meanwhile, so that it does not wait for this any more, is refused; reject the decision then. A
    repeat by the same operator gets the same answer.
    """
    return await decide.approve_withdrawal_decision(resources, caller, decision_id, note=body.content.note)


@router.post(
    "/withdrawal-decisions/{decision_id}/reject",
    summary="Reject a decision about a withdrawal or a payout, or take it back",
    responses=problems("forbidden", "not_found", "invalid_request", "decision_made"),
    openapi_extra=documented(RejectionIn, doubtful={"reason": "The address is not the one that we were told."}),
)
async def reject_withdrawal_decision(
    caller: OfPayouts,
    body: Annotated[Body[RejectionIn], Depends(JsonBody(RejectionIn))],
    resources: Res,
    decision_id: PathId,
) -> answer.WithdrawalDecisionOut:
    """Role: `treasury` or `finance`; about a withdrawal only `finance`. The proposer may, too. The withdrawal or the
    payout stays as it is. The same operator may repeat it."""
    return await decide.reject_withdrawal_decision(resources, caller, decision_id, reason=body.content.reason)
