"""The story of a payment, with a fake ledger and a fake node behind the real contracts, on a clock that skips waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
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
    PaymentStatus,
    Refusal,
    ReleasePayment,
    SendingActivities,
    SettlePayment,
)
from engine.domain.errors import InvariantBroken, Refused, Unavailable
from engine.domain.ids import AccountId, DecisionId, NodeName, PaymentHash, PaymentId, WalletId
from engine.domain.money import Msat
from engine.domain.sending import Waiting
from workflows.payment import PaymentWorkflow

pytestmark = pytest.mark.workflow

BODY_HASH = "ab" * 32
ATTEMPT = LightningAttempt(
    payment_id=PaymentId("pay_1"),
    node=NodeName("lnd-1"),
    bolt11="lnbcrt1…",
    payment_hash=PaymentHash("cd" * 32),
    amount_msat=Msat(100_000),
    amount_in_invoice=True,
    max_fee_msat=Msat(1_000),
    attempt=1,
)
HELD = OpenedPayment(outcome=PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.PENDING), attempt=ATTEMPT)
IN_FLIGHT = AttemptReport(verdict=NodeVerdict.IN_FLIGHT)
PAID = AttemptReport(verdict=NodeVerdict.SUCCEEDED, fee_msat=Msat(350), preimage="ef" * 32, payment_index=7)
APPROVAL = Approval(decision=DecisionId("dec_1"), operator=AccountId("acct_2"), key_id="key_2")
NO_ROUTE = AttemptReport(verdict=NodeVerdict.FAILED, failure_code="no_route", failure_detail="none", payment_index=7)


@dataclass
class FakeLedger(PaymentActivities):
    """Remembers what it was told to book."""

    opened: OpenedPayment
    settled: list[SettlePayment] = field(default_factory=list)
    released: list[ReleasePayment] = field(default_factory=list)
    broken: int = 0

    @activity.defn
    async def open_payment(self, request: PaymentRequest) -> OpenedPayment:
        return self.opened

    @activity.defn
    async def settle_payment(self, settle: SettlePayment) -> PaymentOutcome:
        if self.broken > 0:
            self.broken -= 1
            raise InvariantBroken("the books contradict themselves")
        self.settled.append(settle)
        return PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.SETTLED, delivered_msat=settle.delivered_msat)

    @activity.defn
    async def release_payment(self, release: ReleasePayment) -> PaymentOutcome:
        self.released.append(release)
        return PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.FAILED)


@dataclass
class FakeOperators(DecisionActivities):
    """Carries out what was decided, or is refused by the node's own word."""

    refused: bool = False
    carried: list[CarryOutDecision] = field(default_factory=list)

    @activity.defn
    async def carry_out_decision(self, carry: CarryOutDecision) -> PaymentOutcome:
        self.carried.append(carry)
        if self.refused:
            raise Refused("the node knows how it ended", code="payment_not_stuck")
        return PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.FAILED)


@dataclass
class FakeNode(SendingActivities):
    """Answers sends from a script; looks find the payment in flight until `final` is set and the days are over."""

    sends: list[AttemptReport | Exception]
    final: AttemptReport | None = None
    days_in_flight: int = 0
    looked: int = 0
    told: list[str] = field(default_factory=list)
    sent: int = 0

    @activity.defn
    async def send_payment(self, attempt: LightningAttempt) -> AttemptReport:
        self.sent += 1
        return _say(self.sends.pop(0))

    @activity.defn
    async def watch_payment(self, attempt: LightningAttempt) -> AttemptReport:
        self.looked += 1
        self.told.append(attempt.shown)
        if self.final is not None and self.final.waiting is not None and attempt.shown == self.final.waiting.reason:
            raise ApplicationError("still in flight", type="InFlight", next_retry_delay=timedelta(days=1))
        if self.final is None or self.looked <= self.days_in_flight:
            raise ApplicationError("still in flight", type="InFlight", next_retry_delay=timedelta(days=1))
        return self.final


