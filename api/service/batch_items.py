"""What the items of a batch mean: whose wallet or which invoice of ours each pays, looked up for all of them together.

At most three statements, one per kind of destination. An invoice is ours when its payment hash is, and then it must be
that very invoice, letter by letter; so only the hash is read from it, and the row says the rest. Everything that is not
clearly ours is refused with the place of its item, from 0.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import Field

from api.http.body import AmountMsat, Content, Memo, Text
from api.service.destination import OurInvoice, agree, at_home, find_ours
from engine.clients import bolt11
from engine.contracts.batch import BatchItem
from engine.domain.destinations import (
    MAX_LENGTH,
    Destination,
    Invoice,
    read_destination,
)
from engine.domain.errors import Invalid
from engine.domain.ids import WalletId
from engine.domain.money import Msat
from engine.ledger.database import Connection
from engine.settings import ApiSettings


class BatchItemIn(Content):
    """Whom to pay, and how much."""

    destination: Annotated[Text, Field(min_length=1, max_length=MAX_LENGTH)] = Field(
        description="`@username` (also as our lightning address), `wallet:<id>`, or an invoice of this bank."
    )
    amount_msat: AmountMsat | None = Field(default=None, description="Required where the destination names none.")
    memo: Memo | None = None


async def read_items(
    conn: Connection, settings: ApiSettings, payer: WalletId, asked: Sequence[BatchItemIn], now: datetime
) -> list[BatchItem]:
    """Each item, checked, in their order. Raises Invalid with the first that cannot be paid as `item`, from 0."""
    destinations = [_read(settings, place, item.destination) for place, item in enumerate(asked)]
    ours = await find_ours(conn, destinations)
    items: list[BatchItem] = []
    for place, (item, destination) in enumerate(zip(asked, destinations, strict=True)):
        try:
            invoice = ours.invoice(destination)
            if isinstance(destination, Invoice) and invoice is None:
                raise _not_ours(destination, settings)
            items.append(_checked(item, ours.wallet_id(destination), payer, invoice, now))
        except Invalid as error:
            raise _at(place, error) from error
    return items


def _read(settings: ApiSettings, place: int, text: str) -> Destination:
    try:
        return at_home(settings, read_destination(text))
    except Invalid as error:
        raise _at(place, error) from error


def _checked(
    item: BatchItemIn, wallet_id: WalletId | None, payer: WalletId, invoice: OurInvoice | None, now: datetime
) -> BatchItem:
    if wallet_id is None:
        raise Invalid(
            "This is no user or wallet of this bank, and a batch pays nobody else.", code="invalid_destination"
        )
    if wallet_id == payer:
        raise Invalid("The destination is the wallet that would pay it.", code="self_payment")
    asked_msat, expires_at = (invoice.amount_msat, invoice.expires_at) if invoice else (None, None)
    given = None if item.amount_msat is None else Msat(item.amount_msat)
    return BatchItem(
        destination=invoice.bolt11 if invoice else item.destination,
        payee_wallet_id=None if invoice else wallet_id,
        payment_hash=invoice.payment_hash if invoice else None,
        amount_in_invoice=asked_msat is not None,
        amount_msat=agree(asked_msat, expires_at, given, now),
        memo=item.memo,
    )


def _not_ours(destination: Invoice, settings: ApiSettings) -> Invalid:
    """For what is no invoice in the words of the reader, for one of somebody else in ours."""
    bolt11.decode(destination.bolt11, network=settings.bitcoin_network)
    return Invalid("This is no invoice of this bank, and a batch pays nobody else.", code="invalid_destination")


def _at(place: int, error: Invalid) -> Invalid:
    return Invalid(f"Item {place}: {error.detail}", code=error.code, **{**error.fields, "item": place})
