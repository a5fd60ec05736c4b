"""Messages of a correction or of capital: proposed by one operator, decided by another, then posted.

Durable: add fields with defaults, never rename or remove.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.payment import Refusal
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.correction import CorrectionKind, CorrectionStatus
from engine.domain.ids import AccountId, CaseId, CorrectionId
from engine.domain.money import Msat, msat_to_sat_floor

_LONGEST_SUMMARY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The correction that an operator proposes, checked: input of the workflow."""

    correction: CorrectionId
    kind: CorrectionKind
    debit: str
    credit: str
    amount_msat: Msat
    reason: str
    operator: AccountId
    """Whose key it was. Two keys of one account are one operator."""
    key_id: str
    idempotency_key: str
    body_hash: str
    """SHA-256 in hex: tells a repeat from another request with the same key."""
    case: CaseId | None = None
    reference: str | None = None
    expires_at: datetime | None = None
    """Set when the proposal is older and goes on in a new run or workflow. None: its time begins now."""
    decision: "Decision | None" = None
    """Set by the workflow when it goes on in a new run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An operator's decision on a proposal. The proposer can only reject."""

    operator: AccountId
    key_id: str
    approve: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideCorrection:
    """Store an operator's decision."""

    correction: CorrectionId
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionOutcome:
    """The state of a correction. No status: the key belongs to another request, and nothing was proposed."""

    status: CorrectionStatus | None
    refusal: Refusal | None = None
    """Why the books refused it."""


class CorrectionActivities(ABC):
    """Each method is one transaction and safe to repeat: a second call finds what the first did."""

    @activity.defn
    @abstractmethod
    async def propose_correction(self, proposal: Proposal) -> CorrectionOutcome:
        """Claim the key, write the row, its trail and the line in the audit trail."""

    @activity.defn
    @abstractmethod
    async def decide_correction(self, decide: DecideCorrection) -> CorrectionOutcome:
        """Write an operator's decision. An earlier decision stays."""

    @activity.defn
    @abstractmethod
    async def post_correction(self, correction: CorrectionId) -> CorrectionOutcome:
        """Post all transfers of an approved correction, or none and store why the books refused it."""

    @activity.defn
    @abstractmethod
    async def expire_correction(self, correction: CorrectionId) -> CorrectionOutcome:
        """End a proposal that nobody decided in time."""


def correction_start(proposal: Proposal) -> WorkflowStart[CorrectionOutcome]:
    """A correction's workflow."""
    summary = f"{proposal.kind}: {proposal.amount_msat:,} msat, Dr {proposal.debit} · Cr {proposal.credit}"
    return WorkflowStart(
        workflow="CorrectionWorkflow",
        argument=proposal,
        id=workflow_ids.correction(proposal.correction),
        summary=summary[:_LONGEST_SUMMARY],
        attributes=search_attributes.build(
            kind=str(proposal.kind),
            status="proposed",
            amount_sat=msat_to_sat_floor(proposal.amount_msat),
            needs_operator=False,
        ),
        conflict_policy=WorkflowIDConflictPolicy.FAIL,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        task_timeout=queues.TASK_TIMEOUT,
    )
