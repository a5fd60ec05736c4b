"""Messages of the janitor, and which workflow's rows it looks after.

A row that is not final waits for its workflow. When the workflow is gone, ended by hand or by Temporal, the row waits
for ever unless the janitor starts the workflow again. Every workflow is in one of the two lists here; a tidy test
checks it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from temporalio import activity

from engine.contracts import search_attributes, workflow_ids
from engine.contracts.workflow_start import WorkflowStart

LOOKED_AFTER = {
    "PaymentWorkflow": ("payments", "accepted"),
    "LaneWorkflow": ("payments", "accepted"),
    "BatchWorkflow": ("accepted",),
    "CorrectionWorkflow": ("corrections",),
    "CaseWorkflow": ("cases",),
    "ReconciliationWorkflow": ("runs",),
    "DepositWorkflow": ("deposits",),
    "WithdrawalWorkflow": ("withdrawals",),
    "PayoutWorkflow": ("payouts",),
}
"""Each workflow, and the kinds of rows that wait for it. A forced end belongs to the payment's workflow."""

LOOKED_AFTER_ELSEWHERE = {
    "ReceiveWorkflow": "the sweep compares what the pump has handed on with what is credited",
    "ReceiptPageWorkflow": "as ReceiveWorkflow",
    "InvoiceSweepWorkflow": "a schedule",
    "DepositPageWorkflow": "the pump wakes whatever is due by its row",
    "BatcherWorkflow": "every worker makes sure of it, each minute; a withdrawal that joins it starts it as well",
    "ChainPumpWorkflow": "every worker makes sure of it, each minute",
    "LndPumpWorkflow": "every worker makes sure of it, each minute; the notes to cancel invoices wait for it",
    "AdoptNodeWorkflow": "every worker makes sure of it until the node is in the books",
    "QuoteWorkflow": "owns nothing: who asked is told that nobody can tell",
    "JanitorWorkflow": "a schedule",
}
"""Each other workflow, and who starts it again, or why nobody needs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One walk over all rows that wait. Input of the workflow."""

    older_than_s: int = 30
    """Younger rows are left alone: their workflows have just been started or are about to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidied:
    """The result of a round."""

    begun: dict[str, int]
    """How many workflows were started again, by kind of row."""
    failed: dict[str, str]
    """By kind of row, the last one that could not be helped, and why."""


class JanitorActivities(ABC):
    """Safe to repeat: a running workflow is not started again."""

    @activity.defn
    @abstractmethod
    async def tidy_up(self, walk: Round) -> Tidied:
        """Start the workflow again of every row that waits for one and has none."""


def janitor_start() -> WorkflowStart[Tidied]:
    """A scheduled round."""
    return WorkflowStart(
        workflow="JanitorWorkflow",
        argument=Round(),
        id=workflow_ids.JANITOR,
        summary="begin again whatever waits for a workflow that is gone",
        attributes=search_attributes.build(kind="janitor"),
    )
