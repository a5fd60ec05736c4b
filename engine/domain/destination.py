"""What a payment's destination string is: decided by its shape alone, before anything is looked up.

lnbc… lntb… lntbs… lnbcrt…      Invoice      with or without `lightning:`, in lower or in upper case
bitcoin:…?lightning=lnbc…       Invoice      BIP 21 with a Lightning part
bitcoin:<address>?amount=…      OnChain      BIP 21 without one, or an address alone
lnurl1…                         Lnurl        likewise, also as the Lightning part
name@domain                     LightningAddress
@name                           Username
wallet:<id>                     WalletRef
02… 03… (66 hex digits)         NodeKey      a Lightning node, paid without an invoice (keysend)
lno1…                           refused: not supported yet
anything else                   refused with `invalid_destination`
"""

import re
from dataclasses import dataclass, replace

from engine.domain import bip21
from engine.domain.address import Address, looks_like_address, read_address
from engine.domain.errors import Invalid
from engine.domain.ids import WalletId
from engine.domain.lnurl import read_address as read_lightning_address
from engine.domain.lnurl import read_lnurl
from engine.domain.money import Msat, sat_to_msat
from engine.domain.username import is_username

MAX_LENGTH = 10_000
"""Room for the longest invoice inside a BIP 21 URI."""

_NODE_KEY = re.compile(r"0[23][0-9a-f]{64}")
_WALLET_ID = re.compile(r"[0-9A-Za-z_-]{1,100}")


@dataclass(frozen=True, slots=True)
class Invoice:
    """Text that claims to be a BOLT 11 invoice; it has not been read yet."""

    bolt11: str


@dataclass(frozen=True, slots=True)
class Username:
    """One of our users, without the `@`."""

    name: str


@dataclass(frozen=True, slots=True)
class WalletRef:
    """One of our wallets, by id."""

    wallet_id: WalletId


@dataclass(frozen=True, slots=True)
class LightningAddress:
    """Somebody at a domain, ours or another, in lower case. The domain may have a port."""

    name: str
    domain: str


@dataclass(frozen=True, slots=True)
class Lnurl:
    """A URL that tells, when it is asked, whether and how it can be paid."""

    lnurl: str
    """In lower case, without a scheme."""
    url: str


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A Lightning node by its public key, in lower case. Nothing says what is paid for."""

    pubkey: str


@dataclass(frozen=True, slots=True)
class OnChain:
    """An address of the chain. Where it is one of ours, the payment stays within the books."""

    address: Address
    amount_msat: Msat | None = None
    """The amount that its URI names."""

    def refusal(self, network: str) -> Invalid:
        """Why it is not paid where it is none of ours: `wrong_network` or `use_withdrawals`."""
        if network not in self.address.networks:
            return Invalid(f"This address is not on {network}.", code="wrong_network")
        return Invalid("This is an on-chain address: use POST /v1/withdrawals for it.", code="use_withdrawals")


Destination = OnChain | Invoice | NodeKey | Username | WalletRef | LightningAddress | Lnurl


def read_destination(text: str) -> Destination:
    """Tell what the text names. Raises Invalid: `invalid_destination`."""
    if len(text) > MAX_LENGTH:
        raise _invalid(f"A destination has at most {MAX_LENGTH} characters.")
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() in _OF_SCHEME:
        return _OF_SCHEME[scheme.lower()](rest)
    if text.startswith(("wallet:", "@")):
        return _ours(text)
    if "@" in text:
        return LightningAddress(*read_lightning_address(text))
    if _NODE_KEY.fullmatch(text.lower()):
        return NodeKey(text.lower())
    if looks_like_address(text):
        return _on_chain(text)
    return _lightning(text)


def _ours(text: str) -> Destination:
    if text.startswith("@"):
        if not is_username(text[1:]):
            raise _invalid("After '@' comes a username: 3 to 50 letters, digits and underscores.")
        return Username(text[1:])
    wallet_id = text.removeprefix("wallet:")
    if not _WALLET_ID.fullmatch(wallet_id):
        raise _invalid("After 'wallet:' comes the id of a wallet.")
    return WalletRef(WalletId(wallet_id))


def _lightning(text: str) -> Destination:
    lower = text.lower()
    if lower.startswith("lnurl1"):
        return Lnurl(lower, read_lnurl(text))
    if lower.startswith("lno1"):
        raise _invalid("BOLT 12 offers are not supported yet.")
    if not lower.startswith("ln"):
        raise _invalid(
            "This is none of: a BOLT 11 invoice, name@domain, an LNURL, @username, wallet:<id>, a node's public key, a "
            "BIP 21 URI with a lightning part."
        )
    return Invoice(text)


def _bip21(rest: str) -> Destination:
    uri = bip21.read_uri(bip21.SCHEME + rest)
    if uri.lightning is not None:
        return _lightning(uri.lightning)
    on_chain, amount_sat = _on_chain(uri.address), uri.amount_sat
    return replace(on_chain, amount_msat=None if amount_sat is None else sat_to_msat(amount_sat))


def _on_chain(text: str) -> OnChain:
    try:
        return OnChain(read_address(text))
    except ValueError as error:
        raise _invalid(f"This is not a bitcoin address: {error}.") from None


def _invalid(detail: str) -> Invalid:
    return Invalid(detail, code="invalid_destination")


_OF_SCHEME = {"lightning": _lightning, "bitcoin": _bip21}
