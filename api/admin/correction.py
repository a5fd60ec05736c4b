"""Corrections and capital: what two operators enter by hand. One proposes, another approves, a workflow posts.

An operator is an account, whichever of its keys it uses; the bootstrap key is one operator, too. Nobody approves what
he proposed himself. A proposal that nobody decides ends after seven days; one that the books refuse moved nothing.
"""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from api.access import PathId, get_resources, needs_role
from api.http.body import AmountMsat, Body, Content, Id, JsonBody, Text, documented
from api.http.codes import Forbidden
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, required_key
from api.http.paging import Page, Paging, page_of, position
from api.service import correction_run, temporal
from api.service.auth import Caller, no_such, still_may_in_tx
from api.service.idempotency import Intent, find_replay, replaying
from api.service.resources import Resources
from api.service.role import MAY, Role
from api.service.two_operators import ApprovalIn, Reason, RejectionIn, require_another_person
from engine.contracts.correction import Decision, Proposal, correction_start
from engine.domain.correction import CorrectionKind, CorrectionStatus, check_sides, transfer_refs
from engine.domain.errors import Conflict, Invalid, Unavailable
from engine.domain.ids import CaseId, CorrectionId, id_for_key
from engine.domain.money import Msat
from engine.ledger.database import Connection
from engine.views.page import Listing

router = APIRouter(prefix="/v1/admin/corrections", tags=["operators"])
Operator = Annotated[Caller, Depends(needs_role(*MAY["correct the books"], *MAY["move capital"]))]
Res = Annotated[Resources, Depends(get_resources)]
_CORRECTIONS = Listing(columns="*", source="bank.corrections", condition="$1::text IS NULL OR status = $1")
_ROLES: dict[CorrectionKind, Role] = {
    CorrectionKind.CORRECTION: MAY["correct the books"][0],
    CorrectionKind.CAPITAL: MAY["move capital"][0],
}
_OPEN = (CorrectionStatus.PROPOSED, CorrectionStatus.APPROVED)

Code = Annotated[Text, Field(pattern=r"^[0-9A-Za-z:_.@-]{1,128}$", examples=["liab:user:wal_…"])]


class ProposalIn(Content):
    """What is to be entered. `debit` and `credit` are accounts of the books."""

    kind: Annotated[CorrectionKind, Field(strict=False)]
    debit: Code
    credit: Code
    amount_msat: AmountMsat
    reason: Reason = Field(description="Kept for ever; the owner of a wallet that is concerned reads it, too.")
    case_id: Id | None = Field(default=None, description="The case of reconciliation that it puts right.")
    reference: Annotated[Text, Field(min_length=1, max_length=255)] | None = Field(
        default=None, description="Of a letter, a payment, a transaction."
    )


class RefusalOut(BaseModel):
    """Why the books did not take it; nothing moved, and a new proposal is needed."""

    code: str = Field(description="insufficient_funds or account_locked")
    detail: str


class CorrectionOut(BaseModel):
    """A proposal and what has become of it."""

    id: str = Field(examples=["corr_4t7q2v6x1b0n8r5d01k5y8z3c"])
    kind: CorrectionKind
    status: CorrectionStatus
    debit: str
    credit: str
    amount_msat: int
    reason: str
    case_id: str | None
    reference: str | None
    proposed_by: str = Field(description="An account, or 'admin' for the bootstrap key.")
    approved_by: str | None
    rejected_by: str | None
    refusal: RefusalOut | None
    transfers: list[str] = Field(description="The references of its transfers, once they are posted.")
    workflow_id: str
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    ended_at: datetime | None


class TrailOut(BaseModel):
    """A line of its trail."""

    event: CorrectionStatus
    actor: str
    note: str
    at: datetime


class CorrectionWithTrail(CorrectionOut):
    """A correction and all that happened to it, the oldest first."""

    trail: list[TrailOut]


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
    intent = Intent(owner=caller.owner, key=key, body_hash=body.hash)
    known = await find_replay(resources, intent)
    is_replay = known is not None
    if known is None:
        asked = body.content
        _check_role(caller, asked.kind)
        check_sides(asked.kind, asked.debit, asked.credit)
        async with resources.reading() as conn:
            await still_may_in_tx(conn, caller)
            await _check_books(conn, asked)
        started_here = (await temporal.start(resources.temporal, correction_start(_proposal(caller, key, body)))).is_new
        with replaying(is_replay=not started_here):
            known = await correction_run.until_kept(resources, intent)
        is_replay = not started_here
    if is_replay:
        mark_replayed(response)
    async with resources.reading() as conn:
        shown = await _read(conn, known)
    response.headers["Location"] = f"{router.prefix}/{shown.id}"
    return shown


