"""What a node says about an attempt, as a failure code or as a reason to wait. Pure."""

from datetime import UTC, datetime, timedelta

from engine.clients.lnd.client import NodePayment
from engine.clients.lnd.htlc import NodeHtlcs
from engine.contracts.payment import AttemptReport, NodeVerdict
from engine.domain.lost_attempt import release_height
from engine.domain.sending import (
    IN_DOUBT,
    IN_FLIGHT,
    LOST_ATTEMPT,
    NOT_TRIED,
    OVERDUE,
    REFUSED_BY_NODE,
    TRIED_AFTER_S,
    Waiting,
)

SEND_REFUSED = "send_refused"
"""The reason to wait when the node has answered a send with an unknown error."""
_SUSPICIOUS = 2
"""At how many heights a payment in flight must be in no channel before it counts as lost, not as just being added."""

FAILURE_CODES = {
    "FAILURE_REASON_TIMEOUT": "payment_timeout",
    "FAILURE_REASON_NO_ROUTE": "no_route",
    "FAILURE_REASON_ERROR": "no_route",
    "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS": "incorrect_payment_details",
    "FAILURE_REASON_INSUFFICIENT_BALANCE": "insufficient_liquidity",
    "FAILURE_REASON_CANCELED": "cancelled",
}
FAILURE_DETAILS = {
    "payment_timeout": "no route worked within a minute",
    "no_route": "there is no route to the payee now",
    "fee_limit_exceeded": "every route to the payee costs more than may be paid for routing",
    "incorrect_payment_details": "the payee does not accept a payment for this invoice",
    "insufficient_liquidity": "no channel can carry this amount now",
    "cancelled": "the payment was cancelled at the node",
}


WAIT_DETAILS = {
    "node_unavailable": "the node cannot take it now",
    "outcome_unknown": "an answer of the node was lost; it is asked again",
    "ledger_unavailable": "the books cannot be reached now",
    "node_refuses": "the node refuses our access",
    "node_replaced": "another node answers at its address",
    "node_forgot": "the node does not know this payment any more",
    SEND_REFUSED: "the node refuses to send it; it is asked again, and repeated refusals end it",
}
"""Texts for callers of the API. The node's own message may contain our addresses; it is in the workflow."""


def is_untried(payment: NodePayment) -> bool:
    """Whether the node has made no attempt, and would have made one long ago."""
    return payment.time_lock == 0 and age(payment) > timedelta(seconds=TRIED_AFTER_S)


def age(payment: NodePayment) -> timedelta:
    """How old the payment is by the node's clock, which may differ from ours."""
    return datetime.now(UTC) - payment.created_at


def may_be_lost(payment: NodePayment, htlcs: NodeHtlcs) -> bool:
    """Whether this look has found the payment in no channel and counts for the proof."""
    seen = payment.payment_hash in htlcs.outgoing or payment.preimage_seen
    return not (seen or htlcs.closing or not htlcs.synced or payment.time_lock == 0)


def waits_for(payment: NodePayment, htlcs: NodeHtlcs, heights: list[int], doubt: str | None = None) -> Waiting:
    """What the payment waits for: the payee, the time lock or an operator. `doubt`: why the channels prove nothing."""
    if is_untried(payment):
        detail = "the node stopped before the first attempt, and does not end it; its restart would"
        return Waiting(reason=NOT_TRIED, detail=detail, needs_operator=True)
    if payment.time_lock == 0:
        return Waiting(reason=IN_FLIGHT, detail="the node has it, and has made no attempt yet")
    due = release_height(payment.time_lock)
    overdue = htlcs.height > due
    if doubt is not None and may_be_lost(payment, htlcs):
        detail = f"the node has it in no channel, which proves nothing: {doubt}"
        return Waiting(reason=IN_DOUBT, detail=detail, needs_operator=True)
    if len(heights) >= _SUSPICIOUS:
        detail = (
            f"the node holds it to be in flight, and has it in no channel; by rule it is released from block {due} on"
        )
        return Waiting(reason=LOST_ATTEMPT, detail=detail)
    if overdue:
        detail = f"its time lock ended at block {payment.time_lock}, and the node has no final word"
        return Waiting(reason=OVERDUE, detail=detail, needs_operator=True)
    detail = f"the payee, or a node on the way, has not answered; block {payment.time_lock} ends it at the latest"
    return Waiting(reason=IN_FLIGHT, detail=detail)


def lost(payment: NodePayment, heights: list[int]) -> AttemptReport:
    """The report of a lost attempt. The proof is complete: nothing of this attempt can be paid any more."""
    seen = ", ".join(str(height) for height in heights if height > payment.time_lock)
    return AttemptReport(
        verdict=NodeVerdict.FAILED,
        failure_code=LOST_ATTEMPT,
        failure_detail=f"the node lost the attempt before it left: its time lock ended at block {payment.time_lock}, "
        f"and at {seen} it was in no channel",
        payment_index=payment.payment_index,
    )


def refused_by_node(detail: str) -> AttemptReport:
    """The report of a refused attempt: the node began nothing of it and will not."""
    return AttemptReport(verdict=NodeVerdict.FAILED, failure_code=REFUSED_BY_NODE, failure_detail=detail)
