"""What a destination means here and now: whose wallet or which invoice it is, and what it asks for.

The shape is read first (engine/domain/destinations.py), then the invoice itself (engine/clients/bolt11.py), and only
then our own books: an invoice is one of ours when its payment hash is, and then it must be that very invoice, letter by
letter, so that nobody can put another amount or description around a hash of ours.
"""

from dataclasses import dataclass
from datetime import datetime

from api.deps import Services, no_such
from engine.clients import bolt11
from engine.domain.destinations import Invoice, Username, WalletRef, read_destination
from engine.domain.errors import Invalid
from engine.domain.ids import WalletId
from engine.domain.money import Msat
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Either an invoice, or a wallet of ours. An invoice of ours has both."""

    text: str
    """The destination in its plainest form: the invoice in lower case, `@name` or `wallet:<id>` as it was given."""
    invoice: bolt11.Bolt11 | None = None
    wallet_id: WalletId | None = None
    """Set when the money stays with us."""
    username: str | None = None

    @property
    def is_ours(self) -> bool:
        """Whether paying it moves money between two wallets of ours, and the network has no part in it."""
        return self.wallet_id is not None


async def resolve(services: Services, text: str) -> Resolved:
    """Look the destination up. Raises Invalid for what cannot be paid by anybody, and NotFound for who is not here."""
    destination = read_destination(text)
    match destination:
        case Invoice():
            invoice = bolt11.decode(destination.bolt11, network=services.settings.bitcoin_network)
            async with services.reading() as conn:
                return Resolved(text=invoice.bolt11, invoice=invoice, wallet_id=await _owner(conn, invoice))
        case Username():
            async with services.reading() as conn:
                wallet_id = await _wallet_of_user(conn, destination.name)
            return Resolved(text=text, wallet_id=wallet_id, username=destination.name)
        case WalletRef():
            async with services.reading() as conn:
                return Resolved(text=text, wallet_id=await _existing_wallet(conn, destination.wallet_id))


def amount_to_pay(resolved: Resolved, amount_msat: Msat | None, now: datetime) -> Msat:
    """The amount, from the caller or from the invoice. Raises Invalid when they do not agree, or it is too late."""
    asked_msat = resolved.invoice.amount_msat if resolved.invoice else None
    if resolved.invoice and resolved.invoice.expires_at <= now:
        at = resolved.invoice.expires_at.isoformat()
        raise Invalid("This invoice has expired; ask for a new one.", code="invoice_expired", expired_at=at)
    if asked_msat is None and amount_msat is None:
        raise Invalid("Say how much: the destination names no amount.", code="amount_required", field="amount_msat")
    if asked_msat is not None and amount_msat not in {None, asked_msat}:
        raise Invalid(
            "The invoice asks for another amount; leave amount_msat out, or give the same.",
            code="amount_mismatch",
            invoice_amount_msat=asked_msat,
        )
    return asked_msat or amount_msat or Msat(0)


async def _owner(conn: Connection, invoice: bolt11.Bolt11) -> WalletId | None:
    with translated():
        ours = await conn.fetchrow(
            "SELECT bolt11, wallet_id FROM bank.invoices WHERE payment_hash = $1", invoice.payment_hash
        )
    if ours is None:
        return None
    if ours["bolt11"] != invoice.bolt11:
        raise Invalid("This is not the invoice that was made for its payment hash.", code="invalid_destination")
    return WalletId(ours["wallet_id"])


async def _wallet_of_user(conn: Connection, name: str) -> WalletId:
    with translated():
        wallet_id: str | None = await conn.fetchval(
            """SELECT w.id FROM bank.wallets w JOIN bank.accounts a ON a.id = w.account_id
                WHERE lower(a.username) = lower($1) AND w.currency = 'BTC'""",
            name,
        )
    if wallet_id is None:
        raise no_such("user")
    return WalletId(wallet_id)


async def _existing_wallet(conn: Connection, wallet_id: WalletId) -> WalletId:
    with translated():
        if not await conn.fetchval("SELECT true FROM bank.wallets WHERE id = $1", wallet_id):
            raise no_such("wallet")
    return wallet_id
