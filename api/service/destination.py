"""Resolving a destination: the wallet or invoice that it names, and the amount that the payee asks for.

    1. the shape of the text     `engine/domain/destination.py`
    2. the invoice               `engine/clients/bolt11.py`
    3. the payees of the bank    `engine/bank/internal_payee.py`

A lightning address or LNURL of our own domain names one of our users. The server of any other one is asked for its
offer, and `resolve_to_pay` asks it for the invoice, which is then paid like any invoice. A node's public key is paid
without an invoice (keysend), where the settings allow it. An on-chain address of one of our wallets is paid in the
books, like that wallet.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from api.service.resources import Resources
from engine.bank.internal_payee import (
    InternalPayees,
    OwnInvoice,
    find_internal_payees,
    find_own_wallet,
)
from engine.clients import bolt11
from engine.clients.lnurl.payee import Offer, ask_for_invoice, check_amount, look_up, look_up_address
from engine.domain.amount_to_pay import agree_amount, refuse_self_payment
from engine.domain.destination import (
    Destination,
    Invoice,
    LightningAddress,
    Lnurl,
    NodeKey,
    OnChain,
    Username,
    WalletRef,
    read_destination,
)
from engine.domain.errors import Invalid, no_such
from engine.domain.ids import WalletId
from engine.domain.limit import PaymentKind
from engine.domain.lnurl import address_path
from engine.domain.money import Msat
from engine.domain.username import is_username
from engine.settings import ApiSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a destination names: an invoice, a wallet of the bank, or both for an invoice of the bank."""

    text: str
    """The destination as text: invoices, LNURLs and addresses in lower case, `@name` or `wallet:<id>` as given."""
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
    uri_msat: Msat | None = None
    """The amount in the URI of an address."""

    @property
    def asked_msat(self) -> Msat | None:
        """The amount that the payee asks for; None when the payer chooses it."""
        if self.request is not None:
            return self.request.amount_msat
        return self.offer.fixed_msat if self.offer else self.uri_msat

    @property
    def request(self) -> bolt11.Bolt11 | OwnInvoice | None:
        """The invoice, parsed or from its row."""
        return self.invoice or self.known

    @property
    def shown_payee(self) -> str:
        """The payee as operators read it in the Temporal UI."""
        if self.is_internal:
            return f"wallet:{self.wallet_id}" if self.request else self.text
        node = self.invoice.payee if self.invoice else self.payee_node
        return f"{node[:6]}…" if node else self.text

    @property
    def kind(self) -> PaymentKind:
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
    if isinstance(destination, Username | WalletRef | OnChain):
        async with resources.reading() as conn:
            payees = await find_internal_payees(conn, [destination])
        if resolved := _resolve_internal(text, destination, payees):
            return resolved
    resolved = await _resolve_outside(resources, text, destination)
    if resolved.offer is not None:
        return resolved
    async with resources.reading() as conn:
        return replace(resolved, wallet_id=await find_own_wallet(conn, resolved.invoice, resolved.payee_node))


async def resolve_to_pay(
    resources: Resources,
    text: str,
    destination: Destination | None,
    payees: InternalPayees,
    *,
    payer: WalletId,
    amount_msat: Msat | None,
    comment: str | None,
) -> tuple[Resolved, Msat]:
    """The destination as it is paid: with an invoice, where its payee gives one, and the amount.

    `destination` is None for a text that names nothing, and `payees` holds those of this bank that it names. Each call
    asks a payee outside for another invoice. Raises as `resolve` and `amount_to_pay`.
    """
    if destination is None:
        destination = as_internal(resources.settings, read_destination(text))
    resolved = _resolve_internal(text, destination, payees)
    if resolved is None:
        resolved = await _resolve_outside(resources, text, destination)
        if resolved.offer is not None:
            offered_msat = agree_amount(resolved.asked_msat, None, amount_msat, datetime.now(UTC))
            network = resources.settings.bitcoin_network
            given = await ask_for_invoice(resources.web, resolved.offer, offered_msat, comment, network=network)
            resolved = replace(resolved, invoice=given.invoice, success_action=given.success_action)
        async with resources.reading() as conn:
            resolved = replace(resolved, wallet_id=await find_own_wallet(conn, resolved.invoice, resolved.payee_node))
    return resolved, amount_to_pay(resolved, payer, amount_msat)


async def _resolve_outside(resources: Resources, text: str, destination: Destination) -> Resolved:
    """What a destination names that is no known user, wallet or invoice of this bank."""
    match destination:
        case Invoice():
            invoice = bolt11.decode(destination.bolt11, network=resources.settings.bitcoin_network)
            return Resolved(text=invoice.bolt11, invoice=invoice)
        case NodeKey(pubkey):
            if not resources.settings.keysend:
                raise Invalid("This bank pays no node without an invoice.", code="keysend_disabled")
            return Resolved(text=pubkey, payee_node=pubkey)
        case LightningAddress(name, domain):
            return Resolved(text=text.lower(), offer=await look_up_address(resources.web, name, domain))
        case Lnurl():
            return Resolved(text=destination.lnurl, offer=await look_up(resources.web, destination.url))
        case OnChain():
            raise destination.refusal(resources.settings.bitcoin_network)
        case Username():
            raise no_such("user")
        case WalletRef():
            raise no_such("wallet")


def _resolve_internal(text: str, destination: Destination, payees: InternalPayees) -> Resolved | None:
    """What a destination names among these payees; None for any other destination."""
    wallet_id = payees.wallet_id(destination)
    if wallet_id is None:
        return None
    if isinstance(destination, OnChain):
        return Resolved(text=destination.address.text, wallet_id=wallet_id, uri_msat=destination.amount_msat)
    invoice = payees.invoice(destination)
    username = destination.name if isinstance(destination, Username) else None
    return Resolved(text=invoice.bolt11 if invoice else text, known=invoice, wallet_id=wallet_id, username=username)


def amount_to_pay(resolved: Resolved, payer: WalletId, amount_msat: Msat | None) -> Msat:
    """The amount, from the payer or the payee.

    Raises Invalid when they disagree, when they are one wallet, or when the invoice has expired.
    """
    refuse_self_payment(resolved.wallet_id, payer)
    expires_at = resolved.request.expires_at if resolved.request else None
    found_msat = agree_amount(resolved.asked_msat, expires_at, amount_msat, datetime.now(UTC))
    if resolved.offer is not None:
        check_amount(resolved.offer, found_msat)
    return found_msat


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