def _say(line: AttemptReport | Exception) -> AttemptReport:
    if isinstance(line, Exception):
        raise line
    return line


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not fact():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def paying(
    environment: WorkflowEnvironment, ledger: FakeLedger, node: FakeNode, operators: FakeOperators | None = None
) -> AsyncIterator[WorkflowHandle[PaymentWorkflow, PaymentOutcome]]:
    """A payment under way, its workers beside it."""
    client, name = environment.client, uuid4().hex
    ledger_worker = Worker(
        client,
        task_queue=name,
        workflows=[PaymentWorkflow],
        activities=[ledger.open_payment, ledger.settle_payment, ledger.release_payment],
        interceptors=[FailureInterceptor()],
    )
    node_worker = Worker(
        client,
        task_queue=queues.lightning_queue(ATTEMPT.node),
        activities=[node.send_payment, node.watch_payment, (operators or FakeOperators()).carry_out_decision],
        interceptors=[FailureInterceptor()],
    )
    request = PaymentRequest(
        payment_id=ATTEMPT.payment_id,
        account_id=AccountId("acct_1"),
        wallet_id=WalletId("wal_1"),
        idempotency_key=name,
        body_hash=BODY_HASH,
        destination="lnbcrt1…",
        amount_msat=ATTEMPT.amount_msat,
        max_fee_msat=ATTEMPT.max_fee_msat,
    )
    async with ledger_worker, node_worker:
        yield await client.start_workflow(PaymentWorkflow.run, request, id=f"payment-{name}", task_queue=name)


async def test_a_payment_to_one_of_our_users_is_final_without_a_node(skipping_temporal: WorkflowEnvironment) -> None:
    done = PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.SETTLED)
    ledger, node = FakeLedger(opened=OpenedPayment(outcome=done)), FakeNode(sends=[])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert await handle.result() == done
    assert node.sent == 0


async def test_a_refusal_ends_the_payment_before_anything_is_sent(skipping_temporal: WorkflowEnvironment) -> None:
    no = PaymentOutcome(body_hash=BODY_HASH, refusal=Refusal(code="insufficient_funds", detail="too little"))
    ledger, node = FakeLedger(opened=OpenedPayment(outcome=no)), FakeNode(sends=[])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert await handle.result() == no
    assert node.sent == 0


async def test_a_paid_invoice_is_settled_with_the_fee_that_the_node_names(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[PAID])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).status is PaymentStatus.SETTLED
    assert [settle.fee_msat for settle in ledger.settled] == [350]
    assert ledger.released == []


async def test_a_payee_who_took_another_amount_is_settled_with_it_and_calls_an_operator(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    partly = replace(PAID, delivered_msat=Msat(60_000))
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[partly])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).delivered_msat == 60_000
        assert await _is_told(handle, needs_operator=True)
    assert [(settle.delivered_msat, settle.fee_msat) for settle in ledger.settled] == [(60_000, 350)]


async def test_one_that_was_found_settled_with_another_amount_calls_an_operator_too(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    done = PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.SETTLED, delivered_msat=Msat(60_000))
    async with paying(skipping_temporal, FakeLedger(opened=OpenedPayment(outcome=done)), FakeNode(sends=[])) as handle:
        assert await handle.result() == done
        assert await _is_told(handle, needs_operator=True)


async def test_an_authoritative_failure_releases_the_money(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[NO_ROUTE])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).status is PaymentStatus.FAILED
    assert [release.failure_code for release in ledger.released] == ["no_route"]
    assert ledger.settled == []


async def test_an_error_of_the_node_is_no_failure_of_the_payment(skipping_temporal: WorkflowEnvironment) -> None:
    away = [Unavailable("connection refused") for _ in range(20)]
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[*away, PAID])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).status is PaymentStatus.SETTLED
    assert node.sent == 21
    assert ledger.released == []


async def test_a_payment_in_flight_stays_pending_for_a_week_without_growing_history(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT], final=PAID, days_in_flight=7)
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).status is PaymentStatus.SETTLED
        history = await handle.fetch_history()
    assert node.looked == 8
    assert len(history.events) < 40
    assert ledger.released == []


async def test_the_pumps_signal_makes_it_look_at_once(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT])
    async with paying(skipping_temporal, ledger, node) as handle:
        await until(lambda: node.looked > 0)
        node.final = NO_ROUTE
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.FAILED


async def test_an_operators_cancel_does_not_let_go_of_money_in_flight(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT])
    async with paying(skipping_temporal, ledger, node) as handle:
        await until(lambda: node.looked > 0)
        await handle.cancel()
        node.final = PAID
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.SETTLED
    assert ledger.released == []


