"""The payees within the bank: the users, wallets, invoices and addresses that destinations name.

Most payments are internal, so many destinations are looked up in one call. An invoice is known by its payment hash and
must be letter by letter the invoice that was made for that hash: nobody can put another amount or description around
it. Its signature is not checked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.bank.chain.address import find_owners
from engine.clients import bolt11
from engine.domain.destination import Destination, Invoice, OnChain, Username, WalletRef
from engine.domain.errors import Invalid
from engine.domain.ids import PaymentHash, WalletId
from engine.domain.money import Msat
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnInvoice:
    """The row of an invoice of this bank."""

    payment_hash: PaymentHash
    bolt11: str
    wallet_id: WalletId
    amount_msat: Msat | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class InternalPayees:
    """The users, wallets, invoices and addresses that some destinations name."""

    users: Mapping[str, WalletId]
    wallets: frozenset[WalletId]
    invoices: Mapping[str, OwnInvoice]
    """By their text."""
    addresses: Mapping[str, WalletId]

    def invoice(self, destination: Destination | None) -> OwnInvoice | None:
        """The invoice that the destination is, letter by letter, all in lower or all in upper case."""
        if not isinstance(destination, Invoice):
            return None
        text = destination.bolt11.lower()
        return self.invoices.get(text) if destination.bolt11 in {text, text.upper()} else None

    def wallet_id(self, destination: Destination | None) -> WalletId | None:
        """The wallet that an internal payment to the destination would go to."""
        match destination:
            case Username():
                return self.users.get(destination.name.lower())
            case WalletRef():
                return destination.wallet_id if destination.wallet_id in self.wallets else None
            case OnChain():
                return self.addresses.get(destination.address.text)
            case _:
                invoice = self.invoice(destination)
                return invoice.wallet_id if invoice else None


async def find_internal_payees(conn: Connection, destinations: Sequence[Destination | None]) -> InternalPayees:
    """The payees of all these destinations, in at most one statement for each kind."""
    names = {each.name.lower() for each in destinations if isinstance(each, Username)}
    wallets = {each.wallet_id for each in destinations if isinstance(each, WalletRef)}
    hashes = {bolt11.find_payment_hash(each.bolt11) for each in destinations if isinstance(each, Invoice)} - {None}
    addresses = {each.address.text for each in destinations if isinstance(each, OnChain)}
    with translated():
        return InternalPayees(
            await _find_users(conn, names) if names else {},
            await _find_wallets(conn, wallets) if wallets else frozenset(),
            await _find_invoices(conn, hashes) if hashes else {},
            await find_owners(conn, list(addresses)) if addresses else {},
        )


async def is_own_invoice(conn: Connection, payment_hash: PaymentHash) -> bool:
    """Whether the payment hash is that of an invoice of this bank."""
    with translated():
        found: bool = await conn.fetchval(
            "SELECT EXISTS (SELECT FROM bank.invoices WHERE payment_hash = $1)", payment_hash
        )
    return found


async def find_own_wallet(conn: Connection, invoice: bolt11.Bolt11 | None, payee_node: str | None) -> WalletId | None:
    """The wallet that an invoice pays, if the invoice is one of this bank; None for any other payee.

    Raises Invalid for another invoice around a payment hash of this bank. Also for the bank's own node, by an invoice
    that no user has made or by its public key: the payment would be circular, and cost the user routing fees.
    """
    if invoice is not None:
        with translated():
            row = await conn.fetchrow(
                "SELECT bolt11, wallet_id FROM bank.invoices WHERE payment_hash = $1", invoice.payment_hash
            )
        if row is not None and row["bolt11"] == invoice.bolt11:
            return WalletId(row["wallet_id"])
        if row is not None:
            raise Invalid("This is not the invoice that was made for its payment hash.", code="invalid_destination")
    with translated():
        own = await conn.fetchval(
            "SELECT name FROM bank.nodes WHERE pubkey = $1", invoice.payee if invoice else payee_node
        )
    if own is not None:
        raise Invalid("This pays the bank's own node, and none of its users.", code="invalid_destination")
    return None


async def _find_users(conn: Connection, names: set[str]) -> dict[str, WalletId]:
    rows = await conn.fetch(
        """SELECT lower(a.username) AS name, w.id FROM bank.accounts a JOIN bank.wallets w ON w.account_id = a.id
            WHERE lower(a.username) = ANY($1) AND w.currency = 'BTC'""",
        list(names),
    )
    return {row["name"]: WalletId(row["id"]) for row in rows}


async def _find_wallets(conn: Connection, wallets: set[WalletId]) -> frozenset[WalletId]:
    rows = await conn.fetch("SELECT id FROM bank.wallets WHERE id = ANY($1)", list(wallets))
    return frozenset(WalletId(row["id"]) for row in rows)


async def _find_invoices(conn: Connection, hashes: set[PaymentHash | None]) -> dict[str, OwnInvoice]:
    rows = await conn.fetch(
        """SELECT payment_hash, bolt11, wallet_id, amount_msat, expires_at FROM bank.invoices
            WHERE payment_hash = ANY($1)""",
        list(hashes),
    )
    return {row["bolt11"]: OwnInvoice(**row) for row in rows}
