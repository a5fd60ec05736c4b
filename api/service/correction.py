"""Corrections and capital, which two operators enter by hand: the use cases, for any door.

One operator proposes and another approves (`two_operators.py`); the correction's workflow writes the row and posts. An
operator is an account, whichever of its keys it uses; the bootstrap key is one operator too. A proposal that nobody
decides ends after seven days. One that the books refuse has moved nothing.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import BaseModel, Field

from api.http.codes import Forbidden
from api.service import temporal, two_operators
from api.service.auth import Caller, no_such, still_may_in_tx
from api.service.idempotency import Intent, check_same, find_replay, replaying
from api.service.resources import Resources
from api.service.role import MAY, Role
from engine.bank.idempotency import find_key
from engine.contracts.correction import Decision, Proposal, correction_start
from engine.domain.correction import CorrectionKind, CorrectionStatus, check_sides, transfer_refs
from engine.domain.errors import Conflict, Invalid, Unavailable
from engine.domain.ids import CaseId, CorrectionId, id_for_key
from engine.domain.money import Msat
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views import correction as views
from engine.views.reconciliation import find_case
from workflows.correction import CorrectionWorkflow

_ROLES: dict[CorrectionKind, Role] = {
    CorrectionKind.CORRECTION: MAY["correct the books"][0],
    CorrectionKind.CAPITAL: MAY["move capital"][0],
}
_OPEN = (CorrectionStatus.PROPOSED, CorrectionStatus.APPROVED)
_LIMIT_S = 12
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionOrder:
    """What is to be entered, and the key and the hash of the request."""

    key: str
    body_hash: bytes
    kind: CorrectionKind
    debit: str
    credit: str
    amount_msat: Msat
    reason: str
    case_id: CaseId | None = None
    reference: str | None = None


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

    @property
    def is_open(self) -> bool:
        """Whether it waits for a second operator, or for its postings."""
        return self.status in _OPEN

    def decided(self) -> Conflict:
        """The refusal of another decision."""
        return Conflict(f"This is {self.status} already; its trail says how.", code="correction_decided")


@dataclass(frozen=True, slots=True)
class ProposedCorrection:
    """A correction, and whether an earlier request with the same key proposed it."""

    correction: CorrectionWithTrail
    is_replay: bool


async def propose_correction(resources: Resources, caller: Caller, order: CorrectionOrder) -> ProposedCorrection:
    """Propose it, once for the key. Nothing moves yet.

    Raises Forbidden, Invalid for accounts that nothing may be entered between, and Unavailable when no worker took the
    proposal in time: the same order with the same key finds what came of it.
    """
    intent = Intent(owner=caller.owner, key=order.key, body_hash=order.body_hash)
    known = await find_replay(resources, intent)
    is_replay = known is not None
    if known is None:
        _require_role(caller, order.kind)
        check_sides(order.kind, order.debit, order.credit)
        async with resources.reading() as conn:
            await still_may_in_tx(conn, caller)
            await _check_books(conn, order)
        started = await temporal.start(resources.temporal, correction_start(_proposal(caller, order)))
        is_replay = not started.is_new
        with replaying(is_replay=is_replay):
            known = await _wait_for_key(resources, intent, order.key)
    async with resources.reading() as conn:
        return ProposedCorrection(await _read(conn, known), is_replay)


async def list_corrections(
    resources: Resources,
    caller: Caller,
    status: CorrectionStatus | None = None,
    *,
    after: Position = START,
    limit: int,
) -> Slice[CorrectionOut]:
    """One page, newest first."""
    caller.require_role(*_ROLES.values())
    async with resources.reading() as conn:
        found = await views.list_corrections(conn, status, after, limit)
    return found.map(lambda row: CorrectionOut(**_shown(row)))


async def show_correction(resources: Resources, caller: Caller, correction_id: str) -> CorrectionWithTrail:
    """One correction with its trail. Raises NotFound."""
    caller.require_role(*_ROLES.values())
    async with resources.reading() as conn:
        return await _read(conn, correction_id)


async def approve_correction(
    resources: Resources, caller: Caller, correction_id: str, *, note: str = ""
) -> CorrectionWithTrail:
    """The correction, posted or refused by the books. Raises as `two_operators.approve`."""
    read = partial(_read_to_decide, caller=caller, correction_id=correction_id)
    decision = Decision(operator=caller.owner, key_id=caller.key_id, approve=True, note=note)
    return await two_operators.approve(resources, caller, read, partial(_tell, resources, decision))


async def reject_correction(
    resources: Resources, caller: Caller, correction_id: str, *, reason: str
) -> CorrectionWithTrail:
    """The correction, rejected or taken back. Raises as `two_operators.reject`."""
    read = partial(_read_to_decide, caller=caller, correction_id=correction_id)
    decision = Decision(operator=caller.owner, key_id=caller.key_id, approve=False, note=reason)
    return await two_operators.reject(resources, caller, read, partial(_tell, resources, decision))


def _require_role(caller: Caller, kind: CorrectionKind) -> None:
    role = _ROLES[kind]
    if not caller.has_role(role):
        raise Forbidden(f"The kind '{kind}' needs a key with the role {role}.", scope=role)


async def _check_books(conn: Connection, order: CorrectionOrder) -> None:
    """Raises Invalid for an account or a case that does not exist."""
    found = await views.find_codes(conn, [order.debit, order.credit])
    for field, code in (("debit", order.debit), ("credit", order.credit)):
        if code not in found:
            raise Invalid(f"{field}: there is no account {code} in the books.", field=field)
    if order.case_id is not None and await find_case(conn, order.case_id) is None:
        raise Invalid(f"case_id: there is no case {order.case_id}.", field="case_id")


def _proposal(caller: Caller, order: CorrectionOrder) -> Proposal:
    return Proposal(
        correction=CorrectionId(id_for_key("corr", caller.owner, order.key)),
        kind=order.kind,
        debit=order.debit,
        credit=order.credit,
        amount_msat=order.amount_msat,
        reason=order.reason,
        operator=caller.owner,
        key_id=caller.key_id,
        idempotency_key=order.key,
        body_hash=order.body_hash.hex(),
        case=order.case_id,
        reference=order.reference,
    )


async def _wait_for_key(resources: Resources, intent: Intent, key: str) -> str:
    """The id of the proposal, once its workflow has taken the key. Raises Conflict when another request took it."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            while True:
                async with resources.reading() as conn:
                    known = await find_key(conn, intent.owner, key)
                if known is not None and known.resource_id is not None:
                    check_same(known.body_hash, intent.body_hash)
                    return known.resource_id
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise Unavailable("no worker has taken the proposal yet", code="temporarily_unavailable") from error


