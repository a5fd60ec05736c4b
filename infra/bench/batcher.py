"""A batcher that has made very many payouts: how long its histories become, and what its worker remembers of it.

The workflow is ours, on a Temporal server of its own. Queue and payouts are stand-ins: what a batcher remembers does
not depend on what they do.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from temporalio import activity, workflow
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from engine.contracts import queues, search_attributes
from engine.contracts.batcher import Batcher, BatcherActivities, Formed, batcher_start
from engine.contracts.converter import DATA_CONVERTER
from engine.contracts.payout import PayoutRef, PayoutState
from engine.contracts.workflow_start import start_workflow
from engine.domain.ids import PayoutId, new_id
from engine.domain.withdrawal.withdrawal import PayoutStatus, Speed
from infra.bench.contest import Wrong, eventually
from infra.bench.report import Fact
from workflows.batcher import BatcherWorkflow

WHOLE, QUICK = 10_000, 500
_AT_ONCE = 20
"""So many payouts come of one look, as `activities/batcher.py` makes them."""
_LIMIT_S = 900.0
_PAGE_BYTES = 4096


@workflow.defn(name="PayoutWorkflow")
class EndedPayout:
    """Stands in for a payout: it ends at once."""

    @workflow.run
    async def run(self, payout: PayoutRef) -> PayoutState:  # noqa: ARG002 - as the contract has it
        return PayoutState(status=PayoutStatus.FINAL, waits_for="nothing", ended=True)


class StandInQueue(BatcherActivities):
    """Stands in for the books: as many payouts at each look as one look may make, until all are made."""

    def __init__(self, payouts: int) -> None:
        self.left = payouts

    @activity.defn
    async def form_payouts(self, batcher: Batcher) -> Formed:  # noqa: ARG002 - as the contract has it
        """Never repeated here, so nothing is made twice."""
        made = min(_AT_ONCE, self.left)
        self.left -= made
        ids = [new_id("payout") for _ in range(made)]
        refs = [PayoutRef(payout_id=PayoutId(each), workflow_id=each.replace("_", "-")) for each in ids]
        return Formed(payouts=refs, waiting=self.left, again_in_s=60.0 if self.left else None)


async def measure(temporal: Path, payouts: int) -> list[Fact]:
    """Facts of one batcher. Raises Wrong when a payout has no workflow, or twice one."""
    queue = StandInQueue(payouts)
    start = batcher_start(Batcher(wallet="bench", speed=Speed.FAST))
    async with _server(temporal) as environment:
        client = environment.client
        workflows = Worker(
            client,
            task_queue=queues.PAYMENTS,
            workflows=[BatcherWorkflow, EndedPayout],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        onchain = Worker(client, task_queue=queues.ONCHAIN, activities=[queue.form_payouts])
        async with workflows, onchain:
            began = time.monotonic()
            await start_workflow(client, start)

            async def made(count: int) -> bool:
                return queue.left <= payouts - count

            await eventually(lambda: made(payouts // 5), "the first payouts", _LIMIT_S)
            early_mb = _own_mb()
            await eventually(lambda: made(payouts), "all payouts", _LIMIT_S)
            took_s = time.monotonic() - began

            async def all_ended() -> bool:
                counted = await client.count_workflows("WorkflowType = 'PayoutWorkflow'")
                return counted.count == payouts

            await eventually(all_ended, "a workflow of each payout", _LIMIT_S)
            late_mb = _own_mb()
            runs = [each.run_id async for each in client.list_workflows(f"WorkflowId = '{start.id}'")]
            handles = [client.get_workflow_handle(start.id, run_id=each) for each in runs]
            events = [len((await each.fetch_history()).events) for each in handles]
        if not events:
            raise Wrong("the batcher has no run")
    after = f"after {payouts:,} payouts"
    return [
        Fact(f"batcher {after}: runs", len(events), ""),
        Fact(f"batcher {after}: events of its longest history", max(events), ""),
        Fact(f"batcher {after}: events of a run", median(events), ""),
        Fact(f"batcher {after}: growth of its worker since a fifth of them", late_mb - early_mb, "MB"),
        Fact(f"batcher {after}: time", took_s, "s"),
    ]


@asynccontextmanager
async def _server(temporal: Path) -> AsyncIterator[WorkflowEnvironment]:
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(temporal), data_converter=DATA_CONVERTER
    ) as environment:
        attributes = {key.name: IndexedValueType.ValueType(key.indexed_value_type) for key in search_attributes.ALL}
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=environment.client.namespace, search_attributes=attributes)
        )
        yield environment


def _own_mb() -> float:
    """What this process has in memory: its worker is in it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES / 10**6
