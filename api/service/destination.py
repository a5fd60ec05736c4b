"""What a destination means here and now: whose wallet or which invoice it is, and what it asks for.

The shape is read first (engine/domain/destinations.py), then the invoice itself (engine/clients/bolt11.py), and only
then our own books: an invoice is one of ours when its payment hash is, and then it must be that very invoice, letter by
letter, so that nobody can put another amount or description around a hash of ours.

A node's public key is paid without an invoice (keysend), where the settings say so.

A lightning address or an LNURL of our own domain is one of our users. Any other is asked what it takes, which gives an
offer, and `with_invoice` asks it for the invoice: from then on the payment is one of that invoice.

Most payments stay with us, so what our books have of many destinations is read together (`find_ours`); an invoice is
then known by its hash and its letters, and its signature is not checked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from api.service import payment_run
from api.service.auth import no_such
from api.service.resources import Resources
from engine.clients import bolt11
from engine.clients.lnurl.payee import Offer, ask_for_invoice, check_amount, look_up, look_up_address
from engine.contracts import workflow_ids
from engine.domain.destinations import (
    Destination,
    Invoice,
    LightningAddress,
    Lnurl,
    NodeKey,
    Username,
    WalletRef,
    read_destination,
)
from engine.domain.errors import Invalid
from engine.domain.ids import AccountId, PaymentHash, WalletId
from engine.domain.lnurl import address_path
from engine.domain.money import Msat
from engine.domain.usernames import is_username
from engine.ledger.database import Connection, translated
from engine.settings import ApiSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class OurInvoice:
    """An invoice of ours, as our books have it."""

    payment_hash: PaymentHash
    bolt11: str
    wallet_id: WalletId
    amount_msat: Msat | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Ours:
    """What our books have of some destinations."""

    users: Mapping[str, WalletId]
    wallets: frozenset[WalletId]
    invoices: Mapping[str, OurInvoice]
    """By their text."""

    def invoice(self, destination: Destination | None) -> OurInvoice | None:
        """The invoice of ours that this is, letter by letter, all in lower or all in upper case."""
        if not isinstance(destination, Invoice):
            return None
        text = destination.bolt11.lower()
        return self.invoices.get(text) if destination.bolt11 in {text, text.upper()} else None

    def wallet_id(self, destination: Destination | None) -> WalletId | None:
        """Where money for it goes, if it stays with us."""
        match destination:
            case Username():
                return self.users.get(destination.name.lower())
            case WalletRef():
                return destination.wallet_id if destination.wallet_id in self.wallets else None
            case _:
                invoice = self.invoice(destination)
                return invoice.wallet_id if invoice else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Either an invoice, or a wallet of ours. An invoice of ours has both."""

    text: str
    """The destination in its plainest form: invoice, LNURL and address in lower case, `@name` or `wallet:<id>` as it
    was given."""
    invoice: bolt11.Bolt11 | None = None
    known: OurInvoice | None = None
    """In place of an invoice of ours that was read: its row."""
    wallet_id: WalletId | None = None
    """Set when the money stays with us."""
    username: str | None = None
    offer: Offer | None = None
    """What somebody outside takes, who must be asked for an invoice."""
    success_action: dict[str, str] | None = None
    """What the payee of an offer shows to whoever has paid him."""
    payee_node: str | None = None
    """The node that is paid without an invoice."""

    @property
    def asked_msat(self) -> Msat | None:
        """What the payee asks for; None when the payer chooses."""
        if self.request is not None:
            return self.request.amount_msat
        return self.offer.fixed_msat if self.offer else None

    @property
    def request(self) -> bolt11.Bolt11 | OurInvoice | None:
        """The invoice, whether it was read or known."""
        return self.invoice or self.known

    @property
    def is_ours(self) -> bool:
        """Whether paying it moves money between two wallets of ours, and the network has no part in it."""
        return self.wallet_id is not None


async def resolve(resources: Resources, text: str) -> Resolved:
    """Look the destination up. Raises Invalid for what cannot be paid by anybody, and NotFound for who is not here.

    Whoever serves an address outside is asked for his offer: Unavailable (`destination_unavailable`) when he is away.
    """
    destination = at_home(resources.settings, read_destination(text))
    match destination:
        case Invoice():
            invoice = bolt11.decode(destination.bolt11, network=resources.settings.bitcoin_network)
            async with resources.reading() as conn:
                return Resolved(text=invoice.bolt11, invoice=invoice, wallet_id=await _owner(conn, invoice))
        case Username() | WalletRef():
            async with resources.reading() as conn:
                resolved = at_hand(text, destination, await find_ours(conn, [destination]))
            if resolved is None:
                raise no_such("user" if isinstance(destination, Username) else "wallet")
            return resolved
        case NodeKey(pubkey):
            if not resources.settings.keysend:
                raise Invalid("This bank pays no node without an invoice.", code="keysend_disabled")
            async with resources.reading() as conn:
                await _refuse_own_node(conn, pubkey)
            return Resolved(text=pubkey, payee_node=pubkey)
        case LightningAddress(name, domain):
            return Resolved(text=text.lower(), offer=await look_up_address(resources.web, name, domain))
        case Lnurl():
            return Resolved(text=destination.lnurl, offer=await look_up(resources.web, destination.url))


