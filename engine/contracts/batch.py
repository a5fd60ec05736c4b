"""Messages of a batch: internal payments of one request, settled together or not at all. Durable: add fields with
defaults, never rename or remove."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.payment import PaymentRequest, Refusal
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.ids import AccountId, ApiKeyId, BatchId, PaymentHash, PaymentId, WalletId, id_for_key
from engine.domain.money import Msat, amount_text, msat_to_sat_floor

MAX_ITEMS = 1000
"""One transaction of some 300 ms, during which the balances of payer and payees are locked."""

MAX_BODY_BYTES = 2**20
"""The longest body of a request. Encoded for Temporal, which takes 2 MB, an item grows by at most 250 bytes: its texts
are written as they came, and each only once."""
_LISTED = 100
"""How many payments the details of the workflow name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One payment, checked. Its destination is one of our users."""

    destination: str
    """`@name`, `wallet:<id>`, or one of our invoices in lower case."""
    payee_wallet_id: WalletId | None = None
    """Set when the destination names one of our wallets and no invoice."""
    payment_hash: PaymentHash | None = None
    """Set when the destination is one of our invoices."""
    amount_in_invoice: bool = False
    amount_msat: Msat
    memo: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What the caller asked for, checked: input of the workflow."""

    batch_id: BatchId
    account_id: AccountId
    wallet_id: WalletId
    idempotency_key: str
    body_hash: str
    """SHA-256 in hex over method, path and body."""
    api_key_id: ApiKeyId
    """The key that asked: its caps are read when the batch is opened."""
    items: list[BatchItem]

    @property
    def total_msat(self) -> Msat:
        """The sum of the amounts, without our fees."""
        return Msat(sum(item.amount_msat for item in self.items))

    def payments(self) -> list[PaymentRequest]:
        """Each item as a payment. The keys of these payments contain a space, so no caller can use one."""
        return [self._payment(place, item) for place, item in enumerate(self.items)]

    def _payment(self, place: int, item: BatchItem) -> PaymentRequest:
        key = f"{self.idempotency_key} {place}"
        return PaymentRequest(
            payment_id=PaymentId(id_for_key("pay", self.account_id, key)),
            account_id=self.account_id,
            wallet_id=self.wallet_id,
            idempotency_key=key,
            body_hash=self.body_hash,
            destination=item.destination,
            payee_wallet_id=item.payee_wallet_id,
            bolt11=None if item.payment_hash is None else item.destination,
            payment_hash=item.payment_hash,
            amount_in_invoice=item.amount_in_invoice,
            amount_msat=item.amount_msat,
            max_fee_msat=Msat(0),
            memo=item.memo,
            api_key_id=self.api_key_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """How the batch ended: refused, in conflict with another request of the key, or all settled."""

    body_hash: str
    refusal: Refusal | None = None
    """The refusal of the first refused item, with the item's place under `item`, from 0. Nothing was paid."""
    key_conflict: bool = False
    """The key was used before for another request; nothing was done."""
    count: int = 0
    """How many payments the batch has."""


class BatchActivities(ABC):
    """The ledger's side: one transaction for all, safe to repeat."""

    @activity.defn
    @abstractmethod
    async def open_batch(self, batch: BatchRequest) -> BatchOutcome:
        """Claim the key; settle every payment, or none and make the first refusal the key's answer."""


def batch_start(asked: BatchRequest) -> WorkflowStart[BatchOutcome]:
    """A batch's workflow."""
    total = amount_text(asked.total_msat)
    return WorkflowStart(
        workflow="BatchWorkflow",
        argument=asked,
        id=workflow_ids.batch(asked.account_id, asked.idempotency_key),
        summary=f"{len(asked.items)} internal payments, {total} in all, for {asked.account_id}",
        details=_details(asked),
        attributes=search_attributes.build(
            kind="batch",
            status="pending",
            account=asked.account_id,
            amount_sat=msat_to_sat_floor(asked.total_msat),
            needs_operator=False,
        ),
        result=BatchOutcome,
        conflict_policy=WorkflowIDConflictPolicy.FAIL,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        task_timeout=queues.TASK_TIMEOUT,
    )


def _details(asked: BatchRequest) -> str:
    """The payees of the batch, as many as the length of the details allows."""
    lines = [f"- {amount_text(each.amount_msat)} to `{each.destination[:50]}`" for each in asked.items[:_LISTED]]
    more = len(asked.items) - len(lines)
    return "\n".join([*lines, f"- and {more} more"] if more else lines)
