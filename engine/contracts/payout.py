"""Messages of a payout. Durable: add fields with defaults, never rename or remove."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import queues, search_attributes
from engine.contracts.withdrawal import WithdrawalApproval
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.ids import PayoutId, Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.withdrawal import PayoutStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutRef:
    """Which payout: input of its workflow."""

    payout_id: PayoutId
    workflow_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutState:
    """How a payout stands after its next step."""

    status: PayoutStatus
    waits_for: str
    txid: Txid | None = None
    amount_sat: Sat = Sat(0)
    fee_sat: Sat = Sat(0)
    members: int = 0
    step_due: bool = False
    """Whether the next step can be taken at once."""
    ended: bool = False
    needs_operator: bool = False
    look_again_s: float = 600
    children: list[PayoutRef] = field(default_factory=list[PayoutRef])
    """Payouts that were made to pull it into a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidePayout:
    """Carry a decision about a payout out."""

    payout_id: PayoutId
    approval: WithdrawalApproval


class PayoutActivities(ABC):
    """On the queue `onchain`. Each call takes the next step that the rows ask for, and stores it before it returns."""

    @activity.defn
    @abstractmethod
    async def advance_payout(self, payout: PayoutRef) -> PayoutState:
        """Draft, sign, broadcast, book, or look whether a block has it; bump, rebuild and broadcast again by rule."""

    @activity.defn
    @abstractmethod
    async def decide_payout(self, decide: DecidePayout) -> PayoutState:
        """Hold, resume, bump or pull it with a child, as was proposed. Raises Refused: `decision_made`,
        `own_proposal`, `payout_not_waiting`."""


def payout_start(payout: PayoutRef) -> WorkflowStart[PayoutState]:
    """The workflow of a payout. A start finds a running one, or begins another run after an end."""
    return WorkflowStart(
        workflow="PayoutWorkflow",
        argument=payout,
        id=payout.workflow_id,
        summary=f"payout {payout.payout_id}",
        attributes=search_attributes.build(kind="payout", status="planned", needs_operator=False),
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        task_timeout=queues.TASK_TIMEOUT,
    )
