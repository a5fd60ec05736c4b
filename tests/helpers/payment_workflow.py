"""A payment's workflow between a fake ledger and a fake node, behind the real contracts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts import queues
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
    ReleasePayment,
    SendingActivities,
    SettlePayment,
)
from engine.domain.errors import InvariantBroken, Refused
from engine.domain.ids import AccountId, DecisionId, NodeName, PaymentHash, PaymentId, WalletId
from engine.domain.money import Msat
from workflows.payment import PaymentWorkflow

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


async def is_refuted(handle: WorkflowHandle[PaymentWorkflow, PaymentOutcome]) -> None:
    """Approve; the node's word is against it."""
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(PaymentWorkflow.decide, APPROVAL)
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.details[0]["code"] == "payment_not_stuck"
