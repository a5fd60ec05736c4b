"""Sending over a node, so that nothing is ever paid twice and nothing unknown is ever taken for failed.

Every try, the first as well as the tenth, looks at the node before it sends (TrackPaymentV2), and reads the fence in
Postgres right before the call: a payment that was settled or released in the meantime, by whichever worker, is not sent
again. What the node said about an attempt older than this one is no news about this one.

A node that has known an attempt is never sent it again, not even when it does not know it any more: its database may be
an old copy, and the HTLC of the first send still be on its way. Its first word is noted in Postgres, and from then on
the payment is only watched.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.heartbeat import heartbeats
from engine.clients.lnd import Keysend, LndNode, NodeIdentity, NodePayment, NodePaymentStatus, SendRefused
from engine.clients.lnd_htlcs import NodeHtlcs
from engine.contracts.payment import AttemptReport, LightningAttempt, NodeVerdict, SendingActivities
from engine.domain.errors import EngineError, InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.money import Msat
from engine.domain.sending import (
    IN_FLIGHT,
    LOST_ATTEMPT,
    NOT_TRIED,
    TRIED_AFTER_S,
    Waiting,
    is_proven_lost,
    release_height,
)
from engine.ledger import keysend, sending
from engine.ledger.database import Pool, borrowed

_IDENTITY_S = 0.25
"""How long a node that could send is held to be able to: what loses its chain in between keeps a payment untried."""
_FOLLOW_S = 5
"""How long a send keeps its slot for an answer before the payment is watched by retry instead."""
_PATIENT_TRIES = 20
"""So often a send waits for a node without active channels, about a minute, before it lets the node say no."""
_FIRST_LOOK, _LAST_LOOK = timedelta(seconds=5), timedelta(minutes=10)
_NOTE_LIMIT_S = 3
_BEGUN = AttemptReport(verdict=NodeVerdict.IN_FLIGHT)
"""From here on it is watched, and never sent."""
_SUSPICIOUS = 2
"""In flight and in no channel at so many heights: no longer an HTLC that is just being added."""

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


_WAIT_DETAILS = {
    "node_unavailable": "the node cannot take it now",
    "outcome_unknown": "an answer of the node was lost; it is asked again",
    "ledger_unavailable": "the books cannot be reached now",
    "node_refuses": "the node refuses our access",
    "node_replaced": "another node answers at its address",
    "node_forgot": "the node does not know this payment any more",
}
"""For whoever asks over the API. The node's own words, which may name places of ours, are in the workflow."""


