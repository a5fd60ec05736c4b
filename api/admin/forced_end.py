"""Decisions: how a payment ends whose node cannot tell its end any more. One operator proposes, another approves.

Nobody can end a payment that can still end by itself: it must wait for something that calls an operator, and when it is
approved its node is looked at once more. What its node never had can be decided whatever it waits for. An operator is
an account, whichever of its keys it uses; the bootstrap key is one operator, too. Only the second word moves money, in
the payment's own workflow.
"""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from api.access import PathId, get_resources, needs_role
from api.http.body import Body, Content, Id, JsonBody, Text, documented
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.service import temporal
from api.service.auth import Caller, no_such, still_may_in_tx
from api.service.resources import Resources
from api.service.role import MAY
from api.service.two_operators import ApprovalIn, Reason, RejectionIn, own_proposal, require_another_person
from engine.bank import forced_end
from engine.bank.audit import record_in_tx
from engine.contracts.payment import Approval
from engine.domain.errors import Conflict, NotFound, Refused, Unavailable
from engine.domain.forced_end import REASONS, DecisionEnd, DecisionStatus, check_end
from engine.domain.ids import DecisionId, PaymentId, new_id
from engine.domain.money import MAX_AMOUNT_MSAT, Msat
from engine.ledger.database import Connection, transaction
from engine.views.page import Listing
from workflows.payment import PaymentWorkflow

router = APIRouter(prefix="/v1/admin/decisions", tags=["operators"])
Operator = Annotated[Caller, Depends(needs_role(*MAY["end a payment by force"]))]
Res = Annotated[Resources, Depends(get_resources)]
_DECISIONS = Listing(columns="*", source="bank.decisions", condition="$1::text IS NULL OR status = $1")
_LIMIT_S = 30
"""A send is taken back within some seconds, and what it told its node may take ten to be seen."""


class DecisionIn(Content):
    """How the payment is to end, and how that is known."""

    payment_id: Id
    end: Annotated[DecisionEnd, Field(strict=False)]
    preimage: Annotated[Text, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="The proof that it was paid; needed for 'settled'."
    )
    fee_msat: Annotated[int, Field(ge=0, le=MAX_AMOUNT_MSAT)] = Field(
        default=0, description="What the node paid for routing, as far as it is known; only for 'settled'."
    )
    reason: Reason


class DecisionOut(BaseModel):
    """A proposal and what has become of it."""

    id: str = Field(examples=["dec_4t7q2v6x1b0n8r5d01k5y8z3c"])
    payment_id: str
    end: DecisionEnd
    preimage: str | None
    fee_msat: int
    reason: str
    status: DecisionStatus
    proposed_by: str = Field(description="An account, or 'admin' for the bootstrap key.")
    decided_by: str | None
    note: str | None = Field(description="Of whoever approved or rejected it.")
    created_at: datetime
    decided_at: datetime | None


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
    """Role: `finance`. The payment must call for an operator. Nothing moves yet.

    The same proposal of the same operator again is a repeat, and gets the first; another one is refused until that one
    is decided.
    """
    asked = body.content
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        stuck = await _require_stuck(conn, asked)
        new = forced_end.NewDecision(
            id=DecisionId(new_id("dec")),
            payment_id=PaymentId(asked.payment_id),
            payment_end=asked.end,
            preimage=asked.preimage,
            fee_msat=Msat(asked.fee_msat),
            reason=asked.reason,
            proposed_by=caller.owner,
        )
        known = await forced_end.propose_in_tx(conn, new)
        if known == new.id:
            said = {"payment_id": asked.payment_id, "end": asked.end, "fee_msat": asked.fee_msat}
            act = caller.act("decision.propose", account_id=stuck.account_id, subject=known, **said)
            await record_in_tx(conn, act)
    response.headers["Location"] = f"{router.prefix}/{known}"
    async with resources.reading() as conn:
        return await _read(conn, known)


@router.get("", summary="List decisions", responses=problems("forbidden", "invalid_request"))
async def list_decisions(
    _caller: Operator, resources: Res, query: Annotated[DecisionsQuery, Query()]
) -> Page[DecisionOut]:
    """Role: `finance`. Newest first; `status=proposed` are those that wait for a second operator."""
    name = f"decisions {query.status}"
    async with resources.reading() as conn:
        found = await _DECISIONS.read(conn, position(query, name), query.limit, query.status)
    return page_of(found.map(_shown), name)


