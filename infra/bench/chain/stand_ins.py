"""Stand-ins around a batcher: a queue that always has more, and payouts that end at once."""

from temporalio import activity, workflow

from engine.contracts.batcher import Batcher, BatcherActivities, Formed
from engine.contracts.payout import PayoutRef, PayoutState
from engine.domain.ids import PayoutId, new_id
from engine.domain.withdrawal.withdrawal import PayoutStatus

_AT_ONCE = 20
"""So many payouts come of one look, as `activities/batcher.py` makes them."""


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
