"""The invoice that a payment URI offers beside the address."""

from api.service.invoice.answer import InvoiceOut, shown
from api.service.resources import Resources
from engine.bank.invoice_row import paid
from engine.bank.payable import cancelled
from engine.domain.errors import Invalid, no_such
from engine.domain.ids import AccountId
from engine.views.invoice import find_invoice


async def find_invoice_of_wallet(
    resources: Resources, account: AccountId, wallet_id: str, invoice_id: str
) -> InvoiceOut:
    """The wallet's invoice, open or not. Raises NotFound."""
    row = await find_invoice(resources.pool, account, invoice_id)
    if row is None or row["wallet_id"] != wallet_id:
        raise no_such("invoice")
    return shown(row)


def require_open(invoice: InvoiceOut) -> None:
    """Raises Refused (`invoice_already_paid`, `invoice_cancelled`) and Invalid (`invoice_expired`)."""
    if invoice.status == "settled":
        raise paid()
    if invoice.status == "cancelled":
        raise cancelled()
    if invoice.status == "expired":
        raise Invalid("This invoice has expired.", code="invoice_expired", expired_at=invoice.expires_at.isoformat())
