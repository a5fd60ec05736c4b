"""The door to corrections and capital. The use cases are in api/service/correction/."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from api.access import PathId, get_resources, needs_role
from api.admin.approval import ApprovalIn, Reason, RejectionIn
from api.http.body import AmountMsat, Body, Content, Id, JsonBody, Text, documented
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, required_key
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.correction import answer, decide, propose
from api.service.correction.answer import CorrectionOut, CorrectionWithTrail
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.correction import CorrectionKind, CorrectionStatus

router = APIRouter(prefix="/v1/admin/corrections", tags=["operators"])
Operator = Annotated[Caller, Depends(needs_role(*MAY["correct the books"], *MAY["move capital"]))]
Res = Annotated[Resources, Depends(get_resources)]

Code = Annotated[Text, Field(pattern=r"^[0-9A-Za-z:_.@-]{1,128}$", examples=["liab:user:wal_…"])]


class ProposalIn(Content):
    """The proposed entry. `debit` and `credit` are accounts of the books."""

    kind: Annotated[CorrectionKind, Field(strict=False)]
    debit: Code
    credit: Code
    amount_msat: AmountMsat
    reason: Reason = Field(description="Kept for ever. The owner of an affected wallet reads it, too.")
    case_id: Id | None = Field(default=None, description="The reconciliation case that it corrects.")
    reference: Annotated[Text, Field(min_length=1, max_length=255)] | None = Field(
        default=None, description="The reference of a letter, a payment or a transaction."
    )


class CorrectionsQuery(Paging):
    """Which corrections."""

    status: CorrectionStatus | None = None


@router.post(
    "",
    status_code=201,
    summary="Propose a correction, or capital",
    responses=problems("forbidden", "invalid_request", "idempotency_key_required", "idempotency_conflict"),
    openapi_extra=documented(
        ProposalIn,
        for_a_user={
            "kind": "correction",
            "debit": "suspense:in",
            "credit": "liab:user:wal_…",
            "amount_msat": 1_111_000,
            "reason": "paid to an invoice that was made by hand for this user",
        },
        capital={
            "kind": "capital",
            "debit": "asset:lnd:lnd-1:onchain",
            "credit": "equity:capital",
            "amount_msat": 500_000_000,
            "reason": "coins of the bank's own, sent to the node",
            "reference": "txid …",
        },
    ),
)
async def propose_correction(
    response: Response,
    caller: Operator,
    key: Annotated[str, Depends(required_key)],
    body: Annotated[Body[ProposalIn], Depends(JsonBody(ProposalIn))],
    resources: Res,
) -> CorrectionWithTrail:
    """Role: `finance` or `treasury`; a correction needs `finance`, capital needs `treasury`. Nothing moves yet."""
    order = propose.CorrectionOrder(key=key, body_hash=body.hash, **body.content.model_dump())
    proposed = await propose.propose_correction(resources, caller, order)
    if proposed.is_replay:
        mark_replayed(response)
    response.headers["Location"] = f"{router.prefix}/{proposed.content.id}"
    return proposed.content


@router.get("", summary="List corrections", responses=problems("forbidden", "invalid_request"))
async def list_corrections(
    caller: Operator, resources: Res, query: Annotated[CorrectionsQuery, Query()]
) -> Page[CorrectionOut]:
    """Role: `finance` or `treasury`. Newest first. `status=proposed` lists those that wait for a second operator."""
    name = f"corrections {query.status}"
    found = await answer.list_corrections(
        resources, caller, query.status, after=position(query, name), limit=query.limit
    )
    return page_of(found, name)


@router.get("/{correction_id}", summary="Show a correction", responses=problems("forbidden", "not_found"))
async def show_correction(caller: Operator, resources: Res, correction_id: PathId) -> CorrectionWithTrail:
    """Role: `finance` or `treasury`. With its trail, and the references of its transfers."""
    return await answer.show_correction(resources, caller, correction_id)


@router.post(
    "/{correction_id}/approve",
    summary="Approve a correction",
    responses=problems("forbidden", "own_proposal", "not_found", "invalid_request", "correction_decided"),
    openapi_extra=documented(ApprovalIn, looked_at={"note": "Compared with the node's list of payments."}, bare={}),
)
async def approve_correction(
    caller: Operator,
    body: Annotated[Body[ApprovalIn], Depends(JsonBody(ApprovalIn))],
    resources: Res,
    correction_id: PathId,
) -> CorrectionWithTrail:
    """Role: `finance` or `treasury`, as its kind needs; another operator than the one who proposed it.

    Answers when it is `posted`, or `refused` by the books. A repeat by the same operator gets the same answer.
    """
    return await decide.approve_correction(resources, caller, correction_id, note=body.content.note)


@router.post(
    "/{correction_id}/reject",
    summary="Reject a correction, or take it back",
    responses=problems("forbidden", "not_found", "invalid_request", "correction_decided"),
    openapi_extra=documented(RejectionIn, wrong={"reason": "The amount is that of another payment."}),
)
async def reject_correction(
    caller: Operator,
    body: Annotated[Body[RejectionIn], Depends(JsonBody(RejectionIn))],
    resources: Res,
    correction_id: PathId,
) -> CorrectionWithTrail:
    """Role: `finance` or `treasury`, as its kind needs. The proposer may, too. The same operator may repeat it."""
    return await decide.reject_correction(resources, caller, correction_id, reason=body.content.reason)
