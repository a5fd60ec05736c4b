"""What the items of a batch mean: whose wallet or which invoice of ours each pays, looked up for all of them together.

At most three statements, one per kind of destination. An invoice is ours when its payment hash is, and then it must be
that very invoice, letter by letter; so only the hash is read from it, and the row says the rest. Everything that is not
clearly ours is refused with the place of its item, from 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field

from api.body import AmountMsat, Content, Memo, Text
from api.destination import agree, at_home
from engine.clients import bolt11
from engine.contracts.batch import BatchItem
from engine.domain.destinations import (
    MAX_LENGTH,
    Destination,
    Invoice,
    LightningAddress,
    Lnurl,
    Username,
    WalletRef,
    read_destination,
)
from engine.domain.errors import Invalid
from engine.domain.ids import PaymentHash, WalletId
from engine.domain.money import Msat
from engine.ledger.database import Connection, translated
from engine.settings import ApiSettings


class BatchItemIn(Content):
    """Whom to pay, and how much."""

    destination: Annotated[Text, Field(min_length=1, max_length=MAX_LENGTH)] = Field(
        description="`@username` (also as our lightning address), `wallet:<id>`, or an invoice of this bank."
    )
    amount_msat: AmountMsat | None = Field(default=None, description="Required where the destination names none.")
    memo: Memo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Invoice:
    """An invoice of ours."""

    payment_hash: PaymentHash
    bolt11: str
    wallet_id: WalletId
    amount_msat: Msat | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class _Known:
    """All that any of the items names and that is there."""

    users: Mapping[str, WalletId]
    wallets: frozenset[WalletId]
    invoices: Mapping[PaymentHash, _Invoice]


async def read_items(
    conn: Connection, settings: ApiSettings, payer: WalletId, asked: Sequence[BatchItemIn], now: datetime
) -> list[BatchItem]:
    """Each item, checked, in their order. Raises Invalid with the first that cannot be paid as `item`, from 0."""
    destinations = [_read(settings, place, item.destination) for place, item in enumerate(asked)]
    hashes = [bolt11.find_payment_hash(each.bolt11) if isinstance(each, Invoice) else None for each in destinations]
    known = await _look_up(conn, destinations, {each for each in hashes if each is not None})
    items: list[BatchItem] = []
    for place, (item, destination, payment_hash) in enumerate(zip(asked, destinations, hashes, strict=True)):
        try:
            invoice = None
            if isinstance(destination, Invoice):
                invoice = _ours(
                    destination, None if payment_hash is None else known.invoices.get(payment_hash), settings
                )
            items.append(_checked(item, _payee(destination, invoice, known), payer, invoice, now))
        except Invalid as error:
            raise _at(place, error) from error
    return items


def _read(settings: ApiSettings, place: int, text: str) -> Destination:
    try:
        return at_home(settings, read_destination(text))
    except Invalid as error:
        raise _at(place, error) from error


def _payee(destination: Destination, invoice: _Invoice | None, known: _Known) -> WalletId | None:
    match destination:
        case Username():
            return known.users.get(destination.name.lower())
        case WalletRef():
            return destination.wallet_id if destination.wallet_id in known.wallets else None
        case Invoice() | LightningAddress() | Lnurl():
            return None if invoice is None else invoice.wallet_id


def _checked(
    item: BatchItemIn, wallet_id: WalletId | None, payer: WalletId, invoice: _Invoice | None, now: datetime
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


def _ours(destination: Invoice, invoice: _Invoice | None, settings: ApiSettings) -> _Invoice:
    """Raises Invalid: for what is no invoice in the words of the reader, for one of somebody else in ours."""
    uniform = destination.bolt11 in {destination.bolt11.lower(), destination.bolt11.upper()}
    if invoice is None or invoice.bolt11 != destination.bolt11.lower() or not uniform:
        bolt11.decode(destination.bolt11, network=settings.bitcoin_network)
        raise Invalid("This is no invoice of this bank, and a batch pays nobody else.", code="invalid_destination")
    return invoice


async def _look_up(conn: Connection, destinations: Sequence[Destination], hashes: set[PaymentHash]) -> _Known:
    names = {each.name.lower() for each in destinations if isinstance(each, Username)}
    wallets = {each.wallet_id for each in destinations if isinstance(each, WalletRef)}
    return _Known(
        await _find_users(conn, names) if names else {},
        await _find_wallets(conn, wallets) if wallets else frozenset(),
        await _find_invoices(conn, hashes) if hashes else {},
    )


async def _find_users(conn: Connection, names: set[str]) -> dict[str, WalletId]:
    with translated():
        rows = await conn.fetch(
            """SELECT lower(a.username) AS name, w.id FROM bank.accounts a JOIN bank.wallets w ON w.account_id = a.id
                WHERE lower(a.username) = ANY($1) AND w.currency = 'BTC'""",
            list(names),
        )
    return {row["name"]: WalletId(row["id"]) for row in rows}


async def _find_wallets(conn: Connection, wallets: set[WalletId]) -> frozenset[WalletId]:
    with translated():
        rows = await conn.fetch("SELECT id FROM bank.wallets WHERE id = ANY($1)", list(wallets))
    return frozenset(WalletId(row["id"]) for row in rows)


async def _find_invoices(conn: Connection, hashes: set[PaymentHash]) -> dict[PaymentHash, _Invoice]:
    with translated():
        rows = await conn.fetch(
            """SELECT payment_hash, bolt11, wallet_id, amount_msat, expires_at FROM bank.invoices
                WHERE payment_hash = ANY($1)""",
            list(hashes),
        )
    return {PaymentHash(row["payment_hash"]): _Invoice(**row) for row in rows}


def _at(place: int, error: Invalid) -> Invalid:
    return Invalid(f"Item {place}: {error.detail}", code=error.code, **{**error.fields, "item": place})