async def _is_told(handle: WorkflowHandle[PaymentWorkflow, PaymentOutcome], *, needs_operator: bool) -> bool:
    attributes = (await handle.describe()).typed_search_attributes
    return attributes.get(search_attributes.NEEDS_OPERATOR) is needs_operator


async def test_a_look_that_finds_another_reason_to_wait_is_shown_and_goes_on(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    stuck = Waiting(reason="overdue", detail="its time lock has ended", needs_operator=True)
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT])
    async with paying(skipping_temporal, ledger, node) as handle:
        await until(lambda: node.looked > 0)
        node.final = AttemptReport(verdict=NodeVerdict.IN_FLIGHT, waiting=stuck)
        await handle.signal(PaymentWorkflow.node_reported)
        await until(lambda: "overdue" in node.told)
        async with asyncio.timeout(30):
            while not await _is_told(handle, needs_operator=True):
                await asyncio.sleep(0.02)
        node.final = NO_ROUTE
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.FAILED
        assert await _is_told(handle, needs_operator=False)


async def test_a_step_that_was_mended_goes_on_at_the_nodes_first_word(skipping_temporal: WorkflowEnvironment) -> None:
    """The node refused us for good; an operator mended it, and the pump that came back says so."""
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[InvariantBroken("no macaroon"), PAID])
    async with paying(skipping_temporal, ledger, node) as handle:
        await until(lambda: node.sent == 1)
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.SETTLED


async def test_broken_books_call_an_operator_and_are_tried_again(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD, broken=2), FakeNode(sends=[PAID])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).status is PaymentStatus.SETTLED
    assert len(ledger.settled) == 1


async def test_a_step_that_stays_broken_is_tried_ever_more_rarely(skipping_temporal: WorkflowEnvironment) -> None:
    """A try a minute would have filled the history, at whose end the workflow with its held money is lost."""
    ledger, node = FakeLedger(opened=HELD, broken=20), FakeNode(sends=[PAID])
    async with paying(skipping_temporal, ledger, node) as handle:
        await handle.result()
        told = await handle.describe()
    assert told.close_time is not None
    assert told.close_time - told.start_time > timedelta(hours=7)


@pytest.mark.parametrize("sends", [[IN_FLIGHT], [InvariantBroken("another node answers")]])
async def test_two_operators_end_a_payment_that_waits_for_them(
    skipping_temporal: WorkflowEnvironment, sends: list[AttemptReport | Exception]
) -> None:
    """While it is watched, and while a send that failed for good waits to be tried again."""
    ledger, operators = FakeLedger(opened=HELD), FakeOperators()
    node = FakeNode(sends=[*sends, IN_FLIGHT])
    async with paying(skipping_temporal, ledger, node, operators) as handle:
        await until(lambda: node.sent > 0)
        decided = await _decide(handle)
        assert (decided.status, await handle.result()) == (PaymentStatus.FAILED, decided)
    assert ([carry.approval for carry in operators.carried], ledger.settled, ledger.released) == ([APPROVAL], [], [])


async def _decide(handle: WorkflowHandle[PaymentWorkflow, PaymentOutcome]) -> PaymentOutcome:
    """Approve; while it is just being sent, ask again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await handle.execute_update(PaymentWorkflow.decide, APPROVAL)
            except WorkflowUpdateFailedError as refused:
                if not isinstance(refused.cause, ApplicationError) or refused.cause.type != "PaymentNotStuck":
                    raise


async def is_refuted(handle: WorkflowHandle[PaymentWorkflow, PaymentOutcome]) -> None:
    """Approve; the node's word is against it."""
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(PaymentWorkflow.decide, APPROVAL)
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.details[0]["code"] == "payment_not_stuck"


async def test_a_decision_that_the_node_refutes_ends_nothing(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT])
    async with paying(skipping_temporal, ledger, node, FakeOperators(refused=True)) as handle:
        await until(lambda: node.looked > 0)
        await is_refuted(handle)
        node.final = PAID
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.SETTLED


async def test_an_approval_without_a_name_is_not_taken(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node, operators = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT]), FakeOperators()
    async with paying(skipping_temporal, ledger, node, operators) as handle:
        await until(lambda: node.looked > 0)
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(PaymentWorkflow.decide, replace(APPROVAL, operator=AccountId(" ")))
        assert operators.carried == []
        node.final = NO_ROUTE
        await handle.signal(PaymentWorkflow.node_reported)
        await handle.result()
