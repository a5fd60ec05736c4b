"""Messages of a lane: payments that were asked for at the same time and go through one workflow together.
Durable: add fields with defaults, never rename or remove."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import queues, search_attributes
from engine.contracts.payment import PaymentOutcome, PaymentRequest
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.money import Msat, amount_text, msat_to_sat_floor

MAX_ITEMS = 256
"""One transaction of some 30 ms, during which the balances of all payers and payees are locked."""
_LISTED = 100
"""Payments in the details of the workflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRequest:
    """Payments in the order in which they came. No two have the same account and key."""

    items: list[PaymentRequest]
    over_lightning: bool = False
    """Whether they go out over our nodes; else all are between users of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneOutcome:
    """How each ended, in the same order. Without status, refusal or conflict: it is handed to a workflow of its own,
    because it contradicts the books and nothing of it was done, or because its node has no final word yet."""

    outcomes: list[PaymentOutcome]


class LaneActivities(ABC):
    """Safe to repeat."""

    @activity.defn
    @abstractmethod
    async def open_lane(self, lane: LaneRequest) -> LaneOutcome:
        """Claim each key; settle or refuse each payment, whatever becomes of the others.

        Internal payments are one transaction. Those over Lightning are opened and sent side by side, each for itself.
        """


def lane_start(lane: LaneRequest, workflow_id: str) -> WorkflowStart[LaneOutcome]:
    """A lane's workflow. The janitor never begins one again: each of its payments goes on in its own workflow."""
    total_msat = Msat(sum(each.amount_msat for each in lane.items))
    kind = "Lightning" if lane.over_lightning else "internal"
    return WorkflowStart(
        workflow="LaneWorkflow",
        argument=lane,
        id=workflow_id,
        summary=f"{len(lane.items)} {kind} payments, {amount_text(total_msat)} in all",
        details=_details(lane.items),
        attributes=search_attributes.build(
            kind="lane", status="pending", amount_sat=msat_to_sat_floor(total_msat), needs_operator=False
        ),
        result=LaneOutcome,
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        task_timeout=queues.TASK_TIMEOUT,
    )


def _details(asked: Sequence[PaymentRequest]) -> str:
    """Whose payments the lane carries, as far as Temporal takes the text."""
    lines = [
        f"- `{each.payment_id}` {amount_text(each.amount_msat)} for `{each.account_id}`" for each in asked[:_LISTED]
    ]
    more = len(asked) - len(lines)
    return "\n".join([*lines, f"- and {more} more"] if more else lines)
