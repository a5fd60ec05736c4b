"""Sending over a node, so that nothing is ever paid twice and nothing unknown is ever taken for failed.

Every try, the first as well as the tenth, looks at the node before it sends (TrackPaymentV2), and reads the fence in
Postgres right before the call: a payment that was settled or released in the meantime, by whichever worker, is not sent
again. What the node said about an attempt older than this one is no news about this one.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.heartbeat import heartbeats
from engine.clients.lnd import LndNode, NodePayment, NodePaymentStatus, SendRefused
from engine.contracts.payment import AttemptReport, LightningAttempt, NodeVerdict, SendingActivities
from engine.domain.errors import EngineError, InvariantBroken, OutcomeUnknown, Unavailable
from engine.ledger import payment as payments
from engine.ledger.database import Pool

_FOLLOW_S = 15
"""How long a send keeps its slot for an answer before the payment is watched by retry instead."""
_PATIENT_TRIES = 20
"""So often a send waits for a node without active channels, about a minute, before it lets the node say no."""
_FIRST_LOOK_S = 5
_LAST_LOOK_S = 600

_FAILURE_CODES = {
    "FAILURE_REASON_TIMEOUT": "payment_timeout",
    "FAILURE_REASON_NO_ROUTE": "no_route",
    "FAILURE_REASON_ERROR": "no_route",
    "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS": "incorrect_payment_details",
    "FAILURE_REASON_INSUFFICIENT_BALANCE": "insufficient_liquidity",
    "FAILURE_REASON_CANCELED": "cancelled",
}
_FAILURE_DETAILS = {
    "payment_timeout": "no route worked within a minute",
    "no_route": "there is no route to the payee now",
    "fee_limit_exceeded": "every route to the payee costs more than may be paid for routing",
    "incorrect_payment_details": "the payee does not accept a payment for this invoice",
    "insufficient_liquidity": "no channel can carry this amount now",
    "cancelled": "the payment was cancelled at the node",
}


class Sending(SendingActivities):
    """Bound to one node; one instance per node queue."""

    def __init__(self, node: LndNode, pool: Pool) -> None:
        self._node = node
        self._pool = pool

    @activity.defn
    async def send_payment(self, attempt: LightningAttempt) -> AttemptReport:
        async with heartbeats():
            known = await self._node.find_payment(attempt.payment_hash)
            if known is not None and _is_news(known, attempt):
                return await self._follow(attempt, self._node.follow_payment(attempt.payment_hash))
            await self._pass_fence(attempt)
            try:
                return await self._follow(
                    attempt,
                    self._node.send_payment(
                        bolt11=attempt.bolt11,
                        payment_hash=attempt.payment_hash,
                        amount_msat=None if attempt.amount_in_invoice else attempt.amount_msat,
                        max_fee_msat=attempt.max_fee_msat,
                        known_payment_index=attempt.known_payment_index,
                    ),
                )
            except SendRefused as refused:
                return AttemptReport(
                    verdict=NodeVerdict.FAILED, failure_code=refused.code, failure_detail=refused.words
                )

    @activity.defn
    async def watch_payment(self, attempt: LightningAttempt) -> AttemptReport:
        payment = await self._node.find_payment(attempt.payment_hash)
        if payment is None or not _is_news(payment, attempt):
            raise InvariantBroken(
                f"{self._node.name} does not know a payment that it was sending: was its database replaced? "
                "The money stays held."
            )
        if payment.status is NodePaymentStatus.IN_FLIGHT:
            delay_s = min(_FIRST_LOOK_S * 2 ** min(activity.info().attempt - 1, 10), _LAST_LOOK_S)
            raise ApplicationError(
                f"still in flight on {self._node.name}",
                type="InFlight",
                next_retry_delay=timedelta(seconds=delay_s),
                category=ApplicationErrorCategory.BENIGN,  # expected: no warning in the log at every look
            )
        return await self._report(attempt, payment)

    async def _pass_fence(self, attempt: LightningAttempt) -> None:
        """Raises unless the node is the adopted one and can send, and, read last, the money is still held for this."""
        identity = await self._node.get_identity()
        if identity.active_channels == 0 and activity.info().attempt <= _PATIENT_TRIES:
            raise Unavailable(f"{self._node.name} has no active channel; it may have just been started")
        async with self._pool.acquire() as conn:
            pubkey = await payments.find_fence(conn, payment_id=attempt.payment_id, attempt=attempt.attempt)
        if pubkey is None:
            raise InvariantBroken(f"{attempt.payment_id} is not waiting to be sent any more")
        if identity.pubkey != pubkey:
            raise InvariantBroken(f"{self._node.name} is not the node that was adopted: {identity.pubkey} answers")

    async def _follow(self, attempt: LightningAttempt, updates: AsyncGenerator[NodePayment, None]) -> AttemptReport:
        """The final report, or IN_FLIGHT when the node has the payment and no end of it for a while.

        Raises OutcomeUnknown when the node has not even said that it has the payment: the next try looks again.
        """
        begun = False
        try:
            async with asyncio.timeout(_FOLLOW_S), aclosing(updates):
                async for payment in updates:
                    if _is_news(payment, attempt):
                        begun = True
                        if payment.status is not NodePaymentStatus.IN_FLIGHT:
                            return await self._report(attempt, payment)
        except TimeoutError:
            activity.logger.info("no end after %s s", _FOLLOW_S)
        if not begun:
            raise OutcomeUnknown(f"{self._node.name} has not confirmed that it has the payment")
        return AttemptReport(verdict=NodeVerdict.IN_FLIGHT)

    async def _report(self, attempt: LightningAttempt, payment: NodePayment) -> AttemptReport:
        if payment.status is NodePaymentStatus.SUCCEEDED:
            return AttemptReport(
                verdict=NodeVerdict.SUCCEEDED,
                fee_msat=payment.fee_msat,
                preimage=payment.preimage,
                payment_index=payment.payment_index,
            )
        code = _FAILURE_CODES.get(payment.failure_reason, "no_route")
        if code == "no_route" and await self._is_too_dear(attempt):
            code = "fee_limit_exceeded"
        return AttemptReport(
            verdict=NodeVerdict.FAILED,
            failure_code=code,
            failure_detail=_FAILURE_DETAILS[code],
            payment_index=payment.payment_index,
        )

    async def _is_too_dear(self, attempt: LightningAttempt) -> bool:
        try:
            return await self._node.has_route_above(
                bolt11=attempt.bolt11, amount_msat=attempt.amount_msat, fee_msat=attempt.max_fee_msat
            )
        except EngineError:  # only a better word for the same failure
            return False


def _is_news(payment: NodePayment, attempt: LightningAttempt) -> bool:
    """Whether the node speaks of this attempt, and not of one that is known to have failed before it."""
    return payment.payment_index > attempt.known_payment_index
