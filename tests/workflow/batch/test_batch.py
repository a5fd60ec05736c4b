"""The story of a batch, with a fake ledger behind the real contract."""

from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts.batch import BatchActivities, BatchItem, BatchOutcome, BatchRequest
from engine.contracts.payment import Refusal
from engine.domain.errors import InvariantBroken
from engine.domain.ids import AccountId, ApiKeyId, BatchId, WalletId
from engine.domain.money import Msat
from workflows.batch import BatchWorkflow

pytestmark = pytest.mark.workflow

SETTLED = BatchOutcome(body_hash="ab" * 32, count=2)
REFUSED = BatchOutcome(
    body_hash="ab" * 32, count=2, refusal=Refusal(code="payee_closed", detail="Item 1: no", fields={"item": 1})
)


@dataclass
class FakeLedger(BatchActivities):
    """Ends as told, after it has failed for good so many times."""

    end: BatchOutcome
    broken: int = 0
    asked: list[BatchRequest] = field(default_factory=list)

    @activity.defn
    async def open_batch(self, batch: BatchRequest) -> BatchOutcome:
        self.asked.append(batch)
        if self.broken > 0:
            self.broken -= 1
            raise InvariantBroken("the books contradict themselves")
        return self.end


def request() -> BatchRequest:
    item = BatchItem(destination="@bob", payee_wallet_id=WalletId("wal_2"), amount_msat=Msat(7), memo="é")
    return BatchRequest(
        batch_id=BatchId("batch_1"),
        account_id=AccountId("acct_1"),
        wallet_id=WalletId("wal_1"),
        idempotency_key="key",
        body_hash="ab" * 32,
        api_key_id=ApiKeyId("key_1"),
        items=[item, item],
    )


async def run(environment: WorkflowEnvironment, ledger: FakeLedger, *, cancelled: bool = False) -> BatchOutcome:
    name = uuid4().hex
    worker = Worker(
        environment.client,
        task_queue=name,
        workflows=[BatchWorkflow],
        activities=[ledger.open_batch],
        interceptors=[FailureInterceptor()],
    )
    handle = await environment.client.start_workflow(BatchWorkflow.run, request(), id=f"batch-{name}", task_queue=name)
    if cancelled:
        await handle.cancel()
    async with worker:
        return await handle.result()


@pytest.mark.parametrize("end", [SETTLED, REFUSED], ids=["settled", "refused"])
async def test_a_batch_ends_as_the_ledger_says(skipping_temporal: WorkflowEnvironment, end: BatchOutcome) -> None:
    ledger = FakeLedger(end)
    assert await run(skipping_temporal, ledger) == end
    assert ledger.asked == [request()]


async def test_broken_books_call_an_operator_and_are_tried_again(skipping_temporal: WorkflowEnvironment) -> None:
    ledger = FakeLedger(SETTLED, broken=2)
    assert await run(skipping_temporal, ledger) == SETTLED
    assert len(ledger.asked) == 3


async def test_an_operators_cancel_does_not_stop_a_batch(skipping_temporal: WorkflowEnvironment) -> None:
    assert await run(skipping_temporal, FakeLedger(SETTLED), cancelled=True) == SETTLED


def test_each_item_has_a_payment_of_its_own_that_no_key_can_name() -> None:
    first, second = request().payments()
    assert first.payment_id != second.payment_id
    assert [first.idempotency_key, second.idempotency_key] == ["key 0", "key 1"]
    assert (request().total_msat, first.bolt11) == (14, None)
