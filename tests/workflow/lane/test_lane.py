"""The story of a lane, with a fake ledger behind the real contract: many payments, one activity, an end for each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts import search_attributes, workflow_ids
from engine.contracts.lane import LaneActivities, LaneOutcome, LaneRequest
from engine.contracts.payment import OpenedPayment, PaymentOutcome, PaymentRequest, PaymentStatus, Refusal
from engine.domain.errors import InvariantBroken, Unavailable
from engine.domain.ids import AccountId, PaymentId, WalletId
from engine.domain.money import Msat
from workflows.lane import LaneWorkflow
from workflows.payment import PaymentWorkflow

pytestmark = pytest.mark.workflow

BODY_HASH = "ab" * 32
SETTLED = PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.SETTLED)
FAILED = PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.FAILED)
REFUSED = PaymentOutcome(body_hash=BODY_HASH, refusal=Refusal(code="insufficient_funds", detail="too little"))
CONFLICT = PaymentOutcome(body_hash="cd" * 32, key_conflict=True)
LEFT_ALONE = PaymentOutcome(body_hash=BODY_HASH)


@dataclass
class FakeLedger(LaneActivities):
    """Gives the ends of a script, after the errors of a script; payments by themselves are settled after theirs."""

    ends: list[PaymentOutcome]
    errors: list[Exception] = field(default_factory=list)
    errors_alone: list[Exception] = field(default_factory=list)
    gate: asyncio.Event | None = None
    carried: list[list[str]] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)

    @activity.defn
    async def open_lane(self, lane: LaneRequest) -> LaneOutcome:
        self.carried.append([each.payment_id for each in lane.items])
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return LaneOutcome(outcomes=self.ends)

    @activity.defn
    async def open_payment(self, request: PaymentRequest) -> OpenedPayment:
        self.alone.append(request.payment_id)
        if self.errors_alone:
            raise self.errors_alone.pop(0)
        return OpenedPayment(outcome=SETTLED)


def asked(name: str, number: int) -> PaymentRequest:
    return PaymentRequest(
        payment_id=PaymentId(f"pay_{number}"),
        account_id=AccountId("acct_1"),
        wallet_id=WalletId("wal_1"),
        idempotency_key=f"{name}-{number}",
        body_hash=BODY_HASH,
        destination="@bob",
        amount_msat=Msat(1_000),
        max_fee_msat=Msat(0),
    )


@asynccontextmanager
async def riding(
    environment: WorkflowEnvironment, ledger: FakeLedger, *, in_memory: int = 1000
) -> AsyncIterator[tuple[WorkflowHandle[LaneWorkflow, LaneOutcome], LaneRequest]]:
    """A lane under way, with as many payments as the ledger has ends, its worker beside it."""
    client, name = environment.client, uuid4().hex
    lane = LaneRequest(items=[asked(name, number) for number in range(len(ledger.ends))])
    async with carrying(client, name, ledger, in_memory=in_memory):
        yield await client.start_workflow(LaneWorkflow.run, lane, id=f"lane-{name}", task_queue=name), lane


def carrying(client: Client, queue: str, ledger: FakeLedger, *, in_memory: int = 1000) -> Worker:
    """A worker of lanes and payments."""
    return Worker(
        client,
        task_queue=queue,
        workflows=[LaneWorkflow, PaymentWorkflow],
        activities=[ledger.open_lane, ledger.open_payment],
        interceptors=[FailureInterceptor()],
        max_cached_workflows=in_memory,
    )


async def test_each_gets_its_end_in_the_order_in_which_they_came(skipping_temporal: WorkflowEnvironment) -> None:
    ledger = FakeLedger([SETTLED, REFUSED, CONFLICT, SETTLED])
    async with riding(skipping_temporal, ledger) as (handle, _):
        assert (await handle.result()).outcomes == ledger.ends
        history = await handle.fetch_history()
    assert ledger.carried == [[f"pay_{number}" for number in range(4)]]
    assert ledger.alone == []
    assert len(history.events) < 12


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ([FAILED, SETTLED, REFUSED], "settled"),
        ([REFUSED, FAILED, LEFT_ALONE], "failed"),
        ([CONFLICT, LEFT_ALONE], "refused"),
        ([LEFT_ALONE], "left_alone"),
    ],
)
async def test_the_search_attribute_of_a_lane_is_the_best_of_its_ends(
    skipping_temporal: WorkflowEnvironment, ends: list[PaymentOutcome], status: str
) -> None:
    async with riding(skipping_temporal, FakeLedger(ends)) as (handle, _):
        await handle.result()
        assert (await handle.describe()).typed_search_attributes.get(search_attributes.STATUS) == status


async def test_a_ledger_that_is_away_is_asked_again_with_the_same_payments(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    away: list[Exception] = [Unavailable("connection refused"), ConnectionResetError(), Unavailable("deadlock")]
    ledger = FakeLedger([SETTLED, REFUSED], errors=away)
    async with riding(skipping_temporal, ledger) as (handle, _):
        assert (await handle.result()).outcomes == [SETTLED, REFUSED]
    assert ledger.carried == [["pay_0", "pay_1"]] * 4


async def test_a_lane_cannot_be_cancelled(skipping_temporal: WorkflowEnvironment) -> None:
    """Not while its activity runs, and not while it waits for a ledger that is away."""
    ledger = FakeLedger([SETTLED, SETTLED], errors=[Unavailable("away"), Unavailable("away")], gate=asyncio.Event())
    async with riding(skipping_temporal, ledger) as (handle, _):
        async with asyncio.timeout(30):
            while not ledger.carried:
                await asyncio.sleep(0.02)
        await handle.cancel()
        assert ledger.gate is not None
        ledger.gate.set()
        assert (await handle.result()).outcomes == [SETTLED, SETTLED]


async def test_broken_books_call_an_operator_and_are_tried_again(skipping_temporal: WorkflowEnvironment) -> None:
    ledger = FakeLedger([SETTLED], errors=[InvariantBroken("the books contradict themselves")] * 2)
    async with riding(skipping_temporal, ledger) as (handle, _):
        assert (await handle.result()).outcomes == [SETTLED]
        marks = [
            event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
            for event in (await handle.fetch_history()).events
            if event.HasField("upsert_workflow_search_attributes_event_attributes")
        ]
    said = [
        mark[search_attributes.NEEDS_OPERATOR.name].data
        for mark in marks
        if search_attributes.NEEDS_OPERATOR.name in mark
    ]
    assert said == [b"true", b"false"]


async def test_one_that_contradicts_the_books_goes_on_alone_and_calls_an_operator(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    """The others are answered meanwhile; it waits for an operator under the id that a payment by itself has."""
    ledger = FakeLedger([SETTLED, LEFT_ALONE, REFUSED], errors_alone=[InvariantBroken("it has no wallet")])
    async with riding(skipping_temporal, ledger) as (handle, lane):
        assert (await handle.result()).outcomes == ledger.ends
        left = lane.items[1]
        workflow_id = workflow_ids.payment(left.account_id, left.idempotency_key)
        child = skipping_temporal.client.get_workflow_handle(workflow_id, result_type=PaymentOutcome)
        assert await child.result() == SETTLED
        names = [
            name
            for event in (await child.fetch_history()).events
            if event.HasField("upsert_workflow_search_attributes_event_attributes")
            for name in event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
        ]
    assert names.count(search_attributes.NEEDS_OPERATOR.name) == 2
    assert ledger.alone == ["pay_1", "pay_1"]


async def test_one_that_has_a_workflow_of_its_own_already_is_left_to_it(skipping_temporal: WorkflowEnvironment) -> None:
    ledger = FakeLedger([LEFT_ALONE, SETTLED], gate=asyncio.Event())
    async with riding(skipping_temporal, ledger) as (handle, lane):
        first = lane.items[0]
        own = await skipping_temporal.client.start_workflow(
            PaymentWorkflow.run,
            first,
            id=workflow_ids.payment(first.account_id, first.idempotency_key),
            task_queue=(await handle.describe()).task_queue,
        )
        assert await own.result() == SETTLED
        assert ledger.gate is not None
        ledger.gate.set()
        assert (await handle.result()).outcomes == [LEFT_ALONE, SETTLED]
    assert ledger.alone == ["pay_0"]


async def test_one_whose_own_workflow_was_ended_by_hand_is_given_it_again(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    """Its key was used before, and that workflow terminated; this lane carries the repeat."""
    ledger = FakeLedger([LEFT_ALONE], gate=asyncio.Event(), errors_alone=[InvariantBroken("it has no wallet")])
    async with riding(skipping_temporal, ledger) as (handle, lane):
        (asked,) = lane.items
        own = await skipping_temporal.client.start_workflow(
            PaymentWorkflow.run,
            asked,
            id=workflow_ids.payment(asked.account_id, asked.idempotency_key),
            task_queue="nobody's",
        )
        await own.terminate()
        assert ledger.gate is not None
        ledger.gate.set()
        assert (await handle.result()).outcomes == [LEFT_ALONE]
        again = skipping_temporal.client.get_workflow_handle(own.id, result_type=PaymentOutcome)
        assert await again.result() == SETTLED


async def test_many_that_are_left_alone_are_handed_over_side_by_side(skipping_temporal: WorkflowEnvironment) -> None:
    """One by one each is a workflow task of the lane, and the last one waits for all the others: 26 s for 150."""
    ledger = FakeLedger([LEFT_ALONE] * 150)
    async with riding(skipping_temporal, ledger) as (handle, lane):
        assert (await handle.result()).outcomes == ledger.ends
        history = await handle.fetch_history()
        for each in lane.items:
            own = workflow_ids.payment(each.account_id, each.idempotency_key)
            await skipping_temporal.client.get_workflow_handle(own).result()
    assert sorted(ledger.alone) == sorted(each.payment_id for each in lane.items)
    kinds = [event.event_type for event in history.events]
    begun = kinds.index(EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED)
    first_wait = kinds.index(EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED, begun)
    together = kinds[begun:first_wait].count(EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED)
    assert together == 64, "in one workflow task, however long each start takes"


@pytest.mark.filterwarnings("ignore:Cannot find activity to cancel")  # the SDK lets go of one that has just ended
async def test_a_lane_that_hands_over_goes_on_from_its_history_alone(skipping_temporal: WorkflowEnvironment) -> None:
    """With nothing in memory between its tasks: as after a kill at each of them."""
    client, ledger = skipping_temporal.client, FakeLedger([LEFT_ALONE] * 150)
    async with riding(skipping_temporal, ledger, in_memory=0) as (handle, lane):
        assert (await handle.result()).outcomes == ledger.ends
        queue = (await handle.describe()).task_queue
    # The payments have one task each, so memory is nothing to them; and without any a worker loses tasks for seconds.
    async with carrying(client, queue, ledger):
        for each in lane.items:
            await client.get_workflow_handle(workflow_ids.payment(each.account_id, each.idempotency_key)).result()
    assert {*ledger.alone} == {each.payment_id for each in lane.items}