class Sending(SendingActivities):
    """Bound to one node; one instance per node queue."""

    def __init__(self, node: LndNode, pool: Pool) -> None:
        self._node = node
        self._pool = pool
        self._asked: asyncio.Task[NodeIdentity | EngineError] | None = None
        self._good_until = 0.0

    @activity.defn
    async def send_payment(self, attempt: LightningAttempt) -> AttemptReport:
        async with heartbeats():
            return await self.send(attempt)

    async def send(
        self, attempt: LightningAttempt, *, new_until: float | None = None, follow_s: float = _FOLLOW_S
    ) -> AttemptReport:
        """Until `new_until`, by the monotonic clock, nobody else can have sent it: that spares the look.

        Raises Unavailable when the node was not told by then.
        """
        async with self._noting(attempt):
            if attempt.begun or (new_until is None and await self._is_known(attempt)):
                return await self._follow(attempt, self._node.follow_payment(attempt.payment_hash), follow_s)
            without_invoice = await self._find_keysend(attempt)
            if not await self._pass_fence(attempt):
                return _BEGUN
            if new_until is not None and time.monotonic() > new_until:
                raise Unavailable(f"{self._node.name} was too slow to be told without a look")
            if activity.info().attempt > 1:
                await self._note(attempt, Waiting(reason="sending", detail="the node is being asked again"))
            try:
                return await self._follow(
                    attempt,
                    self._node.send_payment(
                        bolt11=attempt.bolt11,
                        payment_hash=attempt.payment_hash,
                        keysend=without_invoice,
                        amount_msat=None if attempt.amount_in_invoice else attempt.amount_msat,
                        max_fee_msat=attempt.max_fee_msat,
                        known_payment_index=attempt.known_payment_index,
                    ),
                    follow_s,
                )
            except SendRefused as refused:
                return AttemptReport(
                    verdict=NodeVerdict.FAILED, failure_code=refused.code, failure_detail=refused.words
                )

    @activity.defn
    async def watch_payment(self, attempt: LightningAttempt) -> AttemptReport:
        async with self._noting(attempt):
            payment = await self._find(attempt)
            if payment.status is not NodePaymentStatus.IN_FLIGHT:
                return await self._report(attempt, payment)
            # Only now: without its chain a node does not answer this, and may still know the end.
            htlcs = await self._node.read_htlcs()
            payment = await self._find(attempt)  # once more: what has ended meanwhile is in no channel
            if payment.status is not NodePaymentStatus.IN_FLIGHT:
                return await self._report(attempt, payment)
            if _is_untried(payment):
                await self._end_untried(attempt)
                payment = await self._find(attempt)
                if payment.status is not NodePaymentStatus.IN_FLIGHT:
                    return await self._report(attempt, payment)
            heights = await self._sight(attempt, payment, htlcs)
            if is_proven_lost(heights, payment.time_lock):
                return _lost(payment, heights)
        waiting = _waits_for(payment, htlcs, heights)
        await self._note(attempt, waiting)
        if waiting.reason != (attempt.shown or IN_FLIGHT):
            return AttemptReport(verdict=NodeVerdict.IN_FLIGHT, waiting=waiting)
        raise ApplicationError(
            f"still in flight on {self._node.name}: {waiting.detail}",
            type="InFlight",
            next_retry_delay=min(max(_FIRST_LOOK, _age(payment) / 2), _LAST_LOOK),
            category=ApplicationErrorCategory.BENIGN,  # expected: no warning in the log at every look
        )

    async def _find(self, attempt: LightningAttempt) -> NodePayment:
        """Raises InvariantBroken (`node_forgot`) when the node knows nothing of this attempt."""
        payment = await self._node.find_payment(attempt.payment_hash)
        if payment is None or not _is_news(payment, attempt):
            raise InvariantBroken(
                f"{self._node.name} does not know a payment that it was sending: was its database replaced? "
                "The money stays held.",
                code="node_forgot",
            )
        return payment

    async def _end_untried(self, attempt: LightningAttempt) -> None:
        """What came of it is the node's to say. A node that cannot do it is restarted by an operator."""
        try:
            await self._node.end_untried(attempt.payment_hash, attempt.amount_msat)
        except EngineError as error:
            activity.logger.warning("%s was never tried, and is not ended: %s", attempt.payment_id, error)

    async def _is_known(self, attempt: LightningAttempt) -> bool:
        known = await self._node.find_payment(attempt.payment_hash)
        return known is not None and _is_news(known, attempt)

    async def _sight(self, attempt: LightningAttempt, payment: NodePayment, htlcs: NodeHtlcs) -> list[int]:
        """The heights at which this payment was in flight and in no channel; none when it is in one now."""
        seen = payment.payment_hash in htlcs.outgoing or payment.preimage_seen
        if seen or htlcs.closing or not htlcs.synced or payment.time_lock == 0:
            return []
        async with borrowed(self._pool) as conn:
            await sending.add_sighting(
                conn,
                attempt.payment_id,
                height=htlcs.height,
                time_lock=payment.time_lock,
                payment_index=payment.payment_index,
            )
            return await sending.list_sightings(conn, attempt.payment_id, payment_index=payment.payment_index)

    @asynccontextmanager
    async def _noting(self, attempt: LightningAttempt) -> AsyncIterator[None]:
        """What keeps this try from going on is what the payment waits for, for whoever asks."""
        try:
            yield
        except EngineError as error:
            broken = isinstance(error, InvariantBroken)
            detail = _WAIT_DETAILS.get(error.code, "an operator must look")
            await self._note(
                attempt, Waiting(reason=error.code, detail=detail, needs_operator=broken, impatient=not broken)
            )
            raise

    async def _note(self, attempt: LightningAttempt, waiting: Waiting) -> None:
        """For people: whoever cannot write it goes on without."""
        with suppress(EngineError):
            async with borrowed(self._pool, timeout_s=_NOTE_LIMIT_S) as conn:
                await sending.note_wait(conn, attempt.payment_id, waiting)

    async def _find_keysend(self, attempt: LightningAttempt) -> Keysend | None:
        """The preimage is read for each try, and the same for all."""
        if attempt.payee_node is None:
            return None
        async with borrowed(self._pool) as conn:
            preimage = await keysend.get_preimage(conn, attempt.payment_id)
        return Keysend(payee=attempt.payee_node, preimage=preimage)

    async def _pass_fence(self, attempt: LightningAttempt) -> bool:
        """Whether it may be sent: False when the node has had it once.

        Raises unless the node is the adopted one and can send, and, read last, the money is still held for this.
        """
        identity = await self._get_identity()
        if identity.active_channels == 0 and activity.info().attempt <= _PATIENT_TRIES:
            raise Unavailable(f"{self._node.name} has no active channel; it may have just been started")
        if not identity.synced:
            raise Unavailable(f"{self._node.name} is behind the chain")
        async with borrowed(self._pool) as conn:
            fence = await sending.find_fence(conn, attempt.payment_id, attempt=attempt.attempt)
        if fence is None:
            raise InvariantBroken(f"{attempt.payment_id} is not waiting to be sent any more")
        if identity.pubkey != fence.pubkey:
            raise InvariantBroken(
                f"{self._node.name} is not the node that was adopted: {identity.pubkey} answers", code="node_replaced"
            )
        return not fence.begun

    async def _note_begun(self, attempt: LightningAttempt) -> None:
        """Before anything else happens to it, if that can be: books that are away must not end the following."""
        try:
            async with asyncio.timeout(_NOTE_LIMIT_S), borrowed(self._pool) as conn:
                await sending.note_begun(conn, attempt.payment_id)
        except (EngineError, TimeoutError) as error:
            activity.logger.warning("%s is in flight, and it could not be noted: %s", attempt.payment_id, error)

    async def _get_identity(self) -> NodeIdentity:
        """Who answers; asked once for all that send then, because it costs the node more than a look does."""
        if self._asked is None or time.monotonic() > self._good_until:
            self._good_until = time.monotonic() + _IDENTITY_S
            self._asked = asyncio.create_task(self._ask())
        answer = await asyncio.shield(self._asked)
        if isinstance(answer, EngineError):
            raise answer
        return answer

    async def _ask(self) -> NodeIdentity | EngineError:
        """Whoever cannot send is asked again by the next try. Raises nothing: perhaps nobody waits any more."""
        try:
            answer = await self._node.get_identity()
        except EngineError as error:
            self._good_until = 0.0
            return error
        if not (answer.synced and answer.active_channels):
            self._good_until = 0.0
        return answer

    async def _follow(
        self, attempt: LightningAttempt, updates: AsyncGenerator[NodePayment, None], follow_s: float
    ) -> AttemptReport:
        """The final report, or IN_FLIGHT when the node has the payment and tells no end of it for a while.

        Raises OutcomeUnknown when the node has not even said that it has the payment: the next try looks again. From
        its first word on nothing is raised: whatever comes, a try that could send must not follow.
        """
        begun = attempt.begun
        try:
            async with asyncio.timeout(follow_s), aclosing(updates):
                async for payment in updates:
                    if not _is_news(payment, attempt):
                        continue
                    if payment.status is not NodePaymentStatus.IN_FLIGHT:
                        return await self._report(attempt, payment)
                    if not begun:
                        begun = True
                        await self._note_begun(attempt)
        except TimeoutError:
            activity.logger.info("no end after %s s", follow_s)
        except EngineError as error:
            if not begun:
                raise
            activity.logger.info("the answer ended after it had begun: %s", error)
        if not begun:
            raise OutcomeUnknown(f"{self._node.name} has not confirmed that it has the payment")
        return _BEGUN

    async def _report(self, attempt: LightningAttempt, payment: NodePayment) -> AttemptReport:
        if payment.status is NodePaymentStatus.SUCCEEDED:
            return AttemptReport(
                verdict=NodeVerdict.SUCCEEDED,
                fee_msat=payment.fee_msat,
                preimage=payment.preimage,
                payment_index=payment.payment_index,
                delivered_msat=_delivered_otherwise(payment, attempt),
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
                bolt11=attempt.bolt11,
                payee=attempt.payee_node,
                amount_msat=attempt.amount_msat,
                fee_msat=attempt.max_fee_msat,
            )
        except EngineError:  # only a better word for the same failure
            return False


