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
    """Set when the destination names a wallet of ours and no invoice."""
    bolt11: str | None = None
    payment_hash: PaymentHash | None = None
    amount_in_invoice: bool = False
    """Whether the invoice itself names the amount; the node must then not be told again."""
    amount_msat: Msat
    max_fee_msat: Msat
    """The routing cap where the caller gave no cap."""
    memo: str | None = None
    external_id: str | None = None
    fee_cap_msat: Msat | None = None
    """The caller's cap on all that the payment costs beside the amount; None: routing up to `max_fee_msat`, and our
    fee whatever it is."""
    api_key_id: ApiKeyId | None = None
    """The key that asked: its caps are read when the payment is opened."""
    payee_node: str | None = None
    """Set when a node is paid without an invoice: its public key. Preimage and hash are drawn with the hold."""
    success_action: dict[str, str] | None = None
    """What the payee wants to be shown once he is paid (LUD-09), checked; kept with a Lightning payment."""
    withdraw_link_id: WithdrawLinkId | None = None
    """Set when somebody claims this link: opening takes one of its uses, and a failure gives it back."""
    so_far: "PaymentSoFar | None" = None
    """Set by a payment's own workflow when it goes on in a new run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A rule's no, kept as the answer of its key for ever."""

    code: str
    detail: str
    fields: dict[str, str | int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentOutcome:
    """How opening or finishing a payment ended. Exactly one of status, refusal and conflict tells it."""

    body_hash: str
    status: PaymentStatus | None = None
    refusal: Refusal | None = None
    key_conflict: bool = False
    """The key was used before for another request; nothing was done."""
    delivered_msat: Msat | None = None
    """Of a settled payment what the payee has taken, where that is not what was asked for: an operator must look."""

    @property
    def is_final(self) -> bool:
        """Whether this is the answer of the key for ever."""
        if self.status is None:
            return self.refusal is not None or self.key_conflict
        return self.status is not PaymentStatus.PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPayment:
    """What `open_payment` did: an outcome that is final already, or money held for `attempt`."""

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
    """LND's payment index of the last attempt that is known to have failed: what the node says about that one or an
    older one is no news about this one."""
    service_fee_msat: Msat = Msat(0)
    """Our fee, held beside amount and routing cap; the node has no part in it."""
    payee_node: str | None = None
    """The node that gets a keysend: its public key."""
    shown: str = ""
    """The reason to wait that the workflow shows already: a look that finds another one comes back to say so."""
    begun: bool = False
    """The node has said that it has this attempt: it is followed, and never sent."""


class NodeVerdict(StrEnum):
    """What a node says of an attempt. Only SUCCEEDED and FAILED are final; everything else is "not known yet"."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    IN_FLIGHT = "in_flight"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReport:
    """The node's word on one attempt."""

    verdict: NodeVerdict
    fee_msat: Msat = Msat(0)
    preimage: str | None = None
    failure_code: str | None = None
    failure_detail: str | None = None
    payment_index: int = 0
    waiting: Waiting | None = None
    """With IN_FLIGHT, when it waits for something else than the payee."""
    delivered_msat: Msat | None = None
    """With SUCCEEDED, what the payee has taken, where that is not the amount of the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSoFar:
    """How far a payment had come when its workflow went on in a new run."""

    attempt: LightningAttempt
    report: AttemptReport | None = None
    """The node's last word. None: it is still to be sent."""


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
    """What the payee has taken, where that is not what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePayment:
    """An authoritative failure: give the held money back."""

    payment_id: PaymentId
    failure_code: str
    failure_detail: str
    payment_index: int
    body_hash: str


def settlement(request: PaymentRequest, report: AttemptReport) -> SettlePayment:
    """How the payment ends when the node has paid."""
    return SettlePayment(
        payment_id=request.payment_id,
        fee_msat=report.fee_msat,
        preimage=report.preimage or "",
        payment_index=report.payment_index,
        body_hash=request.body_hash,
        delivered_msat=report.delivered_msat,
    )


def release(request: PaymentRequest, report: AttemptReport) -> ReleasePayment:
    """How the payment ends when the node has failed it."""
    return ReleasePayment(
        payment_id=request.payment_id,
        failure_code=report.failure_code or "no_route",
        failure_detail=report.failure_detail or "",
        payment_index=report.payment_index,
        body_hash=request.body_hash,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A second operator's yes to what another one has proposed."""

    decision: DecisionId
    operator: AccountId
    """Whose key it was. Two keys of one account are one operator."""
    key_id: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryOutDecision:
    """End this payment as two operators want it."""

    attempt: LightningAttempt
    approval: Approval
    body_hash: str
    may_be_sending: bool = False
    """No send has come back with a word of the node: what one of them told it may still be on its way."""


class PaymentActivities(ABC):
    """The ledger's side of a payment. Each method is safe to repeat."""

    @activity.defn
    @abstractmethod
    async def open_payment(self, request: PaymentRequest) -> OpenedPayment:
        """Claim the key; settle an internal payment, or hold the money of a Lightning one and begin to send it.

        A Lightning payment has ended as well where this process calls its node and the node was quick.
        """

    @activity.defn
    @abstractmethod
    async def settle_payment(self, settle: SettlePayment) -> PaymentOutcome:
        """Book what the payee has taken and the actual fee, release the rest of the hold."""

    @activity.defn
    @abstractmethod
    async def release_payment(self, release: ReleasePayment) -> PaymentOutcome:
        """Void the hold and record why the payment failed."""


class SendingActivities(ABC):
    """The node's side of a payment: runs on the queue of the pinned node."""

    @activity.defn
    @abstractmethod
    async def send_payment(self, attempt: LightningAttempt) -> AttemptReport:
        """Look first, then send behind the fence; return when final or still in flight after a while."""

    @activity.defn
    @abstractmethod
    async def watch_payment(self, attempt: LightningAttempt) -> AttemptReport:
        """Return the final report, or what else than the payee it waits for, once; else fail with the delay after which
        to look again."""


class DecisionActivities(ABC):
    """What two operators decide about a payment: runs on the queue of the pinned node."""

    @activity.defn
    @abstractmethod
    async def carry_out_decision(self, carry: CarryOutDecision) -> PaymentOutcome:
        """Look at the node, and unless it has a word of its own, end the payment in one transaction.

        Refused when the payment can still end by itself, and when it has been decided otherwise.
        """


def payment_start(asked: PaymentRequest, *, payee: str | None = None) -> WorkflowStart[PaymentOutcome]:
    """A payment's own workflow. `payee` is the name of the payee for people, where the caller knows one."""
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