@router.get("/{decision_id}", summary="Show a decision", responses=problems("forbidden", "not_found"))
async def show_decision(_caller: Operator, resources: Res, decision_id: PathId) -> DecisionOut:
    """Role: `finance`."""
    async with resources.reading() as conn:
        return await _read(conn, decision_id)


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

    The node is looked at once more: a payment that it can end itself is not overruled. A repeat by the same operator
    gets the same.
    """
    async with resources.reading() as conn:
        await still_may_in_tx(conn, caller)
        known = await _read(conn, decision_id)
        stuck = await forced_end.find_stuck_payment(conn, PaymentId(known.payment_id))
        await require_another_person(conn, caller, known.id, known.proposed_by)
    if known.status is DecisionStatus.PROPOSED and stuck is not None:
        _require_pending(stuck)
        word = Approval(
            decision=DecisionId(known.id), operator=caller.owner, key_id=caller.key_id, note=body.content.note
        )
        await _tell(resources.temporal, stuck.workflow_id, word)
        async with resources.reading() as conn:
            known = await _read(conn, decision_id)
    if known.status is DecisionStatus.PROPOSED:  # its workflow has just ended, or there is none
        raise Unavailable(f"{known.id} is still proposed", code="temporarily_unavailable")
    return _by(caller, known, DecisionStatus.DONE)


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
    """Role: `finance`; the proposer may, too. A repeat by the same operator is one."""
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        known = await _read(conn, decision_id)
        row = await forced_end.get_row_in_tx(conn, DecisionId(known.id))
        if row.status is DecisionStatus.PROPOSED:
            reason = body.content.reason
            await forced_end.mark_in_tx(conn, row.id, DecisionStatus.REJECTED, operator=caller.owner, note=reason)
            stuck = await forced_end.find_stuck_payment(conn, row.payment_id)
            account = None if stuck is None else stuck.account_id
            await record_in_tx(conn, caller.act("decision.reject", account_id=account, subject=row.id, note=reason))
        known = await _read(conn, decision_id)
    return _by(caller, known, DecisionStatus.REJECTED)


async def _require_stuck(conn: Connection, asked: DecisionIn) -> forced_end.StuckPayment:
    stuck = await forced_end.find_stuck_payment(conn, PaymentId(asked.payment_id))
    if stuck is None or stuck.payment_hash is None:
        raise no_such("Lightning payment")
    _require_pending(stuck)
    if not stuck.needs_operator or (stuck.begun and stuck.waits_for not in REASONS):
        raise Refused("This payment does not wait for an operator's decision.", code="payment_not_stuck")
    check_end(
        asked.end,
        preimage=asked.preimage,
        fee_msat=Msat(asked.fee_msat),
        payment_hash=stuck.payment_hash,
        routing_cap_msat=stuck.routing_cap_msat,
    )
    return stuck


def _require_pending(stuck: forced_end.StuckPayment) -> None:
    if stuck.status != "pending":
        raise Refused(f"This payment is {stuck.status}, and that is final.", code="payment_not_stuck")


async def _tell(client: Client, workflow_id: str, word: Approval) -> None:
    """Returns when the payment has ended by it, or when its workflow has ended before.

    Raises Forbidden (`own_proposal`), Refused (`payment_not_stuck`), Conflict (`decision_made`), and Unavailable when
    Temporal or the node does not answer in time: the word stands then, and is carried out when it does.
    """
    try:
        with suppress(NotFound):  # it has ended meanwhile, and the row says how
            await temporal.tell(client, workflow_id, PaymentWorkflow.decide, word, limit_s=_LIMIT_S)
    except ApplicationError as refusal:
        code = _code(refusal)
        if code == "own_proposal":
            raise own_proposal() from refusal
        if code == "decision_made":
            raise _made() from refusal
        if code == "payment_not_stuck":
            raise Refused(refusal.message, code=code) from refusal
        raise


def _code(cause: ApplicationError) -> str:
    if cause.type == "PaymentNotStuck":
        return "payment_not_stuck"
    return str(cause.details[0].get("code", "")) if cause.details else ""


def _by(caller: Caller, known: DecisionOut, wanted: DecisionStatus) -> DecisionOut:
    """The decision when this caller has made it so."""
    if known.status is not wanted or known.decided_by != caller.owner:
        raise _made()
    return known


def _made() -> Conflict:
    return Conflict("This is decided already; its row says how.", code="decision_made")


async def _read(conn: Connection, decision_id: str) -> DecisionOut:
    row = await conn.fetchrow("SELECT * FROM bank.decisions WHERE id = $1", decision_id)
    if row is None:
        raise no_such("decision")
    return _shown(row)


def _shown(row: Any) -> DecisionOut:  # noqa: ANN401 - a record of asyncpg
    known = dict(row)
    return DecisionOut(**known, end=known["payment_end"])
