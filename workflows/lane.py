"""Payments that came at the same time, from the callers' requests to their ends.

Each ends as it would in a workflow of its own: settled, failed or refused, once, with the answer stored under its key.
Internal payments share a start, an activity and a commit, which is most of a payment's cost, and end all at once. They
do not depend on each other except for the money: they are booked in the order in which they came. Payments over
Lightning share a start and an activity. A payment that has no end in the activity gets a workflow of its own. There it
waits for its node's final status, or calls an operator because it contradicts the books. The others need not wait.
"""

from collections import Counter

from temporalio import workflow

from workflows.children import start_child
from workflows.patience import again, in_books, side_by_side, uncancelled, until_done

with workflow.unsafe.imports_passed_through():
    from engine.contracts import search_attributes
    from engine.contracts.lane import LaneActivities, LaneOutcome, LaneRequest
    from engine.contracts.payment import PaymentOutcome, payment_start


@workflow.defn
class LaneWorkflow:
    """Settles or refuses each of its payments. After a crash a repeat finds each done once or not at all."""

    @workflow.run
    async def run(self, lane: LaneRequest) -> LaneOutcome:
        return await uncancelled(self._open(lane), "payments cannot be cancelled: they are settled or refused")

    async def _open(self, lane: LaneRequest) -> LaneOutcome:
        outcome = await until_done(
            "opening",
            lambda: in_books(LaneActivities.open_lane, lane),
            renew=again(lane),
        )
        alone = [asked for asked, end in zip(lane.items, outcome.outcomes, strict=True) if not end.is_final]
        await side_by_side(start_child, [payment_start(each) for each in alone])
        ends = Counter(_name(each) for each in outcome.outcomes)
        workflow.set_current_details(", ".join(f"**{count} {end}**" for end, count in sorted(ends.items())) + ": final")
        status = next((end for end in ("settled", "failed", "refused") if end in ends), "left_alone")
        workflow.upsert_search_attributes([search_attributes.STATUS.value_set(status)])
        return outcome


def _name(end: PaymentOutcome) -> str:
    return str(end.status or "refused") if end.is_final else "left alone"
