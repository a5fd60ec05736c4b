"""Messages of the batchers. Durable: add fields with defaults, never rename or remove."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.payout import PayoutRef
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.withdrawal.withdrawal import Speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Batcher:
    """Which batcher: input of its workflow, and of a look at its queue."""

    wallet: str
    speed: Speed
    flush: bool = False
    """Whether an operator wants what waits to go now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formed:
    """What a batcher's look at its queue has made."""

    payouts: list[PayoutRef] = field(default_factory=list[PayoutRef])
    waiting: int = 0
    """How many are left in the queue, those that wait for an approval not counted."""
    again_in_s: float | None = None
    """When the window of the first one ends, or it is worth while to look again. None: nothing waits."""
    problem: str | None = None
    """Why the first one does not go: for people."""
    needs_operator: bool = False


class BatcherActivities(ABC):
    """On the queue `onchain`. Safe to repeat: a member is sealed into one payout, under its row's lock."""

    @activity.defn
    @abstractmethod
    async def form_payouts(self, batcher: Batcher) -> Formed:
        """Choose members and coins for as many payouts as are due, reserve the coins, and store the plans."""


def batcher_start(batcher: Batcher) -> WorkflowStart[None]:
    """The one workflow of a wallet and a speed."""
    return WorkflowStart(
        workflow="BatcherWorkflow",
        argument=batcher,
        id=workflow_ids.batcher(batcher.wallet, batcher.speed),
        summary=f"{batcher.speed} withdrawals from {batcher.wallet}",
        attributes=search_attributes.build(kind="batcher", status="waiting", needs_operator=False),
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        task_timeout=queues.TASK_TIMEOUT,
    )
