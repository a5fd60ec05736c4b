"""Resolving a destination: the wallet or invoice that it names, and the amount that the payee asks for.

    1. the shape of the text     `engine/domain/destination.py`
    2. the invoice               `engine/clients/bolt11.py`
    3. the payees of the bank    `engine/bank/internal_payee.py`

A lightning address or LNURL of our own domain names one of our users. Any other one is asked for its offer, and
`with_invoice` asks for the invoice, which is then paid like any invoice. A node's public key is paid without an invoice
(keysend), where the settings allow it.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from api.service.auth import no_such
from api.service.resources import Resources
from engine.bank.internal_payee import (
    InternalPayees,
    OwnInvoice,
    find_internal_payees,
    find_invoice_wallet,
    refuse_own_node,
)
from engine.clients import bolt11
from engine.clients.lnurl.payee import Offer, ask_for_invoice, check_amount, look_up, look_up_address
from engine.domain.destination import (
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
from engine.domain.ids import WalletId
from engine.domain.limit import Kind
from engine.domain.lnurl import address_path
from engine.domain.money import Msat
from engine.domain.username import is_username
from engine.settings import ApiSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a destination names: an invoice, a wallet of the bank, or both for an invoice of the bank."""

    text: str
    """The destination as text: invoice, LNURL and address in lower case, `@name` or `wallet:<id>` as given."""
    invoice: bolt11.Bolt11 | None = None
    known: OwnInvoice | None = None
    """The row of an invoice of the bank, in place of the parsed invoice."""
    wallet_id: WalletId | None = None
    """Set when the payment is internal."""
    username: str | None = None
    offer: Offer | None = None
    """The offer of a payee outside, who must be asked for an invoice."""
    success_action: dict[str, str] | None = None
    """What the payee of an offer shows to the payer after the payment (LUD-09, LUD-10)."""
    payee_node: str | None = None
    """The public key of a node that is paid without an invoice."""

    @property
    def asked_msat(self) -> Msat | None:
        """The amount that the payee asks for; None when the payer chooses it."""
        if self.request is not None:
            return self.request.amount_msat
        return self.offer.fixed_msat if self.offer else None

    @property
    def request(self) -> bolt11.Bolt11 | OwnInvoice | None:
        """The invoice, parsed or from its row."""
        return self.invoice or self.known

    @property
    def kind(self) -> Kind:
        """The kind of a payment to it, by which limits are counted."""
        return "internal" if self.is_internal else "lightning"

    @property
    def is_internal(self) -> bool:
        """Whether the payment is internal: it moves money between two wallets of the bank."""
        return self.wallet_id is not None


async def resolve(resources: Resources, text: str) -> Resolved:
    """Look the destination up. Raises Invalid for what nobody can pay, and NotFound for an unknown user or wallet.

    The server of an address outside is asked for its offer: Unavailable (`destination_unavailable`) when it is away.
    """
    destination = as_internal(resources.settings, read_destination(text))
    match destination:
        case Invoice():
            invoice = bolt11.decode(destination.bolt11, network=resources.settings.bitcoin_network)
            async with resources.reading() as conn:
                return Resolved(
                    text=invoice.bolt11, invoice=invoice, wallet_id=await find_invoice_wallet(conn, invoice)
                )
        case Username() | WalletRef():
            async with resources.reading() as conn:
                resolved = resolve_internal(text, destination, await find_internal_payees(conn, [destination]))
            if resolved is None:
                raise no_such("user" if isinstance(destination, Username) else "wallet")
            return resolved
        case NodeKey(pubkey):
            if not resources.settings.keysend:
                raise Invalid("This bank pays no node without an invoice.", code="keysend_disabled")
            async with resources.reading() as conn:
                await refuse_own_node(conn, pubkey)
            return Resolved(text=pubkey, payee_node=pubkey)
        case LightningAddress(name, domain):
            return Resolved(text=text.lower(), offer=await look_up_address(resources.web, name, domain))
        case Lnurl():
            return Resolved(text=destination.lnurl, offer=await look_up(resources.web, destination.url))


def resolve_internal(text: str, destination: Destination | None, payees: InternalPayees) -> Resolved | None:
    """As `resolve`, for a destination among these payees. None for any other destination."""
    wallet_id = payees.wallet_id(destination)
    if wallet_id is None:
        return None
    invoice = payees.invoice(destination)
    username = destination.name if isinstance(destination, Username) else None
    return Resolved(text=invoice.bolt11 if invoice else text, known=invoice, wallet_id=wallet_id, username=username)


async def with_invoice(
    resources: Resources, resolved: Resolved, amount_msat: Msat | None, comment: str | None
) -> Resolved:
    """The same with the invoice that the offer gives for this amount; without an offer, the same.

    Each call asks for another invoice. Raises Invalid, Unavailable.
    """
    if resolved.offer is None:
        return resolved
    asked_msat = amount_to_pay(resolved, amount_msat)
    network = resources.settings.bitcoin_network
    given = await ask_for_invoice(resources.web, resolved.offer, asked_msat, comment, network=network)
    async with resources.reading() as conn:
        wallet_id = await find_invoice_wallet(conn, given.invoice)
    return replace(resolved, invoice=given.invoice, success_action=given.success_action, wallet_id=wallet_id)


def refuse_self_payment(payee: WalletId | None, payer: WalletId) -> None:
    """Raises Invalid (`self_payment`) when the destination is the wallet that would pay it."""
    if payee == payer:
        raise Invalid("The destination is the wallet that would pay it.", code="self_payment")


def amount_to_pay(resolved: Resolved, amount_msat: Msat | None) -> Msat:
    """The amount, from the payer or the payee. Raises Invalid when they disagree, or the invoice has expired."""
    expires_at = resolved.request.expires_at if resolved.request else None
    found_msat = agree(resolved.asked_msat, expires_at, amount_msat, datetime.now(UTC))
    if resolved.offer is not None:
        check_amount(resolved.offer, found_msat)
    return found_msat


def agree(asked_msat: Msat | None, expires_at: datetime | None, amount_msat: Msat | None, now: datetime) -> Msat:
    """The amount that the payee asks for until `expires_at`, or the payer's. Raises Invalid as `amount_to_pay`."""
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


def as_internal(settings: ApiSettings, destination: Destination) -> Destination:
    """A lightning address or LNURL of our own domain as the user that it names; any other destination as it is."""
    match destination:
        case LightningAddress(name, domain) if domain == settings.domain:
            return _own_user(name)
        case Lnurl(_, url) if url.startswith(f"{settings.public_url}/"):
            return _own_user(url.removeprefix(settings.public_url + address_path("")))
    return destination


def _own_user(name: str) -> Username:
    if not is_username(name):
        raise Invalid("This names nobody at our own domain who could be paid.", code="invalid_destination")
    return Username(name)
