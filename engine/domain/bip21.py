"""Payment URIs (BIP 21): `bitcoin:<address>?amount=0.0001&label=…&lightning=<invoice>`.

The amount is in BTC, as exact decimal text. With `lightning` the URI offers two ways to pay one request. Names of
parameters are read in any case, because a QR code in upper case is smaller.
"""

import re
from dataclasses import dataclass

from engine.domain.errors import Invalid
from engine.domain.money import MAX_AMOUNT_MSAT, Sat, msat_to_sat_floor

SCHEME = "bitcoin:"
_PLACES = 8
_SAT_PER_BTC = 10**_PLACES
_AMOUNT = re.compile(r"([0-9]{1,8})(?:\.([0-9]{1,8}))?")
_PAYABLE = ("amount", "lightning")
_KNOWN = (*_PAYABLE, "label", "message")

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""Characters that a URI holds as they are (RFC 3986)."""
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentUri:
    """What a URI says, as it stands there: neither the address nor the invoice has been read."""

    address: str
    """Empty where the URI has only a Lightning part."""
    amount: str | None = None
    label: str | None = None
    message: str | None = None
    lightning: str | None = None

    @property
    def amount_sat(self) -> Sat | None:
        """The amount; None where the payer chooses. Raises Invalid (`invalid_destination`)."""
        if self.amount is None:
            return None
        found = _AMOUNT.fullmatch(self.amount)
        amount_sat = int(found[1]) * _SAT_PER_BTC + int((found[2] or "").ljust(_PLACES, "0")) if found else 0
        if not 0 < amount_sat <= msat_to_sat_floor(MAX_AMOUNT_MSAT):
            raise _invalid("The amount of this bitcoin: URI is no amount in BTC with at most 8 decimals.")
        return Sat(amount_sat)


def read_uri(text: str) -> PaymentUri:
    """Read a text that begins with `bitcoin:`. Raises Invalid (`invalid_destination`).

    A parameter that the URI requires (`req-…`) and that we do not know makes the whole URI invalid. Other unknown
    parameters are ignored.
    """
    address, _, query = text[len(SCHEME) :].partition("?")
    found: dict[str, str] = {}
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        name = name.lower()
        if name.startswith("req-"):
            raise _invalid("This bitcoin: URI requires something that we do not know.")
        if name in _PAYABLE and name in found:
            raise _invalid(f"This bitcoin: URI has two {name} parts.")
        if name in _KNOWN:
            found[name] = value
    for name in ("label", "message"):
        if name in found:
            found[name] = _decoded(found[name])
    return PaymentUri(address=address, **found)


def write_uri(
    address: str, *, amount_sat: Sat | None = None, label: str | None = None, lightning: str | None = None
) -> str:
    """The URI. `lightning` comes last, so that `qr_pieces` finds two long runs of capitals."""
    parameters = [
        *([] if amount_sat is None else [f"amount={btc_text(amount_sat)}"]),
        *([] if label is None else [f"label={_encoded(label)}"]),
        *([] if lightning is None else [f"lightning={lightning}"]),
    ]
    return SCHEME + address + ("?" + "&".join(parameters) if parameters else "")


def btc_text(amount_sat: Sat) -> str:
    """Exact decimal text in BTC: "1", "0.00000001"."""
    whole, part = divmod(amount_sat, _SAT_PER_BTC)
    return f"{whole}.{part:0{_PLACES}}".rstrip("0").rstrip(".")


def qr_pieces(uri: str) -> tuple[str, ...]:
    """A URI of `write_uri` with a segwit address, in pieces for a QR code, each in the case in which it is smallest.

    Capitals take 5.5 bits in a QR code and small letters 8. Scheme, address and invoice mean the same in capitals; the
    parameters between them stay as they are.
    """
    head, query_mark, query = uri.partition("?")
    middle, lightning, invoice = (query_mark + query).partition("lightning=")
    pieces = (head.upper(), middle + lightning, invoice.upper())
    return tuple(piece for piece in pieces if piece)


def _encoded(text: str) -> str:
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())


def _decoded(text: str) -> str:
    """What is no UTF-8 is replaced: it is for people to read."""
    raw = _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())
    return raw.decode(errors="replace")


def _invalid(detail: str) -> Invalid:
    return Invalid(detail, code="invalid_destination")
