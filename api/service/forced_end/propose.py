"""Propose how a payment ends when its node can no longer tell: the use case, for any door. Nothing moves yet.

A payment that can still end by itself is refused: its reason to wait must need an operator. A payment that its node
never had can be decided whatever its reason to wait.
"""

from dataclasses import dataclass

from api.service.auth import Caller, still_may_in_tx
from api.service.forced_end.answer import DecisionOut, read
from api.service.resources import Resources
from api.service.role import MAY
from engine.bank.audit import record_in_tx
from engine.bank.forced_end import NewDecision, StuckPayment, find_stuck_payment, propose_in_tx
from engine.domain.errors import Refused, no_such
from engine.domain.forced_end import REASONS, DecisionEnd, check_end
from engine.domain.ids import DecisionId, PaymentId, new_id
from engine.domain.money import Msat
from engine.ledger.database import Connection, transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionOrder:
    """How the payment ends, and the evidence."""

    payment_id: PaymentId
    end: DecisionEnd
    preimage: str | None = None
    fee_msat: Msat = Msat(0)
    reason: str


async def propose_decision(resources: Resources, caller: Caller, order: DecisionOrder) -> DecisionOut:
    """Propose it. Nothing moves yet. The same proposal of the same operator again is a repeat, and gets the first.

    Raises NotFound, Refused (`payment_not_stuck`), Invalid for an end without its proof, and Conflict
    (`decision_open`) while another proposal for the payment is open or done.
    """
    caller.require_role(*MAY["end a payment by force"])
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        stuck = await _require_stuck(conn, order)
        new = NewDecision(
            id=DecisionId(new_id("dec")),
            payment_id=order.payment_id,
            payment_end=order.end,
            preimage=order.preimage,
            fee_msat=order.fee_msat,
            reason=order.reason,
            proposed_by=caller.owner,
        )
        known = await propose_in_tx(conn, new)
        if known == new.id:
            said = {"payment_id": order.payment_id, "end": order.end, "fee_msat": order.fee_msat}
            act = caller.act("decision.propose", account_id=stuck.account_id, subject=known, **said)
            await record_in_tx(conn, act)
    async with resources.reading() as conn:
        return await read(conn, known)


def require_pending(stuck: StuckPayment) -> None:
    """Raises Refused for a payment that has ended."""
    if stuck.status != "pending":
        raise Refused(f"This payment is {stuck.status}, and that is final.", code="payment_not_stuck")


async def _require_stuck(conn: Connection, order: DecisionOrder) -> StuckPayment:
    stuck = await find_stuck_payment(conn, order.payment_id)
    if stuck is None or stuck.payment_hash is None:
        raise no_such("Lightning payment")
    require_pending(stuck)
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
