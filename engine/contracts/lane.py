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
"""How many payments the details of the workflow name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRequest:
    """Payments in the order in which they came. No two have the same account and key."""

    items: list[PaymentRequest]
    over_lightning: bool = False
    """Whether the payments go out over our nodes. Otherwise all are between our users."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneOutcome:
    """How each payment ended, in the same order. One without status, refusal or conflict goes to a workflow of its own:
    it contradicts the books and nothing of it was done, or its node has no final status yet."""

    outcomes: list[PaymentOutcome]


class LaneActivities(ABC):
    """Safe to repeat."""

    @activity.defn
    @abstractmethod
    async def open_lane(self, lane: LaneRequest) -> LaneOutcome:
        """Claim each key; settle or refuse each payment, whatever becomes of the others.

        Internal payments are one transaction. Payments over Lightning are opened and sent concurrently, each by itself.
        """


def lane_start(lane: LaneRequest, workflow_id: str) -> WorkflowStart[LaneOutcome]:
    """A lane's workflow. The janitor never starts one again: each of its payments goes on in its own workflow."""
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
    """The payments of the lane with their accounts, as many as the length of the details allows."""
    lines = [
        f"- `{each.payment_id}` {amount_text(each.amount_msat)} for `{each.account_id}`" for each in asked[:_LISTED]
    ]
    more = len(asked) - len(lines)
    return "\n".join([*lines, f"- and {more} more"] if more else lines)
