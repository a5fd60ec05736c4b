"""Messages of a withdrawal. Durable: add fields with defaults, never rename or remove."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.payment import Refusal
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.ids import AccountId, ApiKeyId, PayoutId, Txid, WalletId, WithdrawalDecisionId, WithdrawalId
from engine.domain.money import Sat
from engine.domain.withdrawal.withdrawal import FeeFrom, Speed, WithdrawalStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRequest:
    """What a user asks for, checked: input of the workflow."""

    withdrawal_id: WithdrawalId
    account_id: AccountId
    wallet_id: WalletId
    idempotency_key: str
    body_hash: str
    """SHA-256 in hex: tells a repeat from another request with the same key."""
    hot_wallet: str
    address: str
    script: str
    """The output script of the address, in hex."""
    amount_sat: Sat | None
    """None: all that is in the wallet."""
    fee_from: FeeFrom
    speed: Speed
    alone: bool
    unlinked: bool
    max_fee_sat: Sat | None
    """The most to pay on top of the amount, or out of it: share and our fee. None: `fee_cap_sat` and our fee."""
    fee_cap_sat: Sat
    """What the share may be by default: worked out from the estimate when it was asked for."""
    memo: str | None = None
    external_id: str | None = None
    api_key_id: ApiKeyId | None = None
    wait_for_unlinked: bool = False
    """Queue it although no unlinked coins are there now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRef:
    """Which withdrawal."""

    withdrawal_id: WithdrawalId


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalState:
    """How a withdrawal stands by its row."""

    status: WithdrawalStatus
    speed: Speed
    amount_sat: Sat
    waits_for: str
    """For people: the next thing that must happen."""
    needs_operator: bool = False
    joins: bool = False
    """Whether it is queued, approved and not on hold: its batcher must run."""
    payout_id: PayoutId | None = None
    txid: Txid | None = None
    approve_in_s: float | None = None
    """How long an operator still has. At 0 the next look ends it."""
    failure: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.status in {WithdrawalStatus.CONFIRMED, WithdrawalStatus.CANCELLED, WithdrawalStatus.FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedWithdrawal:
    """The answer of the key. Neither state nor refusal: the key belongs to another request."""

    body_hash: str
    state: WithdrawalState | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalApproval:
    """An operator carries out what he or another one has proposed."""

    decision: WithdrawalDecisionId
    operator: AccountId
    key_id: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideWithdrawal:
    """Carry a decision about a withdrawal out."""

    withdrawal_id: WithdrawalId
    approval: WithdrawalApproval


class WithdrawalActivities(ABC):
    """The books' side. Each method is one transaction and safe to repeat: the row says what is booked."""

    @activity.defn
    @abstractmethod
    async def open_withdrawal(self, request: WithdrawalRequest) -> OpenedWithdrawal:
        """Claim the key, write the row and hold amount, fee cap and our fee; or pay a user of ours in the books.

        A refusal rolls all of that back and becomes the key's answer.
        """

    @activity.defn
    @abstractmethod
    async def advance_withdrawal(self, withdrawal: WithdrawalRef) -> WithdrawalState:
        """How it stands. Ends one whose time for an approval is over."""

    @activity.defn
    @abstractmethod
    async def cancel_withdrawal(self, withdrawal: WithdrawalRef) -> WithdrawalState:
        """Release the hold of a queued one. Raises Refused (`already_batched`, `withdrawal_ended`) later."""

    @activity.defn
    @abstractmethod
    async def decide_withdrawal(self, decide: DecideWithdrawal) -> WithdrawalState:
        """Approve, reject, hold or resume it, as was proposed. Raises Refused: `decision_made`, `own_proposal`,
        `withdrawal_not_waiting`."""


def withdrawal_start(request: WithdrawalRequest) -> WorkflowStart[WithdrawalState]:
    """The workflow of a request. A second start with the same key finds the first."""
    return WorkflowStart(
        workflow="WithdrawalWorkflow",
        argument=request,
        id=workflow_ids.withdrawal(request.account_id, request.idempotency_key),
        summary=f"withdrawal to {request.address}",
        attributes=search_attributes.build(
            kind="withdrawal",
            status="queued",
            account=request.account_id,
            amount_sat=request.amount_sat,
            needs_operator=False,
        ),
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        task_timeout=queues.TASK_TIMEOUT,
    )
