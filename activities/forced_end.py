"""Carries out what two operators have decided about a payment whose node cannot report its end.

The activity looks at the node once more, right before. A node that knows the end, or that has an HTLC of the payment,
is not overruled. If the node never had the payment as far as we know, it may still have been told a moment ago. Then
the activity looks twice, ten seconds apart. It does not wait for a node that has been away for a quarter of an hour.

Then the payment's end, the decision and its line in the audit trail are written in one transaction. Safe to repeat: a
second call finds what the first did.
"""

import asyncio
from datetime import timedelta

from temporalio import activity

from activities.payment import release_in_tx, settle_in_tx
from engine.bank import forced_end, payment
from engine.bank.audit import Act, record_in_tx
from engine.clients.lnd.client import LndNode, NodePaymentStatus
from engine.contracts.payment import (
    Approval,
    CarryOutDecision,
    DecisionActivities,
    LightningAttempt,
    PaymentOutcome,
    PaymentStatus,
    ReleasePayment,
    SettlePayment,
)
from engine.domain.errors import InvariantBroken, OutcomeUnknown, Refused, Unavailable
from engine.domain.forced_end import RELEASED, DecisionEnd, DecisionStatus, check_end
from engine.domain.lost_attempt import release_height
from engine.domain.sending import REFUSAL_REST_S
from engine.ledger.chart import Chart
from engine.ledger.database import Connection, Pool, borrowed, transaction

_LONG = timedelta(minutes=15)


