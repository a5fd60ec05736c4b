"""Messages of a reconciliation: the books, held against every place where the money really is.

    difference = books − place − in flight     per asset account; 0, or somebody must say why

What is in flight is named item by item. A place is a Lightning node or a wallet of bitcoind.
Nothing here moves money: a difference ends with an operator's explanation.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.ids import AccountId, CaseId, NodeName, ReconciliationId
from engine.domain.money import Msat, msat_to_sat_floor

HOT: Final = "asset:hot"
"""The account of the wallet of bitcoind."""


class RunStatus(StrEnum):
    """What a run has found. `incomplete`: a place could not be read, so nothing is said about it."""

    RUNNING = "running"
    CLEAN = "clean"
    EXPLAINED = "explained"
    DIFFERS = "differs"
    INCOMPLETE = "incomplete"


class FindingKind(StrEnum):
    """What is wrong, or worth a look. Durable: it is part of a case's name."""

    BROKEN_RULE = "broken_rule"
    DIFFERENCE = "difference"
    PAYMENT_NOT_IN_BOOKS = "payment_not_in_books"
    PAID_AFTER_RELEASE = "paid_after_release"
    AMOUNT_DIFFERS = "amount_differs"
    NOT_AT_NODE = "not_at_node"
    RECEIPT_NOT_BOOKED = "receipt_not_booked"
    HOLD_WITHOUT_PAYMENT = "hold_without_payment"
    PAYMENT_WITHOUT_HOLD = "payment_without_hold"
    PAYMENT_ORPHANED = "payment_orphaned"
    CANCELLATION_OVERDUE = "cancellation_overdue"
    PAYMENT_PENDING_LONG = "payment_pending_long"
    CHANNEL_CLOSED = "channel_closed"
    COMMITMENT_FEE_CHANGED = "commitment_fee_changed"
    CHANNEL_PART = "channel_part"
    COIN_SPENT = "coin_spent"
    COIN_NOT_IN_BOOKS = "coin_not_in_books"
    COIN_WITHOUT_KEY = "coin_without_key"
    HOLD_WITHOUT_DEPOSIT = "hold_without_deposit"
    DEPOSIT_WITHOUT_HOLD = "deposit_without_hold"
    DEPOSIT_NOT_AS_BOOKED = "deposit_not_as_booked"
    PLACE_UNREACHABLE = "place_unreachable"
    PLACE_MOVING = "place_moving"


OBSERVATIONS = frozenset(
    {
        FindingKind.PAYMENT_PENDING_LONG,
        FindingKind.PLACE_UNREACHABLE,
        FindingKind.PLACE_MOVING,
        FindingKind.CHANNEL_PART,
    }
)
"""Findings that a run reports without opening a case: they end by themselves, say only that nothing could be said, or
are part of a channel's finding on another account of the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """Something that may be the reason of a difference: a payment by its hash, a channel by its channel point."""

    kind: str
    ref: str
    amount_msat: int
    """What it would add to books − place, with that sign."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a run found. Kind, account and subject name it: found again, it is the same finding."""

    kind: FindingKind
    account: str
    subject: str
    amount_msat: int
    """Its part of books − place, with that sign; 0 if no balance is concerned."""
    detail: str
    suspects: list[Suspect] = field(default_factory=list["Suspect"])


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """Money that the place has moved and the books have not yet, or that is in another account of the same place."""

    kind: str
    ref: str
    amount_msat: int
    """Its part of books − place, with that sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountComparison:
    """One asset account, in the books and at its place."""

    account: str
    books_msat: int
    place_msat: int
    in_flight: list[InFlight]
    difference_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceReport:
    """The result of comparing one place."""

    place: str
    accounts: list[AccountComparison]
    findings: list[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconcile:
    """What to reconcile: everything. Input of the workflow."""

    stuck_after_s: int = 3600
    """How long a payment may be pending, or a cancellation may wait, before it is reported."""
    asked_by: str | None = None
    """The operator who asked for the run, with `key_id`; None for the schedule."""
    key_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """A run that begins; its id is made from the workflow's run."""

    run: ReconciliationId
    workflow_id: str
    asked_by: str | None = None
    key_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What the run must look at: the nodes and the wallets of bitcoind that are in the books."""

    nodes: list[NodeName]
    wallets: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksCheck:
    """Check the books against themselves."""

    stuck_after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeComparison:
    """Compare one node with its accounts."""

    node: NodeName
    stuck_after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainComparison:
    """Compare a wallet of bitcoind with its account."""

    wallet: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """All that a run found, for storing."""

    run: ReconciliationId
    accounts: list[AccountComparison]
    findings: list[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCase:
    """A case that waits for an operator: input of its workflow."""

    case: CaseId
    kind: str
    account: str
    subject: str
    amount_msat: int
    detail: str
    suspects: list[Suspect]
    resolution: "CaseResolution | None" = None
    """Set by the workflow when it goes on in a new run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """What was stored of a run. `cases` are the cases that are open now, the oldest first, at most a hundred."""

    run: ReconciliationId
    status: RunStatus
    findings: int
    cases: list[OpenCase]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResolution:
    """An operator's explanation of a case. `key_id` is the API key, if it came over the API."""

    operator: str
    reason: str
    key_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveCase:
    """Store an operator's explanation."""

    case: CaseId
    resolution: CaseResolution


