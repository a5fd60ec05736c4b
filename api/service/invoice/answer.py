"""An invoice as it is shown: its row, its status now, and what its node could receive for it.

What a node can receive over Lightning changes, so an open invoice is always shown with the current figure. No invoice
is refused for it: users of this bank pay an invoice without the node, and the node may be able to receive more before
the invoice expires.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from engine.domain.money import two_digits_floor


class InvoiceWarningOut(BaseModel):
    """Why the invoice may not be payable from outside this bank now. Users of this bank can still pay it."""

    code: Literal["above_inbound", "no_inbound"]
    detail: str


class InvoiceOut(BaseModel):
    """A request for money."""

    id: str
    wallet_id: str
    bolt11: str
    payment_hash: str
    amount_msat: int | None
    received_msat: int = Field(description="The amount received.")
    fee_msat: int = Field(description="Our fee, deducted from what was paid over Lightning.")
    status: Literal["open", "settled", "expired", "cancelled"]
    memo: str | None
    description_hash: str | None
    external_id: str | None
    expires_at: datetime
    created_at: datetime
    settled_at: datetime | None
    receivable_msat: int | None = Field(
        default=None,
        description="The most that its node could receive for it over Lightning, when it last reported, rounded down "
        "to two significant digits. null: unknown, or the invoice is no longer open.",
    )
    warning: InvoiceWarningOut | None = None


def shown(row: Mapping[str, Any]) -> InvoiceOut:
    """An invoice of these columns, as it is now: one that is open past its expiry is shown as expired."""
    known = {**row}
    if known["status"] == "open" and known["expires_at"] <= datetime.now(UTC):
        known["status"] = "expired"
    receivable_msat = known["receivable_msat"]
    if receivable_msat is not None:
        known["receivable_msat"] = two_digits_floor(receivable_msat) if known["status"] == "open" else None
    return InvoiceOut(**known, warning=_warning(known["amount_msat"], known["receivable_msat"]))


def _warning(amount_msat: int | None, receivable_msat: int | None) -> InvoiceWarningOut | None:
    """What the payer cannot know: that the node could not receive this payment."""
    if receivable_msat is None or receivable_msat >= (amount_msat or 1):
        return None
    if receivable_msat == 0:
        detail = "Its node can receive nothing over Lightning at the moment; users of this bank can still pay it."
        return InvoiceWarningOut(code="no_inbound", detail=detail)
    detail = (
        f"Its node can receive {receivable_msat:,} msat over Lightning at the moment, which is less than its amount; "
        "users of this bank can still pay it."
    )
    return InvoiceWarningOut(code="above_inbound", detail=detail)
