"""Messages of a receipt: an invoice of ours that somebody outside has paid."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from temporalio import activity

from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat


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


class InvoiceSweepActivities(ABC):
    """The node's side: runs on the node's queue."""

    @activity.defn
    @abstractmethod
    async def sweep_invoices(self, page: SweepPage) -> SweptPage:
        """Ask the node about one page of overdue open invoices."""
