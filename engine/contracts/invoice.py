"""Messages of a receipt: somebody outside has paid one of our invoices."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat, msat_to_sat_floor

MAX_RECEIPTS = 256
"""The most receipts of a page: one transaction, during which the balances of all payees are locked."""
_LISTED = 200
"""How many receipts the details of a page name; Temporal takes 20,000 bytes of text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A settled invoice as the node reports it: input of the receive workflow."""

    payment_hash: PaymentHash
    node: NodeName
    received_msat: Msat
    """What was really paid, which may be more than was asked for (BOLT 4 allows up to twice the amount)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditedReceipt:
    """What became of a receipt."""

    credited: bool
    """False when it had been credited before, or the invoice is not one of ours."""
    wallet_id: str | None = None
    paid_twice: bool = False
    """True when one of our users had paid the same invoice in the ledger: credited in addition, and flagged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptPage:
    """Receipts that arrived at a node together: input of the page's workflow. No two have the same payment hash."""

    receipts: list[Receipt]


class ReceiptVerdict(StrEnum):
    """What a page did with one of its receipts."""

    CREDITED = "credited"
    KNOWN = "credited before"
    LEFT_ALONE = "left alone"
    """Not ours, also paid internally, for a closed account, or contradicting the books: nothing was done here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditedPage:
    """The verdict on each receipt, in the order of the page."""

    verdicts: list[ReceiptVerdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPage:
    """Which page of open invoices to sweep; `after` is the last invoice id of the page before."""

    node: NodeName
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPage:
    """What was found on a page; `next_after` is None after the last page."""

    looked_at: int
    received: int
    expired: int
    next_after: str | None


class InvoiceActivities(ABC):
    """The ledger's side of a receipt."""

    @activity.defn
    @abstractmethod
    async def credit_receipt(self, receipt: Receipt) -> CreditedReceipt:
        """Credit the invoice's wallet, at most once for each payment hash."""

    @activity.defn
    @abstractmethod
    async def credit_receipts(self, page: ReceiptPage) -> CreditedPage:
        """As `credit_receipt` for each receipt that needs no operator, in one transaction; leave the others alone."""


class InvoiceSweepActivities(ABC):
    """The node's side: runs on the node's queue."""

    @activity.defn
    @abstractmethod
    async def sweep_invoices(self, page: SweepPage) -> SweptPage:
        """Ask the node about one page of overdue open invoices."""


def receive_start(receipt: Receipt) -> WorkflowStart[CreditedReceipt]:
    """A receipt's own workflow."""
    amount_sat = msat_to_sat_floor(receipt.received_msat)
    return WorkflowStart(
        workflow="ReceiveWorkflow",
        argument=receipt,
        id=workflow_ids.receive(receipt.payment_hash),
        summary=f"receive {amount_sat:,} sat over {receipt.node}",
        attributes=search_attributes.build(
            kind="receive",
            status="received",
            payment_hash=receipt.payment_hash,
            amount_sat=amount_sat,
            needs_operator=False,
        ),
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        task_timeout=queues.TASK_TIMEOUT,
    )


def receipts_start(node: NodeName, page: ReceiptPage) -> WorkflowStart[CreditedPage]:
    """The workflow of a page of receipts."""
    receipts = page.receipts
    total_sat = msat_to_sat_floor(Msat(sum(receipt.received_msat for receipt in receipts)))
    return WorkflowStart(
        workflow="ReceiptPageWorkflow",
        argument=page,
        id=workflow_ids.receipts(node, [each.payment_hash for each in receipts]),
        summary=f"receive {len(receipts)} payments, {total_sat:,} sat in all, over {node}",
        details=_details(receipts),
        attributes=search_attributes.build(
            kind="receipts", status="received", amount_sat=total_sat, needs_operator=False
        ),
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
        task_timeout=queues.TASK_TIMEOUT,
    )


def sweep_start(node: NodeName) -> WorkflowStart[SweptPage]:
    """The workflow of a node's scheduled walk over overdue invoices."""
    return WorkflowStart(
        workflow="InvoiceSweepWorkflow",
        argument=SweepPage(node=node),
        id=workflow_ids.invoice_sweep(node),
        summary=f"ask {node} about overdue invoices",
        attributes=search_attributes.build(kind="invoice-sweep"),
    )


def _details(receipts: Sequence[Receipt]) -> str:
    """The receipts of the page, as many as Temporal's limit on text allows."""
    lines = [f"- `{each.payment_hash}` {each.received_msat:,} msat" for each in receipts[:_LISTED]]
    more = len(receipts) - len(lines)
    return "\n".join([*lines, f"- and {more} more"] if more else lines)
