"""The chain pump, with fakes behind the real contract: it follows, and calls an operator for what fails for good."""

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
from engine.contracts import queues, search_attributes
from engine.contracts.chain import ChainPumpActivities, ChainPumpInput
from engine.domain.errors import InvariantBroken, Unavailable
from tests.fixtures.stack import eventually
from tests.helpers.event_loop import until
from workflows.chain import ChainPumpWorkflow

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(120)]

HOT = ChainPumpInput(wallet="hot")


@dataclass
class FakePump(ChainPumpActivities):
    """Streams until told to stop. The step that is `broken` fails: for good, or while bitcoind is `away`."""

    broken: str = ""
    away: int = 0
    adopted: int = 0
    followed: int = 0
    tended: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @activity.defn
    async def adopt_wallet(self, pump: ChainPumpInput) -> bool:
        assert pump == HOT
        self._require("adopt")
        self.adopted += 1
        return self.adopted == 1

    @activity.defn
    async def follow_chain(self, pump: ChainPumpInput) -> None:
        assert pump == HOT
        self._require("follow")
        self.followed += 1
        await self._stream()

    @activity.defn
    async def tend_pool(self, pump: ChainPumpInput) -> None:
        assert pump == HOT
        self._require("tend")
        self.tended += 1
        await self._stream()

    def _require(self, step: str) -> None:
        if self.broken != step:
            return
        if self.away:
            self.away -= 1
            self.broken = step if self.away else ""
            raise Unavailable("bitcoind is away")
        raise InvariantBroken("bitcoind is on another chain", code="other_chain")

    async def _stream(self) -> None:
        while not self.over.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.02)


@asynccontextmanager
async def pumping(environment: WorkflowEnvironment, pump: FakePump) -> AsyncIterator[WorkflowHandle[Any, Any]]:
    client, name = environment.client, uuid4().hex
    steps = [pump.adopt_wallet, pump.follow_chain, pump.tend_pool]
    workflows = Worker(client, task_queue=name, workflows=[ChainPumpWorkflow])
    chain = Worker(client, task_queue=queues.ONCHAIN, activities=steps, interceptors=[FailureInterceptor()])
    async with workflows, chain:
        await client.start_workflow(ChainPumpWorkflow.run, HOT, id=name, task_queue=name)
        latest = client.get_workflow_handle(name)
        yield latest
        pump.over.set()
        await latest.terminate()


async def _needs_operator(handle: WorkflowHandle[Any, Any]) -> bool:
    return (await handle.describe()).typed_search_attributes.get(search_attributes.NEEDS_OPERATOR) is True


@pytest.mark.parametrize("step", ["adopt", "follow", "tend"])
async def test_the_pump_waits_for_bitcoind_and_calls_nobody(skipping_temporal: WorkflowEnvironment, step: str) -> None:
    pump = FakePump(broken=step, away=12)
    async with pumping(skipping_temporal, pump) as handle:
        first = (await handle.describe()).run_id
        await until(lambda: pump.followed == pump.tended == 1)
        assert not await _needs_operator(handle)
        assert (await handle.describe()).run_id == first


@pytest.mark.parametrize("step", ["adopt", "follow", "tend"])
async def test_the_pump_calls_an_operator_for_what_fails_for_good_and_begins_anew(
    skipping_temporal: WorkflowEnvironment, step: str
) -> None:
    pump = FakePump(broken=step)
    async with pumping(skipping_temporal, pump) as handle:
        first = (await handle.describe()).run_id

        async def called() -> bool | None:
            return True if await _needs_operator(handle) else None

        await eventually(called, "an operator to be called")
        pump.broken = ""
        pump.over.set()  # the clock does not skip while activities run

        async def begun_anew() -> bool | None:
            return True if (await handle.describe()).run_id != first else None

        await eventually(begun_anew, "the pump to begin anew")
        pump.over.clear()
        await until(lambda: pump.followed >= 1 and pump.tended >= 1)

        async def calm() -> bool | None:
            return None if await _needs_operator(handle) else True

        await eventually(calm, "the call to end")


async def test_a_stream_that_ends_begins_a_new_run(skipping_temporal: WorkflowEnvironment) -> None:
    pump = FakePump()
    async with pumping(skipping_temporal, pump) as handle:
        first = (await handle.describe()).run_id
        await until(lambda: pump.followed == pump.tended == 1)
        pump.over.set()

        async def begun_anew() -> bool | None:
            return True if (await handle.describe()).run_id != first else None

        await eventually(begun_anew, "the pump to begin anew")
        pump.over.clear()
        await until(lambda: pump.adopted >= 2 and pump.followed >= 2)
        assert not await _needs_operator(handle)
