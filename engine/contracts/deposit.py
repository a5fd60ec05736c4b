"""Messages of a deposit, and of many that move together. Durable: add fields with defaults, never rename or remove."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.deposit import DepositStatus
from engine.domain.ids import AccountId, DepositDecisionId, DepositId, Txid
from engine.domain.money import Sat

MAX_DEPOSITS = 256
"""The most deposits of a page: one transaction, during which the balances of all owners are locked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositRef:
    """Which deposit: input of its workflow."""

    deposit: DepositId


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositState:
    """How a deposit stands after the books have followed the chain."""

    status: DepositStatus
    outpoint: str
    amount_sat: Sat
    wallet_id: str | None
    waits_for: str
    """For people: the next thing that must happen."""
    ended: bool
    """Whether nothing is left to do. A deeper reorganisation starts its workflow again."""
    needs_operator: bool
    receivable_msat: int = 0
    """What its owner had spent of it, and owes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositPage:
    """Deposits that must be moved on at the same time: input of the page's workflow."""

    deposits: list[DepositId]
    height: int
    """The tip at which they were found: part of the workflow's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone:
    """A deposit that needs an operator or contradicts the books, and the workflow of its own that it gets."""

    deposit: DepositId
    workflow_id: str
    txid: Txid
    amount_sat: Sat
    account_id: AccountId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedPage:
    """What became of a page."""

    moved: int
    left_alone: list[LeftAlone]


class DepositActivities(ABC):
    """The books' side. Each method is one transaction and safe to repeat: the row says what is booked."""

    @activity.defn
    @abstractmethod
    async def advance_deposit(self, deposit: DepositRef) -> DepositState:
        """Book all that the chain asks for now, and say what it waits for."""

    @activity.defn
    @abstractmethod
    async def advance_deposits(self, page: DepositPage) -> MovedPage:
        """As `advance_deposit` for each, in one transaction; leave alone what needs an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositApproval:
    """A second operator approves what a first one has proposed about a deposit."""

    decision: DepositDecisionId
    operator: AccountId
    key_id: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideDeposit:
    """Carry an approved decision out."""

    deposit: DepositId
    approval: DepositApproval


class DepositDecisionActivities(ABC):
    """One transaction, and safe to repeat: a second call finds what the first did."""

    @activity.defn
    @abstractmethod
    async def decide_deposit(self, decide: DecideDeposit) -> str:
        """Do what was proposed, and mark it as done. Returns the reference of the posting; empty when nothing moved.

        Raises Refused: `decision_made` for a decision that has ended otherwise, `own_proposal`, `payee_closed`, and
        `deposit_not_waiting` when the deposit has changed meanwhile. The decision stays open then, but for the first.
        """


def deposit_start(
    deposit: DepositId, workflow_id: str, *, txid: Txid, amount_sat: Sat, account: AccountId | None
) -> WorkflowStart[DepositState]:
    """A deposit's own workflow. A start finds a running one, or begins another run after an end."""
    return WorkflowStart(
        workflow="DepositWorkflow",
        argument=DepositRef(deposit=deposit),
        id=workflow_id,
        summary=f"deposit of {amount_sat:,} sat for {account or 'nobody yet'}",
        attributes=search_attributes.build(
            kind="deposit", status="pending", account=account, txid=txid, amount_sat=amount_sat, needs_operator=False
        ),
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        task_timeout=queues.TASK_TIMEOUT,
    )


def deposit_again(left: LeftAlone) -> WorkflowStart[DepositState]:
    """The own workflow of a deposit that a page has left alone."""
    return deposit_start(
        left.deposit, left.workflow_id, txid=left.txid, amount_sat=left.amount_sat, account=left.account_id
    )


def deposits_start(page: DepositPage) -> WorkflowStart[MovedPage]:
    """The workflow of a page of deposits."""
    return WorkflowStart(
        workflow="DepositPageWorkflow",
        argument=page,
        id=workflow_ids.deposits(page.height, page.deposits),
        summary=f"move {len(page.deposits)} deposits on at height {page.height}",
        attributes=search_attributes.build(kind="deposits", status="pending", needs_operator=False),
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        task_timeout=queues.TASK_TIMEOUT,
    )
