"""What must hold before money moves: payer and payee agree on the amount, in time, and are two wallets.

No I/O: the same rules for a payment, an item of a batch and a quote.
"""

from datetime import datetime

from engine.domain.errors import Invalid
from engine.domain.ids import WalletId
from engine.domain.money import Msat


def agree_amount(asked_msat: Msat | None, expires_at: datetime | None, amount_msat: Msat | None, now: datetime) -> Msat:
    """The amount that the payee asks for until `expires_at`, else the payer's.

    Raises Invalid: `invoice_expired`, `amount_required` when nobody names one, `amount_mismatch` when they differ.
    """
    if expires_at is not None and expires_at <= now:
        at = expires_at.isoformat()
        raise Invalid("This invoice has expired; ask for a new one.", code="invoice_expired", expired_at=at)
    if asked_msat is None and amount_msat is None:
        raise Invalid("Say how much: the destination names no amount.", code="amount_required", field="amount_msat")
    if asked_msat is not None and amount_msat not in {None, asked_msat}:
        raise Invalid(
            "The payee asks for another amount; leave amount_msat out, or give the same.",
            code="amount_mismatch",
            invoice_amount_msat=asked_msat,
        )
    return asked_msat or amount_msat or Msat(0)


def refuse_self_payment(payee: WalletId | None, payer: WalletId) -> None:
    """Raises Invalid (`self_payment`) when the destination is the wallet that would pay it."""
    if payee == payer:
        raise Invalid("The destination is the wallet that would pay it.", code="self_payment")
