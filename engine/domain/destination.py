"""What a payment's destination string is: decided by its shape alone, before anything is looked up.

lnbc… lntb… lntbs… lnbcrt…      Invoice      with or without `lightning:`, in lower or in upper case
bitcoin:…?lightning=lnbc…       Invoice      BIP 21 with a Lightning part
lnurl1…                         Lnurl        likewise, also as the Lightning part
name@domain                     LightningAddress
@name                           Username
wallet:<id>                     WalletRef
02… 03… (66 hex digits)         NodeKey      a Lightning node, paid without an invoice (keysend)
an address, bitcoin:<address>   refused with `use_withdrawals`
lno1…                           refused: not supported yet
anything else                   refused with `invalid_destination`
"""

import re
from dataclasses import dataclass

from engine.domain.errors import Invalid
from engine.domain.ids import WalletId
from engine.domain.lnurl import read_address, read_lnurl
from engine.domain.username import is_username

MAX_LENGTH = 10_000
"""Room for the longest invoice inside a BIP 21 URI."""

_BECH32_ADDRESS = re.compile(r"(bc|tb|bcrt)1[02-9ac-hj-np-z]{6,87}")
_BASE58_ADDRESS = re.compile(r"[123mn][1-9A-HJ-NP-Za-km-z]{24,39}")
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


Destination = Invoice | NodeKey | Username | WalletRef | LightningAddress | Lnurl


def read_destination(text: str) -> Destination:
    """Tell what the text names. Raises Invalid: `use_withdrawals` or `invalid_destination`."""
    if len(text) > MAX_LENGTH:
        raise _invalid(f"A destination has at most {MAX_LENGTH} characters.")
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() == "lightning":
        return _lightning(rest)
    if colon and scheme.lower() == "bitcoin":
        return _bip21(rest)
    if text.startswith(("wallet:", "@")):
        return _ours(text)
    if "@" in text:
        return LightningAddress(*read_address(text))
    if _NODE_KEY.fullmatch(text.lower()):
        return NodeKey(text.lower())
    if _is_address(text):
        raise _use_withdrawals()
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


def _bip21(text: str) -> Destination:
    """BIP 21: parameters it requires (`req-…`) and we do not know make the whole URI invalid."""
    _address, _, query = text.partition("?")
    parameters = [parameter.partition("=") for parameter in query.split("&")]
    if any(name.lower().startswith("req-") for name, _, _ in parameters):
        raise _invalid("This bitcoin: URI requires something that we do not know.")
    lightning = [value for name, _, value in parameters if name.lower() == "lightning"]
    if not lightning:
        raise _use_withdrawals()
    if len(lightning) > 1:
        raise _invalid("This bitcoin: URI has two lightning parts.")
    return _lightning(lightning[0])


def _is_address(text: str) -> bool:
    uniform = text in {text.lower(), text.upper()}
    return bool((uniform and _BECH32_ADDRESS.fullmatch(text.lower())) or _BASE58_ADDRESS.fullmatch(text))


def _use_withdrawals() -> Invalid:
    return Invalid("This is an on-chain address: use POST /v1/withdrawals for it.", code="use_withdrawals")


def _invalid(detail: str) -> Invalid:
    return Invalid(detail, code="invalid_destination")