class ReconciliationActivities(ABC):
    """The books' side. Each method is safe to repeat: runs and cases are named before they are written."""

    @activity.defn
    @abstractmethod
    async def begin_run(self, start: RunStart) -> RunPlan:
        """Write that a run began, and return what to compare."""

    @activity.defn
    @abstractmethod
    async def check_books(self, check: BooksCheck) -> list[Finding]:
        """Close the books and check every rule. Look for payments and deposits that their postings contradict."""

    @activity.defn
    @abstractmethod
    async def record_run(self, report: RunReport) -> RecordedRun:
        """Store the report, open a case for each new finding, and note on known cases what has become of them."""

    @activity.defn
    @abstractmethod
    async def resolve_case(self, resolve: ResolveCase) -> bool:
        """Write an operator's explanation of the case, once. Returns whether it was new."""


class PlaceReconciliationActivities(ABC):
    """A node's side: runs on the node's queue, and reads only."""

    @activity.defn
    @abstractmethod
    async def compare_node(self, comparison: NodeComparison) -> PlaceReport:
        """Compare the node's accounts with the node at one moment, and name what is in flight and what differs."""


class ChainReconciliationActivities(ABC):
    """The side of bitcoind: runs on the queue `onchain`, and reads only."""

    @activity.defn
    @abstractmethod
    async def compare_chain(self, comparison: ChainComparison) -> PlaceReport:
        """Compare the wallet's coins with its account at one tip, and name what is in flight and what differs."""


def case_start(case: OpenCase) -> WorkflowStart[CaseResolution]:
    """A case's workflow."""
    return WorkflowStart(
        workflow="CaseWorkflow",
        argument=case,
        id=workflow_ids.case(case.case),
        summary=f"{case.kind}: {case.amount_msat:,} msat on {case.account}",
        attributes=search_attributes.build(
            kind="case",
            status="open",
            amount_sat=msat_to_sat_floor(Msat(abs(case.amount_msat))),
            needs_operator=True,
        ),
        reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        task_timeout=queues.TASK_TIMEOUT,
    )


def scheduled_reconciliation() -> WorkflowStart[RecordedRun]:
    """The run of the schedule."""
    return _reconciliation(Reconcile(), workflow_ids.RECONCILIATION, "hold the books against every node")


def reconciliation_after_stray_payment() -> WorkflowStart[RecordedRun]:
    """A run now, because a node has paid something for which nothing is held. A start finds a running one."""
    start = _reconciliation(
        Reconcile(),
        workflow_ids.RECONCILIATION_NOW,
        "hold the books against every node: one has paid what nobody asked for",
    )
    return replace(start, conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING)


def asked_reconciliation(asked: Reconcile, asker: AccountId, key: str | None) -> WorkflowStart[RecordedRun]:
    """A run that an operator asks for. One idempotency key starts one run, ever."""
    start = _reconciliation(
        asked, workflow_ids.asked_reconciliation(asker, key), "hold the books against every node, on demand"
    )
    reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE if key is None else WorkflowIDReusePolicy.REJECT_DUPLICATE
    return replace(start, conflict_policy=WorkflowIDConflictPolicy.FAIL, reuse_policy=reuse)


def _reconciliation(asked: Reconcile, workflow_id: str, summary: str) -> WorkflowStart[RecordedRun]:
    return WorkflowStart(
        workflow="ReconciliationWorkflow",
        argument=asked,
        id=workflow_id,
        summary=summary,
        attributes=search_attributes.build(kind="reconciliation"),
    )
