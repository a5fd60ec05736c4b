"""One payment, from the caller's request to its end.

    open ──┬─ refused                                 a rule refused it: nothing moved
           ├─ settled                                 to one of our users: both sides in one transaction
           └─ held ── send ── in flight … ──┬─ settled    the node said so: actual fee booked, rest released
                                            └─ failed     the node said so: everything released

If the process that holds the money also calls the node, it sends directly: a payment that ends within some seconds ends
with its opening. All others are sent, followed and watched from the node's own queue.

Money is held before anything leaves, and one node is chosen once. A payment may stay in flight for days: there is no
deadline, and only the node's final status ends it. A cancellation by an operator does not end it either. Every step is
safe to repeat, so whatever dies, the next worker goes on from the last step that was recorded.

If the node will never have a final status, two operators may end the payment: the update `decide` looks at the node
once more and then ends it. It does so only while nothing is being sent or ended, and neither begins meanwhile. A send
is cancelled for it. Most such sends only wait for their next try, and the send is over before anything is decided.

A payment may wait longer than Temporal keeps one history. It then goes on in a new run with the same id, which knows
what the old one knew.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, RetryState, is_cancelled_exception

from workflows.patience import grown_long, in_books, uncancelled, until_done
from workflows.policies import MOVE_MONEY, NODE, WATCH

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues, search_attributes
    from engine.contracts.payment import (
        Approval,
        AttemptReport,
        CarryOutDecision,
        DecisionActivities,
        LightningAttempt,
        NodeVerdict,
        OpenedPayment,
        PaymentActivities,
        PaymentOutcome,
        PaymentRequest,
        PaymentSoFar,
        SendingActivities,
        release,
        settlement,
    )
    from engine.domain.correction import LONGEST_REASON
    from engine.domain.sending import Waiting

_NO_NEWS = AttemptReport(verdict=NodeVerdict.IN_FLIGHT)
_TAKES_BACK = "a-send-is-taken-back"
"""The patch for cancelling a send. Older histories have no cancelled send."""
_WAKES_APART = timedelta(seconds=30)
"""A younger send is not woken: it is repeated within seconds by itself, and every wake costs events."""


@workflow.defn
class PaymentWorkflow:
    """Pays once. The workflow id is made from account and idempotency key, so a repeated start finds this run."""

    @workflow.init
    def __init__(self, request: PaymentRequest) -> None:
        self._node_has_news = False
        self._so_far = request.so_far
        self._attempt = self._so_far.attempt if self._so_far else None
        self._body_hash = request.body_hash
        self._turn = asyncio.Lock()
        """Held while the payment is sent, ended or decided: two of these never overlap."""
        self._decided: PaymentOutcome | None = None
        self._is_sending = False
        """Whether a send holds the turn."""
        self._may_be_sending = self._so_far is None or self._so_far.report is None
        """True until a send has returned the node's report: until then a send may still be on its way to the node."""
        self._approvals = 0
        """How many approvals wait for the turn."""

    @workflow.run
    async def run(self, request: PaymentRequest) -> PaymentOutcome:
        return await uncancelled(self._pay(request), "no payment is cancelled: only the node's final word ends it")

    @workflow.signal
    def node_reported(self) -> None:
        """The pump saw this payment become final, or the node came back: look again now."""
        self._node_has_news = True

    @workflow.update
    async def decide(self, approval: Approval) -> PaymentOutcome:
        """A second operator approves: end the payment as the first one has proposed. Returns when it has ended."""
        attempt = self._attempt
        waits = self._turn.locked()
        if attempt is None or (waits and not (self._is_sending and workflow.patched(_TAKES_BACK))):
            raise ApplicationError("it is being sent, ended or decided at this moment", type="PaymentNotStuck")
        async with self._turn_of_an_approval():
            carry = CarryOutDecision(
                attempt=attempt, approval=approval, body_hash=self._body_hash, may_be_sending=self._may_be_sending
            )
            try:
                self._decided = await workflow.execute_activity_method(
                    DecisionActivities.carry_out_decision,
                    carry,
                    task_queue=queues.lightning_queue(attempt.node),
                    summary=f"as {approval.operator} approved",
                    **NODE,
                )
            except ActivityError as refused:
                raise refused.cause or refused from refused
        self._node_has_news = True
        return self._decided

    @asynccontextmanager
    async def _turn_of_an_approval(self) -> AsyncGenerator[None]:
        self._approvals += 1
        try:
            await self._turn.acquire()
        finally:
            self._approvals -= 1
        try:
            yield
        finally:
            self._turn.release()

    @decide.validator
    def _check_approval(self, approval: Approval) -> None:
        if not (approval.decision.strip() and approval.operator.strip() and approval.key_id.strip()):
            raise ApplicationError("an operator must give a decision, a name and a key", type="Invalid")
        if len(approval.note) > LONGEST_REASON:
            raise ApplicationError(f"a note has at most {LONGEST_REASON} characters", type="Invalid")

    async def _pay(self, request: PaymentRequest) -> PaymentOutcome:
        if self._so_far is None:
            opened = await self._open(request)
            if opened.attempt is None:
                _show_end(opened.outcome, request)
                return opened.outcome
            self._so_far = PaymentSoFar(attempt=opened.attempt)
            _show_held(opened.attempt)
        attempt, report = self._so_far.attempt, self._so_far.report
        self._attempt = attempt
        if report is None:
            report = await self._send(request, attempt)
        while report.verdict is NodeVerdict.IN_FLIGHT and self._decided is None:
            attempt = _show_in_flight(attempt, report.waiting)
            self._so_far = PaymentSoFar(attempt=attempt, report=report)
            report = await self._watch(request, attempt)
        self._so_far = PaymentSoFar(attempt=attempt, report=report)
        if attempt.shown:
            workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(False)])
        outcome = await self._finish(request, report)
        _show_end(outcome, request)
        return outcome

    async def _open(self, request: PaymentRequest) -> OpenedPayment:
        return await until_done(
            "opening",
            lambda: in_books(PaymentActivities.open_payment, request),
            renew=lambda: self._renew(request),
        )

    async def _renew(self, request: PaymentRequest) -> None:
        """Go on in a new run. Not while an operator waits for an answer here, nor once operators have decided."""
        if self._decided is None and workflow.all_handlers_finished():
            workflow.continue_as_new(replace(request, so_far=self._so_far))

    def _news(self) -> bool:
        return self._node_has_news

    async def _send(self, request: PaymentRequest, attempt: LightningAttempt) -> AttemptReport:
        return await until_done(
            "sending",
            lambda: self._send_once(request, attempt),
            renew=lambda: self._renew(request),
            mended=self._news,
        )

    async def _send_once(self, request: PaymentRequest, attempt: LightningAttempt) -> AttemptReport:
        """Send until the node has the payment. A waiting approval gets the turn between two tries."""
        while True:
            if grown_long():
                await self._renew(request)
            async with self._turn:
                if self._decided is not None:
                    return _NO_NEWS
                self._is_sending = True
                try:
                    report = await self._try_to_send(attempt)
                finally:
                    self._is_sending = False
            if report is not None:
                self._may_be_sending = False
                return report

    async def _try_to_send(self, attempt: LightningAttempt) -> AttemptReport | None:
        """The report of one send. None when the send was cancelled, for an approval or to try anew at once.

        A cancelled send runs no try any more.
        """
        self._node_has_news = False
        began = workflow.now()
        send = workflow.start_activity_method(
            SendingActivities.send_payment,
            attempt,
            task_queue=queues.lightning_queue(attempt.node),
            summary=f"attempt {attempt.attempt} over {attempt.node}",
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            **MOVE_MONEY,
        )
        await workflow.wait_condition(lambda: send.done() or self._node_has_news or self._approvals > 0)
        if send.done() or not workflow.patched(_TAKES_BACK):
            return await send
        early = _WAKES_APART - (workflow.now() - began)
        if self._approvals == 0 and early > timedelta(0):
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: send.done() or self._approvals > 0,
                    timeout=early,
                    timeout_summary="its own next try is near",
                )
        send.cancel()
        try:
            return await send
        except ActivityError as error:
            # The server does not repeat a try that fails while it is being cancelled, whatever the failure.
            if error.retry_state is RetryState.CANCEL_REQUESTED or is_cancelled_exception(error):
                return None
            raise

    async def _watch(self, request: PaymentRequest, attempt: LightningAttempt) -> AttemptReport:
        return await until_done(
            "watching",
            lambda: self._watch_once(request, attempt),
            renew=lambda: self._renew(request),
            mended=self._news,
        )

    async def _watch_once(self, request: PaymentRequest, attempt: LightningAttempt) -> AttemptReport:
        """Poll by activity retry. Begin again at once when the pump has news. Return no news once it is decided."""
        while self._decided is None:
            if grown_long():
                await self._renew(request)
            self._node_has_news = False
            watch = workflow.start_activity_method(
                SendingActivities.watch_payment,
                attempt,
                task_queue=queues.lightning_queue(attempt.node),
                summary="waiting for the final word",
                **WATCH,
            )
            await self._until_news_or(watch)
            if watch.done():
                return await watch
            watch.cancel()
        return _NO_NEWS

    async def _until_news_or(self, watch: workflow.ActivityHandle[AttemptReport]) -> None:
        await workflow.wait_condition(lambda: self._node_has_news or watch.done())

    async def _finish(self, request: PaymentRequest, report: AttemptReport) -> PaymentOutcome:
        async with self._turn:
            return self._decided or await self._book(request, report)

    async def _book(self, request: PaymentRequest, report: AttemptReport) -> PaymentOutcome:
        if report.verdict is NodeVerdict.SUCCEEDED:
            return await until_done(
                "settling",
                lambda: in_books(PaymentActivities.settle_payment, settlement(request, report)),
                renew=lambda: self._renew(request),
            )
        return await until_done(
            "releasing",
            lambda: in_books(PaymentActivities.release_payment, release(request, report)),
            renew=lambda: self._renew(request),
        )


