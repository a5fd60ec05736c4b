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
    """What an operator wants entered, checked: input of the workflow."""

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
    """Set when it was proposed before, and goes on in a new run or workflow; else it is open from now on."""
    decision: "Decision | None" = None
    """Set by the workflow when it goes on in a new run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An operator's word on a proposal. The proposer's own can only be a no."""

    operator: AccountId
    key_id: str
    approve: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideCorrection:
    """Keep an operator's word."""

    correction: CorrectionId
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionOutcome:
    """Where a correction stands. No status: the key belongs to another request, and nothing was proposed."""

    status: CorrectionStatus | None
    refusal: Refusal | None = None
    """Why the books did not take it."""


class CorrectionActivities(ABC):
    """One transaction each, and safe to repeat: the second call finds what the first did."""

    @activity.defn
    @abstractmethod
    async def propose_correction(self, proposal: Proposal) -> CorrectionOutcome:
        """Claim the key, write the row, its trail and the line in the audit trail."""

    @activity.defn
    @abstractmethod
    async def decide_correction(self, decide: DecideCorrection) -> CorrectionOutcome:
        """Write an operator's word, unless there is one already, which stays."""

    @activity.defn
    @abstractmethod
    async def post_correction(self, correction: CorrectionId) -> CorrectionOutcome:
        """Post an approved one, all of its transfers or none, or keep why the books do not take it."""

    @activity.defn
    @abstractmethod
    async def expire_correction(self, correction: CorrectionId) -> CorrectionOutcome:
        """Nobody decided in time."""


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
