"""The items of a batch, with the wallet or invoice of the bank that each pays, looked up together.

A destination that is not clearly internal (`engine/bank/internal_payee.py`) is refused with the place of its item, from
0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.service.destination import as_internal
from engine.bank.internal_payee import OwnInvoice, find_internal_payees
from engine.clients import bolt11
from engine.contracts.batch import BatchItem
from engine.domain.amount_to_pay import agree_amount, refuse_self_payment
from engine.domain.destination import Destination, Invoice, read_destination
from engine.domain.errors import Invalid
from engine.domain.ids import WalletId
from engine.domain.money import Msat
from engine.ledger.database import Connection
from engine.settings import ApiSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItemOrder:
    """Whom to pay, and how much."""

    destination: str
    amount_msat: Msat | None = None
    """Required where the destination names no amount."""
    memo: str | None = None


async def read_items(
    conn: Connection, settings: ApiSettings, payer: WalletId, asked: Sequence[BatchItemOrder], now: datetime
) -> list[BatchItem]:
    """Each item, checked, in their order. Raises Invalid for the first that cannot be paid; `item` is its place."""
    destinations = [_read(settings, place, item.destination) for place, item in enumerate(asked)]
    payees = await find_internal_payees(conn, destinations)
    items: list[BatchItem] = []
    for place, (item, destination) in enumerate(zip(asked, destinations, strict=True)):
        try:
            invoice = payees.invoice(destination)
            if isinstance(destination, Invoice) and invoice is None:
                raise _not_internal(destination, settings)
            items.append(_checked(item, payees.wallet_id(destination), payer, invoice, now))
        except Invalid as error:
            raise _at(place, error) from error
    return items


def _read(settings: ApiSettings, place: int, text: str) -> Destination:
    try:
        return as_internal(settings, read_destination(text))
    except Invalid as error:
        raise _at(place, error) from error


def _checked(
    item: BatchItemOrder, wallet_id: WalletId | None, payer: WalletId, invoice: OwnInvoice | None, now: datetime
) -> BatchItem:
    if wallet_id is None:
        raise Invalid(
            "This is no user or wallet of this bank, and a batch pays nobody else.", code="invalid_destination"
        )
    refuse_self_payment(wallet_id, payer)
    asked_msat, expires_at = (invoice.amount_msat, invoice.expires_at) if invoice else (None, None)
    return BatchItem(
        destination=invoice.bolt11 if invoice else item.destination,
        payee_wallet_id=None if invoice else wallet_id,
        payment_hash=invoice.payment_hash if invoice else None,
        amount_in_invoice=asked_msat is not None,
        amount_msat=agree_amount(asked_msat, expires_at, item.amount_msat, now),
        memo=item.memo,
    )


def _not_internal(destination: Invoice, settings: ApiSettings) -> Invalid:
    """The refusal of an invoice that is not ours. Raises the reader's error for a text that is no invoice."""
    bolt11.decode(destination.bolt11, network=settings.bitcoin_network)
    return Invalid("This is no invoice of this bank, and a batch pays nobody else.", code="invalid_destination")


def _at(place: int, error: Invalid) -> Invalid:
    return Invalid(f"Item {place}: {error.detail}", code=error.code, **{**error.fields, "item": place})