def _show_held(attempt: LightningAttempt) -> None:
    held_msat = attempt.amount_msat + attempt.max_fee_msat + attempt.service_fee_msat
    _show(f"**{held_msat:,} msat held**, sending over `{attempt.node}`", "held")


def _show_in_flight(attempt: LightningAttempt, waiting: Waiting | None) -> LightningAttempt:
    """Show operators what the payment waits for; returns the attempt for the next looks."""
    if waiting is None:
        _show(
            f"**in flight** on `{attempt.node}`; waiting for the node's final word on `{attempt.payment_hash}`. "
            "The money stays held until then; nothing needs to be done.",
            "in_flight",
        )
        return attempt
    whose_turn = "**needs an operator**, in flight" if waiting.needs_operator else "**in flight**"
    _show(f"{whose_turn} on `{attempt.node}`, `{attempt.payment_hash}`: {waiting.detail}.", waiting.reason)
    workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(waiting.needs_operator)])
    return replace(attempt, shown=waiting.reason)


def _show(details: str, status: str) -> None:
    workflow.set_current_details(details)
    workflow.upsert_search_attributes([search_attributes.STATUS.value_set(status)])


def _show_end(outcome: PaymentOutcome, request: PaymentRequest) -> None:
    if outcome.delivered_msat is not None:
        _show(
            f"**needs an operator**, {outcome.status}: the payee has taken {outcome.delivered_msat:,} msat of "
            f"{request.amount_msat:,}. What he took is booked, the rest of the hold is the payer's again; both should "
            "be told.",
            str(outcome.status),
        )
        workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(True)])
    elif outcome.status is not None:
        _show(f"**{outcome.status}**: final", str(outcome.status))
    elif outcome.refusal is not None:
        _show(f"**refused**: {outcome.refusal.detail}", "refused")
    else:
        _show("**refused**: the key belongs to another request", "refused")
