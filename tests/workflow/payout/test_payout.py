"""Payouts with fakes behind the real contracts: step by step, told by the pump, in trouble, decided by an operator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts import queues, search_attributes
from engine.contracts.payout import DecidePayout, PayoutActivities, PayoutRef, PayoutState
from engine.contracts.withdrawal import WithdrawalApproval
from engine.domain.errors import EngineError, InvariantBroken
from engine.domain.ids import AccountId, PayoutId, Txid, WithdrawalDecisionId
from engine.domain.withdrawal.withdrawal import PayoutStatus
from tests.fixtures.stack import eventually
from tests.helpers.event_loop import until
from workflows.payout import PayoutWorkflow

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(120)]

APPROVAL = WithdrawalApproval(decision=WithdrawalDecisionId("wdec_1"), operator=AccountId("acct_2"), key_id="key_2")
PLANNED = PayoutState(status=PayoutStatus.PLANNED, waits_for="its next step: draft", step_due=True)
SIGNED = replace(PLANNED, status=PayoutStatus.SIGNED)
BROADCAST = PayoutState(status=PayoutStatus.BROADCAST, waits_for="a block", txid=Txid("ab" * 32))
FINAL = replace(BROADCAST, status=PayoutStatus.FINAL, ended=True)


@dataclass
class FakeSteps(PayoutActivities):
    """Answers with these states in turn, then with the last one for ever."""

    states: list[PayoutState]
    refuses: EngineError | None = None
    taken: int = 0
    looked_at: list[PayoutId] = field(default_factory=list)

    @activity.defn
    async def advance_payout(self, payout: PayoutRef) -> PayoutState:
        self.looked_at.append(payout.payout_id)
        if self.refuses is not None:
            raise self.refuses
        now = self.states[min(self.taken, len(self.states) - 1)]
        self.taken += 1
        return now

    @activity.defn
    async def decide_payout(self, decide: DecidePayout) -> PayoutState:
        self.states.append(FINAL)
        self.taken = len(self.states) - 1
        return FINAL


@dataclass
class Stage:
    """The workflow on a queue of its own."""

    environment: WorkflowEnvironment
    queue: str

    async def begin(self) -> WorkflowHandle[Any, PayoutState]:
        ref = PayoutRef(payout_id=PayoutId(f"payout_{self.queue}"), workflow_id=f"payout-{self.queue}")
        return await self.environment.client.start_workflow(
            PayoutWorkflow.run, ref, id=ref.workflow_id, task_queue=self.queue
        )


@asynccontextmanager
async def staged(environment: WorkflowEnvironment, steps: FakeSteps) -> AsyncIterator[Stage]:
    queue = uuid4().hex
    ours = Worker(environment.client, task_queue=queue, workflows=[PayoutWorkflow])
    onchain = Worker(
        environment.client,
        task_queue=queues.ONCHAIN,
        activities=[steps.advance_payout, steps.decide_payout],
        interceptors=[FailureInterceptor()],
    )
    async with ours, onchain:
        yield Stage(environment, queue)


async def test_a_payout_takes_its_steps_and_waits_for_blocks(plain_temporal: WorkflowEnvironment) -> None:
    steps = FakeSteps([PLANNED, SIGNED, BROADCAST, FINAL])
    async with staged(plain_temporal, steps) as stage:
        handle = await stage.begin()
        await until(lambda: steps.taken >= 3)
        await handle.signal(PayoutWorkflow.chain_moved)
        assert await handle.result() == FINAL
        attributes = (await handle.describe()).typed_search_attributes
        assert attributes.get(search_attributes.TXID) == BROADCAST.txid
        assert attributes.get(search_attributes.STATUS) == "final"


async def test_a_payout_looks_by_itself_when_the_pump_is_silent(plain_temporal: WorkflowEnvironment) -> None:
    steps = FakeSteps([replace(BROADCAST, look_again_s=1), FINAL])
    async with staged(plain_temporal, steps) as stage:
        assert await (await stage.begin()).result() == FINAL


async def test_a_step_that_fails_for_good_calls_an_operator(plain_temporal: WorkflowEnvironment) -> None:
    steps = FakeSteps([FINAL], refuses=InvariantBroken("not the planned one"))
    async with staged(plain_temporal, steps) as stage:
        handle = await stage.begin()

        async def asked() -> bool | None:
            attributes = (await handle.describe()).typed_search_attributes
            return attributes.get(search_attributes.NEEDS_OPERATOR) or None

        await eventually(asked, "an operator to be called")
        steps.refuses = None
        await handle.signal(PayoutWorkflow.chain_moved)
        assert await handle.result() == FINAL


async def test_an_operator_decides_about_a_payout(plain_temporal: WorkflowEnvironment) -> None:
    steps = FakeSteps([BROADCAST])
    async with staged(plain_temporal, steps) as stage:
        handle = await stage.begin()
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(PayoutWorkflow.decide, replace(APPROVAL, operator=AccountId("")))
        assert await handle.execute_update(PayoutWorkflow.decide, APPROVAL) == FINAL
        assert await handle.result() == FINAL


async def test_the_children_of_a_payout_get_workflows(plain_temporal: WorkflowEnvironment) -> None:
    child = PayoutRef(payout_id=PayoutId(f"payout_{uuid4().hex}"), workflow_id=f"payout-{uuid4().hex}")
    steps = FakeSteps([replace(BROADCAST, children=[child], look_again_s=1), FINAL])
    async with staged(plain_temporal, steps) as stage:
        await (await stage.begin()).result()
        await until(lambda: child.payout_id in steps.looked_at)
        await plain_temporal.client.get_workflow_handle(child.workflow_id).result()


async def test_a_payout_that_waits_long_goes_on_in_a_new_run(short_temporal: WorkflowEnvironment) -> None:
    steps = FakeSteps([PLANNED] * 40 + [FINAL])
    async with staged(short_temporal, steps) as stage:
        handle = await stage.begin()
        assert await handle.result() == FINAL
        assert steps.taken == 41
