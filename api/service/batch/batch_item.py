"""The items of a batch, with the wallet or invoice of the bank that each pays, looked up together.

A destination that is not clearly internal (`engine/bank/internal_payee.py`) is refused with the place of its item, from
0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.service.destination import as_internal
from engine.bank.internal_payee import InternalPayees, OwnInvoice, find_internal_payees
from engine.clients import bolt11
from engine.contracts.batch import BatchItem
from engine.domain.amount_to_pay import agree_amount, refuse_self_payment
from engine.domain.destination import Destination, Invoice, OnChain, read_destination
from engine.domain.errors import Invalid
from engine.domain.ids import WalletId
from engine.domain.money import Msat
from engine.ledger.database import Connection
from engine.settings import ApiSettings

_NOT_OURS = "invalid_destination"


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
            items.append(_checked(item, _payee(destination, payees, settings), payer, now))
        except Invalid as error:
            raise _at(place, error) from error
    return items


def _read(settings: ApiSettings, place: int, text: str) -> Destination:
    try:
        return as_internal(settings, read_destination(text))
    except Invalid as error:
        raise _at(place, error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Payee:
    """A wallet of the bank, and what its invoice or the URI of its address asks for."""

    wallet_id: WalletId
    invoice: OwnInvoice | None = None
    address: str | None = None
    asked_msat: Msat | None = None


def _payee(destination: Destination, payees: InternalPayees, settings: ApiSettings) -> _Payee:
    wallet_id, invoice = payees.wallet_id(destination), payees.invoice(destination)
    if isinstance(destination, Invoice) and invoice is None:
        raise _not_internal(destination, settings)
    if wallet_id is None:
        raise (
            destination.refusal(settings.bitcoin_network)
            if isinstance(destination, OnChain)
            else Invalid("This is no user or wallet of this bank, and a batch pays nobody else.", code=_NOT_OURS)
        )
    if isinstance(destination, OnChain):
        return _Payee(wallet_id=wallet_id, address=destination.address.text, asked_msat=destination.amount_msat)
    return _Payee(wallet_id=wallet_id, invoice=invoice, asked_msat=invoice.amount_msat if invoice else None)


def _checked(item: BatchItemOrder, payee: _Payee, payer: WalletId, now: datetime) -> BatchItem:
    refuse_self_payment(payee.wallet_id, payer)
    invoice = payee.invoice
    return BatchItem(
        destination=invoice.bolt11 if invoice else payee.address or item.destination,
        payee_wallet_id=None if invoice else payee.wallet_id,
        payment_hash=invoice.payment_hash if invoice else None,
        amount_in_invoice=invoice is not None and invoice.amount_msat is not None,
        amount_msat=agree_amount(payee.asked_msat, invoice.expires_at if invoice else None, item.amount_msat, now),
        memo=item.memo,
    )


def _not_internal(destination: Invoice, settings: ApiSettings) -> Invalid:
    """The refusal of an invoice that is not ours. Raises the reader's error for a text that is no invoice."""
    bolt11.decode(destination.bolt11, network=settings.bitcoin_network)
    return Invalid("This is no invoice of this bank, and a batch pays nobody else.", code=_NOT_OURS)


def _at(place: int, error: Invalid) -> Invalid:
    return Invalid(f"Item {place}: {error.detail}", code=error.code, **{**error.fields, "item": place})
