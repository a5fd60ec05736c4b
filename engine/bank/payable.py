"""Whether an invoice can still be paid, as far as the books know, and the refusals where it cannot.

A quote only looks (`require_payable`). The payment decides when it is opened: it meets the same refusals behind locks
and unique keys.
"""

from engine.domain.errors import Refused
from engine.domain.forced_end import RELEASED
from engine.domain.ids import PaymentHash
from engine.domain.sending import LOST_ATTEMPT
from engine.ledger.database import Connection, translated

NEVER_AGAIN = [LOST_ATTEMPT, RELEASED]
"""Failure codes after which a hash is not tried again: its node would never send it, or could pay it twice."""


def already_paid() -> Refused:
    """Somebody has paid the invoice."""
    return Refused("This invoice has been paid.", code="invoice_already_paid")


def in_progress() -> Refused:
    """A payment of the hash is pending, this user's or another's."""
    return Refused("This invoice is being paid right now.", code="payment_in_progress")


def cancelled() -> Refused:
    """The invoice is one of this bank, and its owner has cancelled it."""
    return Refused("This invoice was cancelled by its owner.", code="invoice_cancelled")


def unpayable() -> Refused:
    """An attempt has ended with a code of `NEVER_AGAIN`."""
    return Refused("A node lost an attempt to pay this invoice; ask for a new one.", code="invoice_unpayable")


async def require_payable(conn: Connection, payment_hash: PaymentHash) -> None:
    """Raises the refusal that a payment of this hash would get now. Takes no lock and promises nothing."""
    with translated():
        (row,) = await conn.fetch(
            """SELECT (SELECT status FROM bank.invoices WHERE payment_hash = $1) AS invoice,
                      coalesce(bool_or(status = 'settled'), false) AS paid,
                      coalesce(bool_or(status = 'pending'), false) AS pending,
                      coalesce(bool_or(failure_code = ANY($2)), false) AS lost
                 FROM bank.payments WHERE payment_hash = $1""",
            payment_hash,
            NEVER_AGAIN,
        )
    if row["paid"] or row["invoice"] == "settled":
        raise already_paid()
    if row["pending"]:
        raise in_progress()
    if row["invoice"] == "cancelled":
        raise cancelled()
    if row["lost"]:
        raise unpayable()
