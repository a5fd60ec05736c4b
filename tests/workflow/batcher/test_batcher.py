"""The batcher with fakes behind its contract: windows, joining, flushes, and payouts that go on by themselves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts import queues
from engine.contracts.batcher import Batcher, BatcherActivities, Formed
from engine.contracts.payout import DecidePayout, PayoutActivities, PayoutRef, PayoutState
from engine.domain.errors import EngineError, Refused, Unavailable
from engine.domain.ids import PayoutId
from engine.domain.withdrawal.withdrawal import PayoutStatus, Speed
from tests.helpers.event_loop import until
from workflows.batcher import BatcherWorkflow
from workflows.payout import PayoutWorkflow

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(120)]


@dataclass
class FakeQueue(BatcherActivities, PayoutActivities):
    """Answers with what is set, and remembers who asked."""

    answers: list[Formed] = field(default_factory=list)
    refuses: EngineError | None = None
    asked: list[Batcher] = field(default_factory=list)
    paid_out: set[PayoutId] = field(default_factory=set)

    @activity.defn
    async def form_payouts(self, batcher: Batcher) -> Formed:
        self.asked.append(batcher)
        if self.refuses is not None:
            raise self.refuses
        return self.answers.pop(0) if self.answers else Formed()

    @activity.defn
    async def advance_payout(self, payout: PayoutRef) -> PayoutState:
        self.paid_out.add(payout.payout_id)
        return PayoutState(status=PayoutStatus.FINAL, waits_for="nothing", ended=True)

    @activity.defn
    async def decide_payout(self, decide: DecidePayout) -> PayoutState:
        raise AssertionError(decide)


@asynccontextmanager
async def batching(environment: WorkflowEnvironment, fake: FakeQueue) -> AsyncIterator[WorkflowHandle[Any, Any]]:
    queue = uuid4().hex
    ours = Worker(environment.client, task_queue=queue, workflows=[BatcherWorkflow, PayoutWorkflow])
    onchain = Worker(
        environment.client,
        task_queue=queues.ONCHAIN,
        activities=[fake.form_payouts, fake.advance_payout, fake.decide_payout],
        interceptors=[FailureInterceptor()],
    )
    async with ours, onchain:
        handle = await environment.client.start_workflow(
            BatcherWorkflow.run, Batcher(wallet="hot", speed=Speed.FAST), id=f"batcher-{queue}", task_queue=queue
        )
        try:
            yield handle
        finally:
            await handle.terminate()


def a_payout() -> PayoutRef:
    name = uuid4().hex
    return PayoutRef(payout_id=PayoutId(f"payout_{name}"), workflow_id=f"payout-{name}")


async def test_the_batcher_starts_a_workflow_for_each_payout_and_asks_again(
    plain_temporal: WorkflowEnvironment,
) -> None:
    made = [a_payout() for _ in range(3)]
    fake = FakeQueue([Formed(payouts=made[:2], waiting=1), Formed(payouts=made[2:])])
    async with batching(plain_temporal, fake):
        await until(lambda: fake.paid_out == {each.payout_id for each in made})


async def test_the_batcher_looks_when_a_window_ends(plain_temporal: WorkflowEnvironment) -> None:
    made = a_payout()
    fake = FakeQueue([Formed(waiting=1, again_in_s=1.0), Formed(payouts=[made])])
    async with batching(plain_temporal, fake):
        await until(lambda: made.payout_id in fake.paid_out)


async def test_a_flush_is_told_once(plain_temporal: WorkflowEnvironment) -> None:
    fake = FakeQueue()
    async with batching(plain_temporal, fake) as handle:
        await until(lambda: len(fake.asked) == 1)
        await handle.signal(BatcherWorkflow.flush)
        await until(lambda: len(fake.asked) == 2)
        await handle.signal(BatcherWorkflow.joined)
        await until(lambda: len(fake.asked) == 3)
        assert [each.flush for each in fake.asked] == [False, True, False]


async def test_a_flush_is_for_all_that_wait_however_many_looks_that_takes(plain_temporal: WorkflowEnvironment) -> None:
    made = [a_payout() for _ in range(2)]
    fake = FakeQueue()
    async with batching(plain_temporal, fake) as handle:
        await until(lambda: len(fake.asked) == 1)
        fake.answers = [Formed(payouts=made[:1], waiting=5), Formed(payouts=made[1:], waiting=3), Formed(waiting=3)]
        await handle.signal(BatcherWorkflow.flush)
        await until(lambda: len(fake.asked) == 4)
        assert [each.flush for each in fake.asked] == [False, True, True, True]
        await handle.signal(BatcherWorkflow.joined)
        await until(lambda: len(fake.asked) == 5)
        assert not fake.asked[-1].flush


async def test_a_flush_ends_the_pause_after_a_failure(plain_temporal: WorkflowEnvironment) -> None:
    fake = FakeQueue(refuses=Refused("the wallet is locked", code="wallet_locked"))
    async with batching(plain_temporal, fake) as handle:
        await until(lambda: len(fake.asked) >= 1)
        fake.refuses = None
        await handle.signal(BatcherWorkflow.flush)
        await until(lambda: any(each.flush for each in fake.asked))


async def test_a_flush_outlives_a_node_that_is_away(plain_temporal: WorkflowEnvironment) -> None:
    fake = FakeQueue(refuses=Unavailable("away"))
    async with batching(plain_temporal, fake) as handle:
        await until(lambda: len(fake.asked) >= 1)
        await handle.signal(BatcherWorkflow.flush)
        fake.refuses = None
        await until(lambda: any(each.flush for each in fake.asked))


async def test_the_batcher_of_a_long_life_goes_on_in_a_new_run(short_temporal: WorkflowEnvironment) -> None:
    fake = FakeQueue()
    async with batching(short_temporal, fake) as handle:
        first = (await handle.describe()).run_id
        newest = short_temporal.client.get_workflow_handle(handle.id)
        while (await newest.describe()).run_id == first:
            await newest.signal(BatcherWorkflow.joined)
            await asyncio.sleep(0.02)
