"""Sends over a node. Nothing is ever paid twice, and nothing unknown is ever taken for failed.

Every try, the first as well as the tenth, looks at the node before it sends (TrackPaymentV2). It also reads the fence
in Postgres right before the call: a payment that any worker has settled or released in the meantime is not sent again.
What the node says about an older attempt is no news about this one. The node also reads the invoice before it is told
to pay it. An invoice that it cannot read, or reads differently than we do, ends the payment as failed.

An attempt that the node has known is never sent to it again, even if it does not know it any more: its database may be
an old copy while the HTLC of the first send is still on its way. The node's first answer is noted in Postgres, and from
then on the payment is only watched.

A send that the node answers with an error of unknown meaning, and then does not know, is counted in Postgres. After the
third such answer with the same text, nothing is sent for ten seconds. The payment ends if a last look finds nothing.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.heartbeat import heartbeats
from activities.sending import reason, sighting, wait_note
from engine.bank import keysend, sending
from engine.clients.lnd.client import Keysend, LndNode, NodeIdentity, NodePayment, NodePaymentStatus
from engine.clients.lnd.refusal import NotBegun, SendRefused
from engine.contracts.payment import AttemptReport, LightningAttempt, NodeVerdict, SendingActivities
from engine.domain.errors import EngineError, Invalid, InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.lost_attempt import is_proven_lost
from engine.domain.money import Msat
from engine.domain.sending import IN_FLIGHT, REFUSAL_REST_S, REFUSALS, Waiting
from engine.ledger.database import Pool, borrowed

_IDENTITY_S = 0.25
"""How long we believe that a node can send. If it loses its chain within that time, a payment stays untried."""
_FOLLOW_S = 5
"""How long a send keeps its slot for an answer before the payment is watched by retry instead."""
_PATIENT_TRIES = 20
"""How many tries, over about a minute, wait for a node without active channels before the node itself may refuse."""
_FIRST_LOOK, _LAST_LOOK = timedelta(seconds=5), timedelta(minutes=10)
_BEGUN = AttemptReport(verdict=NodeVerdict.IN_FLIGHT)
"""From here on the attempt is watched and never sent."""


class Sending(SendingActivities):
    """Bound to one node; one instance per node queue."""

    def __init__(self, node: LndNode, pool: Pool) -> None:
        self._node = node
        self._pool = pool
        self._notes = wait_note.WaitNotes(pool)
        self.check_invoice = node.check_invoice
        self._asked: asyncio.Task[NodeIdentity | EngineError] | None = None
        self._good_until = 0.0

    @activity.defn
    async def send_payment(self, attempt: LightningAttempt) -> AttemptReport:
        async with heartbeats():
            return await self.send(attempt)

    async def send(
        self, attempt: LightningAttempt, *, new_until: float | None = None, follow_s: float = _FOLLOW_S
    ) -> AttemptReport:
        """Send the attempt, or find it at the node, and follow it for `follow_s`.

        Until `new_until`, by the monotonic clock, nobody else can have sent it, so the first look is skipped. Raises
        Unavailable when the node was not told by then.
        """
        async with self._notes.noting(attempt, slows=True):
            if attempt.begun or (new_until is None and await self._is_known(attempt)):
                return await self._follow(attempt, self._node.follow_payment(attempt.payment_hash), follow_s)
            unreadable = await self._find_fault(attempt)
            without_invoice = await self._find_keysend(attempt)
            if activity.info().attempt > 1:
                again = Waiting(reason="sending", detail="the node is being asked again", impatient=True)
                await self._notes.note(attempt, again)
            fence = await self._pass_fence(attempt)
            if fence.begun:
                return _BEGUN
            if unreadable is not None:
                return reason.refused_by_node(unreadable)
            if fence.refusals >= REFUSALS:
                return await self._end_refused(attempt, fence)
            if new_until is not None and time.monotonic() > new_until:
                raise Unavailable(f"{self._node.name} was too slow to be told without a look")
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
            except NotBegun as refused:
                await self._notes.note_refusal(attempt, refused)
                raise OutcomeUnknown(
                    f"{self._node.name} refuses it: {refused.words}", code=reason.SEND_REFUSED
                ) from refused

    @activity.defn
    async def watch_payment(self, attempt: LightningAttempt) -> AttemptReport:
        async with heartbeats(), self._notes.noting(attempt):
            payment = await self._find(attempt)
            if payment.status is not NodePaymentStatus.IN_FLIGHT:
                return await self._report(attempt, payment)
            # Only now: a node without its chain does not answer this call, and may still know the payment's end.
            htlcs, doubt = await sighting.read_channels(self._node, self._pool, attempt.payment_id)
            payment = await self._find(attempt)  # once more: a payment that has ended meanwhile is in no channel
            if payment.status is not NodePaymentStatus.IN_FLIGHT:
                return await self._report(attempt, payment)
            if reason.is_untried(payment):
                await self._end_untried(attempt)
                payment = await self._find(attempt)
                if payment.status is not NodePaymentStatus.IN_FLIGHT:
                    return await self._report(attempt, payment)
            heights = [] if doubt else await sighting.sight(self._pool, attempt.payment_id, payment, htlcs)
            if is_proven_lost(heights, payment.time_lock):
                return reason.lost(payment, heights)
        waiting = reason.waits_for(payment, htlcs, heights, doubt)
        await self._notes.note(attempt, waiting)
        if waiting.reason != (attempt.shown or IN_FLIGHT):
            return AttemptReport(verdict=NodeVerdict.IN_FLIGHT, waiting=waiting)
        raise ApplicationError(
            f"still in flight on {self._node.name}: {waiting.detail}",
            type="InFlight",
            next_retry_delay=min(max(_FIRST_LOOK, reason.age(payment) / 2), _LAST_LOOK),
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
        """Have the node end a payment that it never tried; the next look shows the result.

        A node that cannot do it must be restarted by an operator.
        """
        try:
            await self._node.end_untried(attempt.payment_hash, attempt.amount_msat)
        except EngineError as error:
            activity.logger.warning("%s was never tried, and is not ended: %s", attempt.payment_id, error)

    async def _is_known(self, attempt: LightningAttempt) -> bool:
        known = await self._node.find_payment(attempt.payment_hash)
        return known is not None and _is_news(known, attempt)

    async def _end_refused(self, attempt: LightningAttempt, fence: sending.Fence) -> AttemptReport:
        """Report a failure. Raises OutcomeUnknown until the rest is over, and when the last look finds the payment."""
        left_s = REFUSAL_REST_S - fence.refused_for_s
        if left_s > 0:
            raise OutcomeUnknown(
                f"{self._node.name} refuses it; it is looked at once more",
                code=reason.SEND_REFUSED,
                retry_after_s=left_s,
            )
        if await self._is_known(attempt):  # look again: the calls since the first look may have been slow
            raise OutcomeUnknown(f"{self._node.name} has begun what it refused")
        return reason.refused_by_node("Our Lightning node refuses to send this payment; nothing was sent.")

    async def _find_fault(self, attempt: LightningAttempt) -> str | None:
        """Why the node would not pay this invoice as we mean it; None when it would."""
        if attempt.payee_node is not None:
            return None
        amount_msat = attempt.amount_msat if attempt.amount_in_invoice else None
        try:
            await self._node.check_invoice(attempt.bolt11, attempt.payment_hash, amount_msat)
        except Invalid as refused:
            return refused.detail
        return None

    async def _find_keysend(self, attempt: LightningAttempt) -> Keysend | None:
        """What a payment without an invoice is sent with; None for an invoice. Each try has the same preimage."""
        if attempt.payee_node is None:
            return None
        async with borrowed(self._pool) as conn:
            preimage = await keysend.get_preimage(conn, attempt.payment_id)
        return Keysend(payee=attempt.payee_node, preimage=preimage)

    async def _pass_fence(self, attempt: LightningAttempt) -> sending.Fence:
        """Check that this attempt may be sent; returns what is known of its earlier sends.

        Raises unless the node is the adopted one and can send, and the money is still held for this attempt, which is
        read last.
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
        return fence

    async def _get_identity(self) -> NodeIdentity:
        """The node's identity, asked once for all sends at that time: the call costs the node more than a look."""
        if self._asked is None or time.monotonic() > self._good_until:
            self._good_until = time.monotonic() + _IDENTITY_S
            self._asked = asyncio.create_task(self._ask())
        answer = await asyncio.shield(self._asked)
        if isinstance(answer, EngineError):
            raise answer
        return answer

    async def _ask(self) -> NodeIdentity | EngineError:
        """Ask the node. One that cannot send is asked again by the next try. Errors are returned, not raised."""
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
        """The final report, or IN_FLIGHT when the node has the payment and reports no end within `follow_s`.

        Raises OutcomeUnknown when the node has not even confirmed that it has the payment: the next try looks again.
        After its first answer no engine error is raised, so that no further try could send.
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
                        await self._notes.note_begun(attempt)
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
        code = reason.FAILURE_CODES.get(payment.failure_reason, "no_route")
        if code == "no_route" and await self._is_too_dear(attempt):
            code = "fee_limit_exceeded"
        return AttemptReport(
            verdict=NodeVerdict.FAILED,
            failure_code=code,
            failure_detail=reason.FAILURE_DETAILS[code],
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
        except EngineError:  # this only chooses a better code for the same failure
            return False


def _delivered_otherwise(payment: NodePayment, attempt: LightningAttempt) -> Msat | None:
    """The amount that the payee has taken, if it is not the amount of the attempt."""
    return None if payment.delivered_msat == attempt.amount_msat else payment.delivered_msat


def _is_news(payment: NodePayment, attempt: LightningAttempt) -> bool:
    """Whether the node reports this attempt, and not one that is known to have failed before it."""
    return payment.payment_index > attempt.known_payment_index