@router.get("", summary="List corrections", responses=problems("forbidden", "invalid_request"))
async def list_corrections(
    _caller: Operator, resources: Res, query: Annotated[CorrectionsQuery, Query()]
) -> Page[CorrectionOut]:
    """Role: `finance` or `treasury`. Newest first; `status=proposed` are those that wait for a second operator."""
    name = f"corrections {query.status}"
    async with resources.reading() as conn:
        found = await _CORRECTIONS.read(conn, position(query, name), query.limit, query.status)
    return page_of(found.map(lambda row: CorrectionOut(**_shown(row))), name)


@router.get("/{correction_id}", summary="Show a correction", responses=problems("forbidden", "not_found"))
async def show_correction(_caller: Operator, resources: Res, correction_id: PathId) -> CorrectionWithTrail:
    """Role: `finance` or `treasury`. With its trail, and the references of its transfers."""
    async with resources.reading() as conn:
        return await _read(conn, correction_id)


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

    Answers when it is `posted`, or `refused` by the books. A repeat by the same operator gets the same.
    """
    return await _decide(resources, caller, correction_id, approve=True, note=body.content.note)


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
    """Role: `finance` or `treasury`, as its kind needs; the proposer may, too. A repeat by the same operator is one."""
    return await _decide(resources, caller, correction_id, approve=False, note=body.content.reason)


# Proposing


async def _check_books(conn: Connection, asked: ProposalIn) -> None:
    """Raises Invalid for an account or a case that is not there."""
    codes = await conn.fetch(
        "SELECT code FROM ledger.accounts WHERE code = ANY($1) AND currency = 'BTC'", [asked.debit, asked.credit]
    )
    found = {row["code"] for row in codes}
    for field, code in (("debit", asked.debit), ("credit", asked.credit)):
        if code not in found:
            raise Invalid(f"{field}: there is no account {code} in the books.", field=field)
    if asked.case_id is not None and not await conn.fetchval(
        "SELECT true FROM bank.cases WHERE id = $1", asked.case_id
    ):
        raise Invalid(f"case_id: there is no case {asked.case_id}.", field="case_id")


def _proposal(caller: Caller, key: str, body: Body[ProposalIn]) -> Proposal:
    asked = body.content
    return Proposal(
        correction=CorrectionId(id_for_key("corr", caller.owner, key)),
        kind=asked.kind,
        debit=asked.debit,
        credit=asked.credit,
        amount_msat=Msat(asked.amount_msat),
        reason=asked.reason,
        operator=caller.owner,
        key_id=caller.key_id,
        idempotency_key=key,
        body_hash=body.hash.hex(),
        case=None if asked.case_id is None else CaseId(asked.case_id),
        reference=asked.reference,
    )


# Deciding


async def _decide(
    resources: Resources, caller: Caller, correction_id: str, *, approve: bool, note: str
) -> CorrectionWithTrail:
    """Hand the word to the workflow, unless there is one already; then answer from the row."""
    async with resources.reading() as conn:
        await still_may_in_tx(conn, caller)
        known = await _read(conn, correction_id)
        _check_role(caller, known.kind)
        if approve:
            await require_another_person(conn, caller, known.id, known.proposed_by)
    if known.status in _OPEN:
        word = Decision(operator=caller.owner, key_id=caller.key_id, approve=approve, note=note)
        await correction_run.tell(resources.temporal, known.workflow_id, word)
        async with resources.reading() as conn:
            known = await _read(conn, correction_id)
    if known.status in _OPEN:
        raise Unavailable(f"{known.id} is still {known.status}", code="temporarily_unavailable")
    if (known.approved_by if approve else known.rejected_by) != caller.owner:
        raise Conflict(f"This is {known.status} already; its trail says how.", code="correction_decided")
    return known


def _check_role(caller: Caller, kind: CorrectionKind) -> None:
    role = _ROLES[kind]
    if not {role, "admin"} & caller.scopes:
        raise Forbidden(f"The kind '{kind}' needs a key with the role {role}.", scope=role)


# Reading


async def _read(conn: Connection, correction_id: str) -> CorrectionWithTrail:
    row = await conn.fetchrow("SELECT * FROM bank.corrections WHERE id = $1", correction_id)
    if row is None:
        raise no_such("correction")
    trail = await conn.fetch(
        "SELECT event, actor, note, at FROM bank.correction_updates WHERE correction_id = $1 ORDER BY id", correction_id
    )
    return CorrectionWithTrail(**_shown(row), trail=[TrailOut(**line) for line in trail])


def _shown(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a record of asyncpg
    known = dict(row)
    code, detail = known.pop("refusal_code"), known.pop("refusal_detail")
    refs = transfer_refs(CorrectionId(row["id"]), CorrectionKind(row["kind"]), row["debit"], row["credit"])
    return {
        **known,
        "refusal": RefusalOut(code=code, detail=detail) if code else None,
        "transfers": refs if row["status"] == CorrectionStatus.POSTED else [],
    }