def _delivered_otherwise(payment: NodePayment, attempt: LightningAttempt) -> Msat | None:
    """What the payee has taken, where that is not what he was to get."""
    return None if payment.delivered_msat == attempt.amount_msat else payment.delivered_msat


def _is_news(payment: NodePayment, attempt: LightningAttempt) -> bool:
    """Whether the node speaks of this attempt, and not of one that is known to have failed before it."""
    return payment.payment_index > attempt.known_payment_index


def _is_untried(payment: NodePayment) -> bool:
    """Whether the node has made no attempt, and would have made one long ago."""
    return payment.time_lock == 0 and _age(payment) > timedelta(seconds=TRIED_AFTER_S)


def _age(payment: NodePayment) -> timedelta:
    return datetime.now(UTC) - payment.created_at


def _waits_for(payment: NodePayment, htlcs: NodeHtlcs, heights: list[int]) -> Waiting:
    """In words: the payee's turn, the time lock's, or an operator's."""
    if _is_untried(payment):
        detail = "the node stopped before the first attempt, and does not end it; its restart would"
        return Waiting(reason=NOT_TRIED, detail=detail, needs_operator=True)
    if payment.time_lock == 0:
        return Waiting(reason=IN_FLIGHT, detail="the node has it, and has made no attempt yet")
    due = release_height(payment.time_lock)
    overdue = htlcs.height > due
    if len(heights) >= _SUSPICIOUS:
        detail = (
            f"the node holds it to be in flight, and has it in no channel; by rule it is released from block {due} on"
        )
        return Waiting(reason=LOST_ATTEMPT, detail=detail)
    if overdue:
        detail = f"its time lock ended at block {payment.time_lock}, and the node has no final word"
        return Waiting(reason="overdue", detail=detail, needs_operator=True)
    detail = f"the payee, or a node on the way, has not answered; block {payment.time_lock} ends it at the latest"
    return Waiting(reason=IN_FLIGHT, detail=detail)


def _lost(payment: NodePayment, heights: list[int]) -> AttemptReport:
    """The proof is complete: nothing of this attempt can be paid any more."""
    seen = ", ".join(str(height) for height in heights if height > payment.time_lock)
    return AttemptReport(
        verdict=NodeVerdict.FAILED,
        failure_code=LOST_ATTEMPT,
        failure_detail=f"the node lost the attempt before it left: its time lock ended at block {payment.time_lock}, "
        f"and at {seen} it was in no channel",
        payment_index=payment.payment_index,
    )
