"""A send that waits to be tried again: woken by news, and taken back for two operators, while nothing of it runs."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from engine.contracts import search_attributes
from engine.contracts.payment import (
    AttemptReport,
    CarryOutDecision,
    LightningAttempt,
    PaymentOutcome,
    PaymentStatus,
)
from tests.helpers.event_loop import until
from tests.helpers.payment_workflow import APPROVAL, HELD, PAID, FakeLedger, FakeNode, FakeOperators, is_refuted, paying
from workflows.payment import PaymentWorkflow

pytestmark = pytest.mark.workflow


@dataclass
class Away(FakeNode):
    """Is away, for a day between two tries, until it is told what to say.

    The clock runs ahead as soon as nothing happens, so the news come while a try is under way, and count after it.
    """

    says: AttemptReport | None = None
    client: Client | None = None
    news: int = 0
    """So many tries bring news before they fail."""
    running: bool = False
    cancelled: int = 0
    holds: bool = False
    """A try stays under way until it is let go of."""
    ends_with: ApplicationError | None = None
    """What a try that is let go of has just come to."""
    ran_meanwhile: list[bool] = field(default_factory=list)

    @activity.defn
    async def send_payment(self, attempt: LightningAttempt) -> AttemptReport:
        self.sent += 1
        if self.says is not None:
            return self.says
        if not self.holds:
            if self.news > 0 and self.client is not None:
                self.news -= 1
                workflow_id = activity.info().workflow_id or ""
                await self.client.get_workflow_handle(workflow_id).signal("node_reported")
            raise ApplicationError("no answer", type="Unavailable", next_retry_delay=timedelta(days=1))
        self.running = True
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            self.cancelled += 1
            if self.ends_with is not None:
                raise self.ends_with from None
            raise
        finally:
            self.running = False


async def test_news_end_the_wait_for_the_next_try_twice_a_minute_at_most(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    """The node comes and goes, and the pump says so each time; a day would be over only then. A wake costs events."""
    ledger, node = FakeLedger(opened=HELD), Away(sends=[], client=skipping_temporal.client, news=4)
    async with paying(skipping_temporal, ledger, node) as handle:
        await until(lambda: node.sent > 4)
        node.says = PAID
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.SETTLED
        tries = [
            event.event_time.ToDatetime()
            for event in (await handle.fetch_history()).events
            if event.HasField("activity_task_scheduled_event_attributes")
        ]
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert len(pauses) >= 4
    assert all(timedelta(seconds=29) <= pause < timedelta(hours=1) for pause in pauses[:4])


@pytest.mark.parametrize("holds", [False, True], ids=["waits for its next try", "is under way"])
async def test_two_operators_end_what_is_not_going_on(skipping_temporal: WorkflowEnvironment, *, holds: bool) -> None:
    """Without any luck in the moment: a single word is enough, and no try runs while it is carried out."""
    node = Away(sends=[], holds=holds)

    @dataclass
    class Watching(FakeOperators):
        @activity.defn
        async def carry_out_decision(self, carry: CarryOutDecision) -> PaymentOutcome:
            node.ran_meanwhile.append(node.running)
            assert carry.may_be_sending
            return await FakeOperators.carry_out_decision(self, carry)

    operators, ledger = Watching(), FakeLedger(opened=HELD)
    async with paying(skipping_temporal, ledger, node, operators) as handle:
        await until(lambda: node.running if holds else node.sent > 0)
        decided = await handle.execute_update(PaymentWorkflow.decide, APPROVAL)
        assert (decided.status, await handle.result()) == (PaymentStatus.FAILED, decided)
    assert (node.cancelled, node.ran_meanwhile) == (int(holds), [False])
    assert (ledger.settled, ledger.released) == ([], [])


async def test_a_decision_that_the_node_refutes_lets_the_send_go_on(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD), Away(sends=[])
    async with paying(skipping_temporal, ledger, node, FakeOperators(refused=True)) as handle:
        await until(lambda: node.sent > 0)
        await is_refuted(handle)
        node.says = PAID
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.SETTLED


@pytest.mark.parametrize("final", [False, True], ids=["the node is away", "the books contradict"])
async def test_a_try_that_fails_while_it_is_taken_back_is_made_anew(
    skipping_temporal: WorkflowEnvironment, *, final: bool
) -> None:
    """The server repeats nothing whose cancel was asked for. That is no failure for good, and calls nobody."""
    failure = ApplicationError("no answer", type="Unavailable", non_retryable=final)
    ledger, node = FakeLedger(opened=HELD), Away(sends=[], holds=True, ends_with=failure)
    async with paying(skipping_temporal, ledger, node, FakeOperators(refused=True)) as handle:
        await until(lambda: node.running)
        node.says = PAID
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(PaymentWorkflow.decide, APPROVAL)
        assert (await handle.result()).status is PaymentStatus.SETTLED
        history = await handle.fetch_history()
    shown = {
        name
        for event in history.events
        if event.HasField("upsert_workflow_search_attributes_event_attributes")
        for name in event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
    }
    assert (node.cancelled, node.sent, search_attributes.NEEDS_OPERATOR.name in shown) == (1, 2, False)
