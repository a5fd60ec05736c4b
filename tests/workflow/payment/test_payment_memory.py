"""A worker keeps some workflows in memory, and takes the others up from their histories: no slot is lost by it."""

from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts import queues
from engine.contracts.payment import PaymentRequest, PaymentStatus
from engine.domain.ids import AccountId, WalletId
from tests.helpers.event_loop import until
from tests.helpers.payment_workflow import ATTEMPT, BODY_HASH, HELD, IN_FLIGHT, PAID, FakeLedger, FakeNode
from workflows.payment import PaymentWorkflow

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(120)]


@pytest.mark.filterwarnings("ignore:Cannot find activity to cancel")  # the SDK lets go of one that has just ended
async def test_payments_that_are_watched_give_their_slots_back(skipping_temporal: WorkflowEnvironment) -> None:
    """More of them than there are slots, and each leaves the memory after every step."""
    client, name, count = skipping_temporal.client, uuid4().hex, 4
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT] * count)
    ledger_worker = Worker(
        client,
        task_queue=name,
        workflows=[PaymentWorkflow],
        activities=[ledger.open_payment, ledger.settle_payment, ledger.release_payment],
        interceptors=[FailureInterceptor()],
        max_cached_workflows=0,
        max_concurrent_workflow_tasks=2,
    )
    node_worker = Worker(
        client,
        task_queue=queues.lightning_queue(ATTEMPT.node),
        activities=[node.send_payment, node.watch_payment],
        interceptors=[FailureInterceptor()],
    )
    async with ledger_worker, node_worker:
        handles = [
            await client.start_workflow(
                PaymentWorkflow.run,
                PaymentRequest(
                    payment_id=ATTEMPT.payment_id,
                    account_id=AccountId("acct_1"),
                    wallet_id=WalletId("wal_1"),
                    idempotency_key=f"{name}-{number}",
                    body_hash=BODY_HASH,
                    destination="lnbcrt1…",
                    amount_msat=ATTEMPT.amount_msat,
                    max_fee_msat=ATTEMPT.max_fee_msat,
                ),
                id=f"payment-{name}-{number}",
                task_queue=name,
                task_timeout=timedelta(seconds=2),  # of three tasks that a worker without memory polls it loses one
            )
            for number in range(count)
        ]
        await until(lambda: node.looked >= count)
        node.final = PAID
        for handle in handles:
            await handle.signal(PaymentWorkflow.node_reported)
        assert [(await handle.result()).status for handle in handles] == [PaymentStatus.SETTLED] * count
