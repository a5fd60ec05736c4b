"""Messages of a payment: between the API, its workflow and its activities. Durable: add fields with defaults, never
rename or remove."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.ids import (
    AccountId,
    ApiKeyId,
    DecisionId,
    NodeName,
    PaymentHash,
    PaymentId,
    WalletId,
    WithdrawLinkId,
)
from engine.domain.money import Msat, amount_text, msat_to_sat_floor
from engine.domain.sending import Waiting


class PaymentStatus(StrEnum):
    """Where a payment stands. `settled` and `failed` never change again."""

    PENDING = "pending"
    SETTLED = "settled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRequest:
    """What the caller asked for, checked and with every default made explicit: input of the workflow."""

    payment_id: PaymentId
    account_id: AccountId
    wallet_id: WalletId
    idempotency_key: str
    body_hash: str
    """SHA-256 in hex over method, path and body: tells a repeat from another request with the same key."""
    destination: str
    payee_wallet_id: WalletId | None = None
    """Set when the destination names one of our wallets and no invoice."""
    bolt11: str | None = None
    payment_hash: PaymentHash | None = None
    amount_in_invoice: bool = False
    """Whether the invoice itself names the amount. The node must then not be told the amount."""
    amount_msat: Msat
    max_fee_msat: Msat
    """The routing cap if the caller gave no cap."""
    memo: str | None = None
    external_id: str | None = None
    fee_cap_msat: Msat | None = None
    """The caller's cap on all costs besides the amount. None: routing may cost up to `max_fee_msat`, and our fee comes
    on top, whatever it is."""
    api_key_id: ApiKeyId | None = None
    """The key that asked: its caps are read when the payment is opened."""
    payee_node: str | None = None
    """Set when a node is paid without an invoice: its public key. Preimage and hash are drawn with the hold."""
    success_action: dict[str, str] | None = None
    """What the payee shows to the payer after the payment (LUD-09), checked. Stored with a Lightning payment."""
    withdraw_link_id: WithdrawLinkId | None = None
    """Set when the payment is a claim of this link: opening takes one use, and a failure returns it."""
    so_far: "PaymentSoFar | None" = None
    """Set by a payment's own workflow when it goes on in a new run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal by a rule. It stays the answer of its key for ever."""

    code: str
    detail: str
    fields: dict[str, str | int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentOutcome:
    """How opening or finishing a payment ended. Exactly one of status, refusal and conflict is set."""

    body_hash: str
    status: PaymentStatus | None = None
    refusal: Refusal | None = None
    key_conflict: bool = False
    """The key was used before for another request; nothing was done."""
    delivered_msat: Msat | None = None
    """What the payee has taken, if a settled payment delivered another amount than asked for: an operator must look."""

    @property
    def is_final(self) -> bool:
        """Whether this is the answer of the key for ever."""
        if self.status is None:
            return self.refusal is not None or self.key_conflict
        return self.status is not PaymentStatus.PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPayment:
    """What `open_payment` did: an outcome that is already final, or money held for `attempt`."""

    outcome: PaymentOutcome
    attempt: "LightningAttempt | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningAttempt:
    """One attempt to pay one invoice over one pinned node, for which amount, routing cap and our fee are held."""

    payment_id: PaymentId
    node: NodeName
    bolt11: str
    """Empty for a keysend."""
    payment_hash: PaymentHash
    amount_msat: Msat
    amount_in_invoice: bool
    max_fee_msat: Msat
    """The most that the node may pay for routing; our fee is not part of it."""
    attempt: int
    """Counts the payments of this hash, from 1."""
    known_payment_index: int = 0
    """LND's payment index of the last attempt that is known to have failed. What the node says about this index or a
    lower one is no news about this attempt."""
    service_fee_msat: Msat = Msat(0)
    """Our fee, held in addition to amount and routing cap. The node does not know of it."""
    payee_node: str | None = None
    """The public key of the node that gets a keysend."""
    shown: str = ""
    """The reason to wait that the workflow shows. A look that finds another reason returns to report it."""
    begun: bool = False
    """Whether the node has confirmed that it has this attempt. Then the attempt is followed and never sent."""


class NodeVerdict(StrEnum):
    """What a node says about an attempt. Only SUCCEEDED and FAILED are final; IN_FLIGHT means "not known yet"."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    IN_FLIGHT = "in_flight"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReport:
    """The node's report on one attempt."""

    verdict: NodeVerdict
    fee_msat: Msat = Msat(0)
    preimage: str | None = None
    failure_code: str | None = None
    failure_detail: str | None = None
    payment_index: int = 0
    waiting: Waiting | None = None
    """Set with IN_FLIGHT when the payment waits for something other than the payee."""
    delivered_msat: Msat | None = None
    """With SUCCEEDED, the amount that the payee has taken, if it is not the amount of the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSoFar:
    """How far a payment had come when its workflow went on in a new run."""

    attempt: LightningAttempt
    report: AttemptReport | None = None
    """The node's last report. None: the attempt must still be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlePayment:
    """A final success: book it."""

    payment_id: PaymentId
    fee_msat: Msat
    """What the node paid for routing."""
    preimage: str
    payment_index: int
    body_hash: str
    delivered_msat: Msat | None = None
    """The amount that the payee has taken, if it is not the amount asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePayment:
    """A final failure: release the held money."""

    payment_id: PaymentId
    failure_code: str
    failure_detail: str
    payment_index: int
    body_hash: str


def settlement(request: PaymentRequest, report: AttemptReport) -> SettlePayment:
    """The settlement of the payment when the node has paid."""
    return SettlePayment(
        payment_id=request.payment_id,
        fee_msat=report.fee_msat,
        preimage=report.preimage or "",
        payment_index=report.payment_index,
        body_hash=request.body_hash,
        delivered_msat=report.delivered_msat,
    )


def release(request: PaymentRequest, report: AttemptReport) -> ReleasePayment:
    """The release of the payment when the node has failed it."""
    return ReleasePayment(
        payment_id=request.payment_id,
        failure_code=report.failure_code or "no_route",
        failure_detail=report.failure_detail or "",
        payment_index=report.payment_index,
        body_hash=request.body_hash,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A second operator's approval of what another one has proposed."""

    decision: DecisionId
    operator: AccountId
    """Whose key it was. Two keys of one account are one operator."""
    key_id: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryOutDecision:
    """End this payment as two operators have decided."""

    attempt: LightningAttempt
    approval: Approval
    body_hash: str
    may_be_sending: bool = False
    """True while no send has returned the node's report: a send may still be on its way to the node."""


class PaymentActivities(ABC):
    """The ledger's side of a payment. Each method is safe to repeat."""

    @activity.defn
    @abstractmethod
    async def open_payment(self, request: PaymentRequest) -> OpenedPayment:
        """Claim the key; settle an internal payment, or hold the money of a Lightning one and begin to send it.

        If this process calls the node and the node is quick, a Lightning payment has also ended.
        """

    @activity.defn
    @abstractmethod
    async def settle_payment(self, settle: SettlePayment) -> PaymentOutcome:
        """Book what the payee has taken and the actual fee, and release the rest of the hold."""

    @activity.defn
    @abstractmethod
    async def release_payment(self, release: ReleasePayment) -> PaymentOutcome:
        """Void the hold and record why the payment failed."""


class SendingActivities(ABC):
    """The node's side of a payment: runs on the queue of the pinned node."""

    @activity.defn
    @abstractmethod
    async def send_payment(self, attempt: LightningAttempt) -> AttemptReport:
        """Look first, then pass the fence and send. Return when the payment is final or in flight for some seconds."""

    @activity.defn
    @abstractmethod
    async def watch_payment(self, attempt: LightningAttempt) -> AttemptReport:
        """Look once. Return the final report or a new reason to wait; else fail with the delay of the next look."""


class DecisionActivities(ABC):
    """The forced end of a payment by two operators: runs on the queue of the pinned node."""

    @activity.defn
    @abstractmethod
    async def carry_out_decision(self, carry: CarryOutDecision) -> PaymentOutcome:
        """Look at the node, and end the payment in one transaction unless the node knows its end.

        Raises Refused when the payment can still end by itself, and when another decision was made. A repeat returns
        the first outcome.
        """


def payment_start(asked: PaymentRequest, *, payee: str | None = None) -> WorkflowStart[PaymentOutcome]:
    """A payment's own workflow. `payee` is the payee's name for people, if the caller knows one."""
    summary = (
        f"pay {asked.amount_msat:,} msat to {asked.destination[:50]} for {asked.account_id}"
        if payee is None
        else f"pay {amount_text(asked.amount_msat)} to {payee} for {asked.account_id}"
    )
    return WorkflowStart(
        workflow="PaymentWorkflow",
        argument=asked,
        id=workflow_ids.payment(asked.account_id, asked.idempotency_key),
        summary=summary,
        attributes=search_attributes.build(
            kind="payment",
            status="pending",
            account=asked.account_id,
            payment_hash=asked.payment_hash,
            amount_sat=msat_to_sat_floor(asked.amount_msat),
            needs_operator=False,
        ),
        result=PaymentOutcome,
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        task_timeout=queues.TASK_TIMEOUT,
    )
