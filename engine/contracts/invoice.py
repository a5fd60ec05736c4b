"""Messages of a receipt: an invoice of ours that somebody outside has paid."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum

from temporalio import activity
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from engine.contracts import search_attributes
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat, msat_to_sat_floor

MAX_RECEIPTS = 256
"""Of one page: one transaction, during which the balances of all payees are locked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A settled invoice as the node tells it: input of the receive workflow."""

    payment_hash: PaymentHash
    node: NodeName
    received_msat: Msat
    """What was really paid, which may be more than was asked for (BOLT 4 allows up to twice the amount)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditedReceipt:
    """What came of a receipt."""

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
    """Not ours, paid inside as well, for a closed account, or against the books: nothing of it was done here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditedPage:
    """What came of each, in the order of the page."""

    verdicts: list[ReceiptVerdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPage:
    """Which page of open invoices to sweep; `after` is the last invoice id of the page before."""

    node: NodeName
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPage:
    """What a page held; `next_after` is None after the last page."""

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
        """As `credit_receipt` for each that is plain, in one transaction; leave the others alone."""


class InvoiceSweepActivities(ABC):
    """The node's side: runs on the node's queue."""

    @activity.defn
    @abstractmethod
    async def sweep_invoices(self, page: SweepPage) -> SweptPage:
        """Ask the node about one page of overdue open invoices."""


def receive_summary(receipt: Receipt) -> str:
    """What operators read of a receipt's own workflow, whoever starts it."""
    return f"receive {msat_to_sat_floor(receipt.received_msat):,} sat over {receipt.node}"


def receive_attributes(receipt: Receipt) -> TypedSearchAttributes:
    """What operators find a receipt's own workflow by, whoever starts it."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(search_attributes.KIND, "receive"),
            SearchAttributePair(search_attributes.STATUS, "received"),
            SearchAttributePair(search_attributes.PAYMENT_HASH, receipt.payment_hash),
            SearchAttributePair(search_attributes.AMOUNT_SAT, msat_to_sat_floor(receipt.received_msat)),
            SearchAttributePair(search_attributes.NEEDS_OPERATOR, value=False),
        ]
    )
