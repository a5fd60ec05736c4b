"""Internal payments that came at the same time, from the callers' requests to their ends, which come all at once.

Each is what it would be in a workflow of its own: settled or refused, once, with the answer kept under its key. They
share a start, an activity and a commit, which is what most of a payment costs. Nothing of one depends on another, but
for the money: they are booked in the order in which they came.
"""

import asyncio
from collections import Counter

from temporalio import workflow

from workflows.patience import until_done
from workflows.policies import LEDGER

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues
    from engine.contracts.lane import LaneActivities, LaneOutcome, LaneRequest


@workflow.defn
class LaneWorkflow:
    """Settles or refuses each of its payments. A crash anywhere leaves each done once or not at all, and repeats."""

    @workflow.run
    async def run(self, lane: LaneRequest) -> LaneOutcome:
        work = asyncio.create_task(self._open(lane))
        while True:
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                workflow.logger.warning("payments cannot be cancelled: they are settled or refused")

    async def _open(self, lane: LaneRequest) -> LaneOutcome:
        outcome = await until_done(
            "opening",
            lambda: workflow.execute_local_activity_method(LaneActivities.open_lane, lane, **LEDGER),
        )
        ends = Counter(str(each.status or "refused") for each in outcome.outcomes)
        workflow.set_current_details(", ".join(f"**{count} {end}**" for end, count in sorted(ends.items())) + ": final")
        workflow.upsert_search_attributes([queues.STATUS.value_set("settled" if "settled" in ends else "refused")])
        return outcome