class Decisions(DecisionActivities):
    """Bound to one node; one instance per node queue."""

    def __init__(self, node: LndNode, pool: Pool, ids: Chart) -> None:
        self._node = node
        self._pool = pool
        self._ids = ids

    @activity.defn
    async def carry_out_decision(self, carry: CarryOutDecision) -> PaymentOutcome:
        async with transaction(self._pool) as conn:
            done = await _find_done_in_tx(conn, carry)
        if done is not None:
            return done
        try:
            await self._look(carry)
        except InvariantBroken as error:
            raise _not_stuck(f"its node cannot be looked at, and that is mended first ({error.code})") from error
        async with transaction(self._pool) as conn:
            row = await payment.get_row_in_tx(conn, carry.attempt.payment_id)
            done = await _find_done_in_tx(conn, carry)
            return done or await self._carry_out_in_tx(conn, row, carry)

    async def _look(self, carry: CarryOutDecision) -> None:
        begun, is_long_away = await self._find_standing(carry)
        if begun or not is_long_away:
            await self._require_silence(carry.attempt, begun=begun)
        if not (begun or is_long_away):
            await asyncio.sleep(REFUSAL_REST_S)
            await self._require_silence(carry.attempt, begun=begun)

    async def _find_standing(self, carry: CarryOutDecision) -> tuple[bool, bool]:
        """(whether the node may have had the payment, as far as we know; whether the node has long been away)."""
        async with borrowed(self._pool) as conn:
            stuck = await forced_end.find_stuck_payment(conn, carry.attempt.payment_id)
        if stuck is None or stuck.begun or carry.attempt.begun or not carry.may_be_sending:
            return True, False
        if stuck.node_away_for is None or stuck.node_away_for < _LONG:
            return False, False
        try:
            await self._node.find_payment(carry.attempt.payment_hash)
        except (Unavailable, OutcomeUnknown, InvariantBroken) as error:
            activity.logger.warning("%s is decided without its node: %s", carry.attempt.payment_id, error)
            return False, True
        return False, False

    async def _require_silence(self, attempt: LightningAttempt, *, begun: bool) -> None:
        """Raises Refused when the node itself may still end the payment.

        The channels are read before the payment: an HTLC that ends in between then shows in the payment's status. A
        node without its chain does not list its channels. That matters only for a payment that the node has had.
        """
        try:
            htlcs = await self._node.read_htlcs()
        except (Unavailable, OutcomeUnknown):
            if begun:
                raise
            htlcs = None
        known = await self._node.find_payment(attempt.payment_hash)
        if htlcs is not None and attempt.payment_hash in htlcs.outgoing:
            raise _not_stuck("a channel has an HTLC of this payment")
        if begun and htlcs is not None and (htlcs.closing or not htlcs.synced):
            raise _not_stuck(
                "a channel of the node is being closed, or the node is behind the chain: it may have an HTLC"
            )
        if known is None or known.payment_index <= attempt.known_payment_index:
            return
        if known.status is not NodePaymentStatus.IN_FLIGHT or known.preimage_seen:
            raise _not_stuck("the node knows how it ended")
        if known.time_lock == 0:
            raise _not_stuck("the node has made no attempt, and would end it after a restart")
        if htlcs is None or htlcs.height <= release_height(known.time_lock):
            raise _not_stuck(f"its time lock ends at block {known.time_lock}: not decided before it is past")

    async def _carry_out_in_tx(
        self, conn: Connection, row: payment.PaymentRow, carry: CarryOutDecision
    ) -> PaymentOutcome:
        word, approval = await forced_end.get_row_in_tx(conn, carry.approval.decision), carry.approval
        if word.status is not DecisionStatus.PROPOSED:
            raise Refused(f"{word.id} is {word.status} already.", code="decision_made")
        if word.proposed_by == approval.operator:
            raise Refused("Nobody approves what he proposed himself.", code="own_proposal")
        if row.status != PaymentStatus.PENDING:
            raise _not_stuck(f"it is {row.status}")
        if row.payment_hash is None:
            raise InvariantBroken(f"{row.id} is no Lightning payment")
        check_end(
            word.payment_end,
            preimage=word.preimage,
            fee_msat=word.fee_msat,
            payment_hash=row.payment_hash,
            routing_cap_msat=row.routing_cap_msat,
        )
        status = await self._end_in_tx(conn, row, word)
        await forced_end.mark_in_tx(conn, word.id, DecisionStatus.DONE, operator=approval.operator, note=approval.note)
        await record_in_tx(conn, await _decided(conn, word, approval))
        return PaymentOutcome(body_hash=carry.body_hash, status=status)

    async def _end_in_tx(
        self, conn: Connection, row: payment.PaymentRow, word: forced_end.DecisionRow
    ) -> PaymentStatus:
        if word.payment_end is DecisionEnd.SETTLED:
            settle = SettlePayment(
                payment_id=row.id, fee_msat=word.fee_msat, preimage=word.preimage or "", payment_index=0, body_hash=""
            )
            await settle_in_tx(conn, self._ids, row, settle)
            return PaymentStatus.SETTLED
        release = ReleasePayment(
            payment_id=row.id,
            failure_code=RELEASED,
            failure_detail="the node lost it; two operators found that nothing was paid",
            payment_index=0,
            body_hash="",
        )
        await release_in_tx(conn, row, release)
        return PaymentStatus.FAILED


async def _find_done_in_tx(conn: Connection, carry: CarryOutDecision) -> PaymentOutcome | None:
    """The outcome of an earlier call with this approval; None when there was none."""
    word = await forced_end.get_row_in_tx(conn, carry.approval.decision)
    if word.payment_id != carry.attempt.payment_id:
        raise Refused(f"{word.id} is about another payment.", code="decision_made")
    if word.status is not DecisionStatus.DONE or word.decided_by != carry.approval.operator:
        return None
    return PaymentOutcome(body_hash=carry.body_hash, status=PaymentStatus(word.payment_end))


async def _decided(conn: Connection, word: forced_end.DecisionRow, approval: Approval) -> Act:
    stuck = await forced_end.find_stuck_payment(conn, word.payment_id)
    return Act(
        operator=approval.operator,
        key_id=approval.key_id,
        action="decision.approve",
        account_id=None if stuck is None else stuck.account_id,
        subject=word.id,
        detail={
            "payment_id": word.payment_id,
            "end": word.payment_end,
            "fee_msat": word.fee_msat,
            "proposed_by": word.proposed_by,
            "note": approval.note,
        },
    )


def _not_stuck(why: str) -> Refused:
    return Refused(f"This payment can still end by itself: {why}.", code="payment_not_stuck")