async def find_ours(conn: Connection, destinations: Sequence[Destination | None]) -> Ours:
    """What our books have of them: at most three statements, one per kind."""
    names = {each.name.lower() for each in destinations if isinstance(each, Username)}
    wallets = {each.wallet_id for each in destinations if isinstance(each, WalletRef)}
    hashes = {bolt11.find_payment_hash(each.bolt11) for each in destinations if isinstance(each, Invoice)} - {None}
    with translated():
        return Ours(
            await _find_users(conn, names) if names else {},
            await _find_wallets(conn, wallets) if wallets else frozenset(),
            await _find_invoices(conn, hashes) if hashes else {},
        )


def at_hand(text: str, destination: Destination | None, ours: Ours) -> Resolved | None:
    """The same as `resolve` says, of what stays with us and was looked up already. None for everything else."""
    wallet_id = ours.wallet_id(destination)
    if wallet_id is None:
        return None
    invoice = ours.invoice(destination)
    username = destination.name if isinstance(destination, Username) else None
    return Resolved(text=invoice.bolt11 if invoice else text, known=invoice, wallet_id=wallet_id, username=username)


async def with_invoice(
    resources: Resources, resolved: Resolved, amount_msat: Msat | None, comment: str | None
) -> Resolved:
    """The same with the invoice that an offer gives for this amount; what is no offer stays as it is.

    Each call asks for another invoice. Raises Invalid, Unavailable.
    """
    if resolved.offer is None:
        return resolved
    asked_msat = amount_to_pay(resolved, amount_msat, datetime.now(UTC))
    network = resources.settings.bitcoin_network
    given = await ask_for_invoice(resources.web, resolved.offer, asked_msat, comment, network=network)
    async with resources.reading() as conn:
        wallet_id = await _owner(conn, given.invoice)
    return replace(resolved, invoice=given.invoice, success_action=given.success_action, wallet_id=wallet_id)


async def is_under_way(resources: Resources, account_id: AccountId, key: str, text: str) -> bool:
    """Whether a payment with this key, to somebody who would have to be asked, has been accepted already.

    Then nobody is asked for a second invoice. Says nothing of destinations that nobody is asked about: there a repeat
    finds the first by itself.
    """
    if not isinstance(at_home(resources.settings, read_destination(text)), LightningAddress | Lnurl):
        return False
    workflow_id = workflow_ids.payment(account_id, key)
    return await payment_run.find_started(resources.temporal, workflow_id) is not None


def amount_to_pay(resolved: Resolved, amount_msat: Msat | None, now: datetime) -> Msat:
    """The amount, from the caller or from the payee. Raises Invalid when they do not agree, or it is too late."""
    found_msat = agree(resolved.asked_msat, resolved.request.expires_at if resolved.request else None, amount_msat, now)
    if resolved.offer is not None:
        check_amount(resolved.offer, found_msat)
    return found_msat


def agree(asked_msat: Msat | None, expires_at: datetime | None, amount_msat: Msat | None, now: datetime) -> Msat:
    """The amount: what the payee asks for until then, or what the caller gives. Raises Invalid as `amount_to_pay`."""
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


def at_home(settings: ApiSettings, destination: Destination) -> Destination:
    """What names one of our users by our own domain is that user; everything else is what it was."""
    match destination:
        case LightningAddress(name, domain) if domain == settings.domain:
            return _our_user(name)
        case Lnurl(_, url) if url.startswith(f"{settings.public_url}/"):
            return _our_user(url.removeprefix(settings.public_url + address_path("")))
    return destination


def _our_user(name: str) -> Username:
    if not is_username(name):
        raise Invalid("This names nobody at our own domain who could be paid.", code="invalid_destination")
    return Username(name)


async def _owner(conn: Connection, invoice: bolt11.Bolt11) -> WalletId | None:
    with translated():
        ours = await conn.fetchrow(
            "SELECT bolt11, wallet_id FROM bank.invoices WHERE payment_hash = $1", invoice.payment_hash
        )
    if ours is None:
        await _refuse_own_node(conn, invoice.payee)
        return None
    if ours["bolt11"] != invoice.bolt11:
        raise Invalid("This is not the invoice that was made for its payment hash.", code="invalid_destination")
    return WalletId(ours["wallet_id"])


async def _refuse_own_node(conn: Connection, pubkey: str) -> None:
    """Paying our own node for nobody's invoice would only move the bank's money in a circle, and cost the user."""
    with translated():
        own = await conn.fetchval("SELECT name FROM bank.nodes WHERE pubkey = $1", pubkey)
    if own is not None:
        raise Invalid("This pays the bank's own node, and none of its users.", code="invalid_destination")


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


async def _find_invoices(conn: Connection, hashes: set[PaymentHash | None]) -> dict[str, OurInvoice]:
    rows = await conn.fetch(
        """SELECT payment_hash, bolt11, wallet_id, amount_msat, expires_at FROM bank.invoices
            WHERE payment_hash = ANY($1)""",
        list(hashes),
    )
    return {row["bolt11"]: OurInvoice(**row) for row in rows}