async def _tell(resources: Resources, decision: Decision, known: CorrectionWithTrail) -> None:
    await two_operators.tell(
        resources,
        known.workflow_id,
        CorrectionWorkflow.decide,
        decision,
        limit_s=_LIMIT_S,
        refusals={
            "correction_decided": lambda _: Conflict("Another operator has decided this.", code="correction_decided")
        },
    )


async def _read_to_decide(conn: Connection, *, caller: Caller, correction_id: str) -> CorrectionWithTrail:
    known = await _read(conn, correction_id)
    _require_role(caller, known.kind)
    return known


async def _read(conn: Connection, correction_id: str) -> CorrectionWithTrail:
    row = await views.find_correction(conn, correction_id)
    if row is None:
        raise no_such("correction")
    trail = await views.list_trail(conn, correction_id)
    return CorrectionWithTrail(**_shown(row), trail=[TrailOut(**line) for line in trail])


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    refs = transfer_refs(CorrectionId(row["id"]), CorrectionKind(row["kind"]), row["debit"], row["credit"])
    code, detail = row["refusal_code"], row["refusal_detail"]
    return {
        **row,
        "refusal": RefusalOut(code=code, detail=detail) if code else None,
        "transfers": refs if row["status"] == CorrectionStatus.POSTED else [],
    }
