"""Approve or reject a forced end: the use cases, for any door.

Two operators decide (`two_operators.py`). The approval moves the money in the payment's own workflow, which looks at
the node once more first.
"""

from functools import partial

from api.service import two_operators
from api.service.auth import Caller, still_may_in_tx
from api.service.forced_end.answer import DecisionOut, read
from api.service.forced_end.propose import require_pending
from api.service.resources import Resources
from api.service.role import MAY
from engine.bank.audit import record_in_tx
from engine.bank.forced_end import find_stuck_payment, get_row_in_tx, mark_in_tx
from engine.contracts.payment import Approval
from engine.domain.errors import Refused
from engine.domain.forced_end import DecisionStatus
from engine.domain.ids import DecisionId, PaymentId
from engine.ledger.database import transaction
from workflows.payment import PaymentWorkflow

_LIMIT_S = 30
"""A running send is cancelled within some seconds, and the node may need ten to show what it was told."""


async def approve_decision(resources: Resources, caller: Caller, decision_id: str, *, note: str = "") -> DecisionOut:
    """The decision, once the payment has ended by it.

    Raises as `two_operators.approve`, and Refused (`payment_not_stuck`) when the payment can end by itself.
    """
    caller.require_role(*MAY["end a payment by force"])
    read_it = partial(read, decision_id=decision_id)
    return await two_operators.approve(resources, caller, read_it, partial(_end_payment, resources, caller, note))


async def reject_decision(resources: Resources, caller: Caller, decision_id: str, *, reason: str) -> DecisionOut:
    """The decision, rejected or taken back. Raises as `two_operators.reject`."""
    caller.require_role(*MAY["end a payment by force"])
    read_it = partial(read, decision_id=decision_id)
    return await two_operators.reject(resources, caller, read_it, partial(_mark_rejected, resources, caller, reason))


async def _end_payment(resources: Resources, caller: Caller, note: str, known: DecisionOut) -> None:
    """Let the payment's workflow end it. If the payment has just ended, or has no workflow, its row tells."""
    async with resources.reading() as conn:
        stuck = await find_stuck_payment(conn, PaymentId(known.payment_id))
    if stuck is None:
        return
    require_pending(stuck)
    await two_operators.tell(
        resources,
        stuck.workflow_id,
        PaymentWorkflow.decide,
        Approval(decision=DecisionId(known.id), operator=caller.owner, key_id=caller.key_id, note=note),
        limit_s=_LIMIT_S,
        refusals={
            "decision_made": lambda _: known.decided(),
            "payment_not_stuck": lambda message: Refused(message, code="payment_not_stuck"),
        },
    )


async def _mark_rejected(resources: Resources, caller: Caller, reason: str, known: DecisionOut) -> None:
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        row = await get_row_in_tx(conn, DecisionId(known.id))
        if row.status is not DecisionStatus.PROPOSED:
            return
        await mark_in_tx(conn, row.id, DecisionStatus.REJECTED, operator=caller.owner, note=reason)
        stuck = await find_stuck_payment(conn, row.payment_id)
        account = None if stuck is None else stuck.account_id
        await record_in_tx(conn, caller.act("decision.reject", account_id=account, subject=row.id, note=reason))
