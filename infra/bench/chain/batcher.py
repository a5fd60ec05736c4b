"""A batcher that has made very many payouts: how long its histories become, and what its worker remembers of it.

The workflow is ours, on a Temporal server of its own. Queue and payouts are stand-ins: what a batcher remembers does
not depend on what they do.
"""

import time
from pathlib import Path
from statistics import median

from temporalio.api.enums.v1 import EventType
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from engine.contracts import queues
from engine.contracts.batcher import Batcher, batcher_start
from engine.contracts.workflow_start import start_workflow
from engine.domain.withdrawal.withdrawal import Speed
from infra.bench.chain.stand_ins import EndedPayout, StandInQueue
from infra.bench.chain.temporal import running
from infra.bench.contest import Wrong, eventually
from infra.bench.report import Fact
from workflows.batcher import BatcherWorkflow

WHOLE, QUICK = 10_000, 1_000
_MOST_EVENTS = 10_000
"""Temporal asks for a new run at 4,096, and a look adds some hundreds."""
_MOST_GROWTH_MB = 100
_LIMIT_S = 900.0
_BEGUN = EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED
_PAGE_BYTES = 4096


async def measure(temporal: Path, payouts: int) -> list[Fact]:
    """Facts of one batcher. Raises Wrong when a payout has no workflow, or twice one."""
    queue = StandInQueue(payouts)
    start = batcher_start(Batcher(wallet="bench", speed=Speed.FAST))
    async with running(temporal) as environment:
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
            histories = [(await each.fetch_history()).events for each in handles]
        events = [len(each) for each in histories]
        begun = sum(each.event_type == _BEGUN for history in histories for each in history)
        if begun != payouts:
            raise Wrong(f"the batcher's runs have begun {begun} payouts of {payouts}")
        if max(events) > _MOST_EVENTS or late_mb - early_mb > _MOST_GROWTH_MB:
            raise Wrong(f"it is not bounded: {max(events)} events in a run, {late_mb - early_mb:.0f} MB more")
    after = f"after {payouts:,} payouts"
    return [
        Fact(f"batcher {after}: runs", len(events), ""),
        Fact(f"batcher {after}: events of its longest history", max(events), ""),
        Fact(f"batcher {after}: events of a run", median(events), ""),
        Fact(f"batcher {after}: growth of the process with its worker, since a fifth", late_mb - early_mb, "MB"),
        Fact(f"batcher {after}: time", took_s, "s"),
    ]


def _own_mb() -> float:
    """What this process has in memory: its worker is in it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES / 10**6
