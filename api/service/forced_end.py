"""Forced ends, "decisions" in the API: how a payment ends whose node cannot tell its end any more. The use cases.

One operator proposes and another approves (`two_operators.py`). The approval moves the money, in the payment's own
workflow. A payment that can still end by itself is not decided: it must wait for something that calls an operator, and
its node is looked at once more after the approval. A payment that its node never had can be decided whatever it waits
for. An operator is an account, whichever of its keys it uses; the bootstrap key is one operator too.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import BaseModel, Field

from api.service import two_operators
from api.service.auth import Caller, no_such, still_may_in_tx
from api.service.resources import Resources
from api.service.role import MAY
from engine.bank import forced_end
from engine.bank.audit import record_in_tx
from engine.contracts.payment import Approval
from engine.domain.errors import Conflict, Refused
from engine.domain.forced_end import REASONS, DecisionEnd, DecisionStatus, check_end
from engine.domain.ids import DecisionId, PaymentId, new_id
from engine.domain.money import Msat
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection, transaction
from engine.views import forced_end as views
from workflows.payment import PaymentWorkflow

_LIMIT_S = 30
"""A send is taken back within some seconds, and the node may need ten to show what it was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionOrder:
    """How the payment is to end, and how that is known."""

    payment_id: PaymentId
    end: DecisionEnd
    preimage: str | None = None
    fee_msat: Msat = Msat(0)
    reason: str


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

    @property
    def is_open(self) -> bool:
        """Whether it waits for a second operator."""
        return self.status is DecisionStatus.PROPOSED

    @property
    def approved_by(self) -> str | None:
        """The second operator, who said yes."""
        return self.decided_by if self.status is DecisionStatus.DONE else None

    @property
    def rejected_by(self) -> str | None:
        """The operator who said no."""
        return self.decided_by if self.status is DecisionStatus.REJECTED else None

    def decided(self) -> Conflict:
        """The refusal of another decision."""
        return _decided()


async def propose_decision(resources: Resources, caller: Caller, order: DecisionOrder) -> DecisionOut:
    """Propose it. Nothing moves yet. The same proposal of the same operator again is a repeat, and gets the first.

    Raises NotFound, Refused (`payment_not_stuck`), Invalid for an end without its proof, and Conflict
    (`decision_open`) while another proposal for the payment is open or done.
    """
    caller.require_role(*MAY["end a payment by force"])
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        stuck = await _require_stuck(conn, order)
        new = forced_end.NewDecision(
            id=DecisionId(new_id("dec")),
            payment_id=order.payment_id,
            payment_end=order.end,
            preimage=order.preimage,
            fee_msat=order.fee_msat,
            reason=order.reason,
            proposed_by=caller.owner,
        )
        known = await forced_end.propose_in_tx(conn, new)
        if known == new.id:
            said = {"payment_id": order.payment_id, "end": order.end, "fee_msat": order.fee_msat}
            act = caller.act("decision.propose", account_id=stuck.account_id, subject=known, **said)
            await record_in_tx(conn, act)
    async with resources.reading() as conn:
        return await _read(conn, known)


async def list_decisions(
    resources: Resources, caller: Caller, status: DecisionStatus | None = None, *, after: Position = START, limit: int
) -> Slice[DecisionOut]:
    """One page, newest first."""
    caller.require_role(*MAY["end a payment by force"])
    async with resources.reading() as conn:
        found = await views.list_decisions(conn, status, after, limit)
    return found.map(_shown)


async def show_decision(resources: Resources, caller: Caller, decision_id: str) -> DecisionOut:
    """One decision. Raises NotFound."""
    caller.require_role(*MAY["end a payment by force"])
    async with resources.reading() as conn:
        return await _read(conn, decision_id)


async def approve_decision(resources: Resources, caller: Caller, decision_id: str, *, note: str = "") -> DecisionOut:
    """The decision, once the payment has ended by it.

    Raises as `two_operators.approve`, and Refused (`payment_not_stuck`) when the payment can end by itself.
    """
    caller.require_role(*MAY["end a payment by force"])
    read = partial(_read, decision_id=decision_id)
    return await two_operators.approve(resources, caller, read, partial(_end_payment, resources, caller, note))


async def reject_decision(resources: Resources, caller: Caller, decision_id: str, *, reason: str) -> DecisionOut:
    """The decision, rejected or taken back. Raises as `two_operators.reject`."""
    caller.require_role(*MAY["end a payment by force"])
    read = partial(_read, decision_id=decision_id)
    return await two_operators.reject(resources, caller, read, partial(_mark_rejected, resources, caller, reason))


async def _end_payment(resources: Resources, caller: Caller, note: str, known: DecisionOut) -> None:
    """Let the payment's workflow end it. Where it has just ended, or has no workflow, its row tells."""
    async with resources.reading() as conn:
        stuck = await forced_end.find_stuck_payment(conn, PaymentId(known.payment_id))
    if stuck is None:
        return
    _require_pending(stuck)
    await two_operators.tell(
        resources,
        stuck.workflow_id,
        PaymentWorkflow.decide,
        Approval(decision=DecisionId(known.id), operator=caller.owner, key_id=caller.key_id, note=note),
        limit_s=_LIMIT_S,
        refusals={
            "decision_made": lambda _: _decided(),
            "payment_not_stuck": lambda message: Refused(message, code="payment_not_stuck"),
        },
    )


async def _mark_rejected(resources: Resources, caller: Caller, reason: str, known: DecisionOut) -> None:
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        row = await forced_end.get_row_in_tx(conn, DecisionId(known.id))
        if row.status is not DecisionStatus.PROPOSED:
            return
        await forced_end.mark_in_tx(conn, row.id, DecisionStatus.REJECTED, operator=caller.owner, note=reason)
        stuck = await forced_end.find_stuck_payment(conn, row.payment_id)
        account = None if stuck is None else stuck.account_id
        await record_in_tx(conn, caller.act("decision.reject", account_id=account, subject=row.id, note=reason))


async def _require_stuck(conn: Connection, order: DecisionOrder) -> forced_end.StuckPayment:
    stuck = await forced_end.find_stuck_payment(conn, order.payment_id)
    if stuck is None or stuck.payment_hash is None:
        raise no_such("Lightning payment")
    _require_pending(stuck)
    if not stuck.needs_operator or (stuck.begun and stuck.waits_for not in REASONS):
        raise Refused("This payment does not wait for an operator's decision.", code="payment_not_stuck")
    check_end(
        order.end,
        preimage=order.preimage,
        fee_msat=order.fee_msat,
        payment_hash=stuck.payment_hash,
        routing_cap_msat=stuck.routing_cap_msat,
    )
    return stuck


def _require_pending(stuck: forced_end.StuckPayment) -> None:
    if stuck.status != "pending":
        raise Refused(f"This payment is {stuck.status}, and that is final.", code="payment_not_stuck")


def _decided() -> Conflict:
    return Conflict("This is decided already; its row says how.", code="decision_made")


async def _read(conn: Connection, decision_id: str) -> DecisionOut:
    row = await views.find_decision(conn, decision_id)
    if row is None:
        raise no_such("decision")
    return _shown(row)


def _shown(row: dict[str, Any]) -> DecisionOut:
    return DecisionOut(**row, end=row["payment_end"])
