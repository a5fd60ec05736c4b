"""BOLT 11 invoices, read strictly: what cannot be paid safely is refused before anything is held for it.

Text in, a checked `Bolt11` out, or `Invalid`; no text raises another exception. The rules are BOLT 11 and BIP 173.
Where they leave room, we read as LND reads. One rule is stricter: an invoice that says a thing twice (two payment
hashes, two descriptions …) is refused instead of taking the first, so that no two programs disagree about what is paid.
`expires_at` says when the invoice expires. The caller who is about to pay must refuse an expired one.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from coincurve import PublicKey, ecdsa

from engine.domain import bech32
from engine.domain.errors import Invalid
from engine.domain.ids import PaymentHash
from engine.domain.money import MAX_AMOUNT_MSAT, Msat

MAX_LENGTH = 7089
"""The longest text in one QR code, and the longest invoice LND reads."""

_VALUE_OF = {character: value for value, character in enumerate(bech32.CHARSET)}
_TIMESTAMP_WORDS = 7
_SIGNATURE_WORDS = 104  # 64 bytes and the recovery id

_NETWORKS = {"bc": "mainnet", "tb": "testnet", "tbs": "signet", "bcrt": "regtest", "sb": "simnet"}
_PREFIX = re.compile(r"ln(bcrt|tbs|bc|tb|sb)(?:([1-9][0-9]{0,17})([munp]?))?")
_PICO_PER_UNIT = {"": 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1}  # of a bitcoin
_PICO_PER_MSAT = 10

_P, _R, _NINE, _X, _D, _S, _N, _H, _C, _M = (_VALUE_OF[tag] for tag in "pr9xdsnhcm")
_FIXED_WORDS = {_P: 52, _S: 52, _H: 52, _N: 53}
_REPEATABLE = {_R, _VALUE_OF["f"]}
_READ = {_P, _R, _NINE, _X, _D, _S, _N, _H, _C, _M}
_HOP_BYTES = 51
_KNOWN_FEATURES = frozenset({8, 14, 16, 24, 48})
"""Even bits that LND understands as a payer: onion, payment secret, MPP, blinded routes, metadata. Not AMP (30)."""

_DEFAULT_EXPIRY_S = 3600
_DEFAULT_FINAL_CLTV = 18
_MAX_NUMBER_WORDS = 13  # 64 bits
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bolt11:
    """A well-formed, signed invoice of the network asked for."""

    bolt11: str
    """In lower case, without a scheme."""
    network: str
    payment_hash: PaymentHash
    payment_secret: str
    amount_msat: Msat | None
    """None: the payer chooses."""
    description: str | None
    description_hash: str | None
    created_at: datetime
    expires_at: datetime
    payee: str
    """The node's public key in hex, from the `n` field or recovered from the signature."""
    min_final_cltv: int
    features: frozenset[int]
    route_hints: tuple[str, ...]
    """Routes to the payee over private channels, in hex as BOLT 11 writes them."""


def decode(text: str, *, network: str | None) -> Bolt11:
    """Read an invoice in upper or lower case, of this network, or of any network for None.

    Raises Invalid: `wrong_network`, else `invalid_destination`.
    """
    prefix, words = _bech32(text)
    match = _PREFIX.fullmatch(prefix)
    if match is None:
        raise _no("its prefix names no network or amount that we know")
    currency, digits, multiplier = match.groups()
    if network not in {None, _NETWORKS[currency]}:
        raise Invalid(f"This invoice is for {_NETWORKS[currency]}; this bank pays on {network}.", code="wrong_network")
    if len(words) < _TIMESTAMP_WORDS + _SIGNATURE_WORDS:
        raise _no("it is too short")
    signed, signature = words[:-_SIGNATURE_WORDS], words[-_SIGNATURE_WORDS:]
    fields = _fields(signed[_TIMESTAMP_WORDS:])
    if _P not in fields:
        raise _no("it has no payment hash")
    if _S not in fields:
        raise _no("it has no payment secret, and cannot be paid safely")
    if (_D in fields) == (_H in fields):
        raise _no("it must have either a description or the hash of one")
    created_at = datetime.fromtimestamp(bech32.to_number(signed[:_TIMESTAMP_WORDS]), UTC)
    return Bolt11(
        bolt11=text.lower(),
        network=_NETWORKS[currency],
        payment_hash=PaymentHash(_bytes(fields[_P][0]).hex()),
        payment_secret=_bytes(fields[_S][0]).hex(),
        amount_msat=_amount(digits, multiplier),
        description=_utf8(fields[_D][0]) if _D in fields else None,
        description_hash=_bytes(fields[_H][0]).hex() if _H in fields else None,
        created_at=created_at,
        expires_at=_expires_at(created_at, fields),
        payee=_payee(prefix, signed, signature, fields),
        min_final_cltv=_final_cltv(fields),
        features=_features(fields),
        route_hints=tuple(_bytes(hops).hex() for hops in fields.get(_R, [])),
    )


def find_payment_hash(text: str) -> PaymentHash | None:
    """The payment hash of a text if it is a sound invoice, read in a tenth of the time of `decode`.

    Use it to find one of our own invoices, which is then compared letter by letter. It proves nothing about others.
    """
    data = text.lower()[:MAX_LENGTH].rpartition("1")[2]
    try:
        words = [
            _VALUE_OF[character] for character in data[_TIMESTAMP_WORDS : -_SIGNATURE_WORDS - bech32.CHECKSUM_WORDS]
        ]
        hashes = (field for tag, field in _split(words) if tag == _P and len(field) == _FIXED_WORDS[_P])
        found = next(hashes, None)
        return None if found is None else PaymentHash(_bytes(found).hex())
    except (KeyError, Invalid):
        return None


def _no(reason: str) -> Invalid:
    return Invalid(f"This is not an invoice that can be paid: {reason}.", code="invalid_destination")


def _bech32(text: str) -> tuple[str, list[int]]:
    if len(text) > MAX_LENGTH:
        raise _no(f"it is longer than {MAX_LENGTH} characters")
    try:
        return bech32.read(text)
    except ValueError as error:
        raise _no(str(error)) from None


def _bytes(words: list[int]) -> bytes:
    try:
        return bech32.to_bytes(words)
    except ValueError as error:
        raise _no(str(error)) from None


# --- BOLT 11 ----------------------------------------------------------------------------------------------------------


def _fields(words: list[int]) -> dict[int, list[list[int]]]:
    """The fields we read, by type. Unknown fields and fields of a wrong length are skipped, as BOLT 11 requires."""
    fields: dict[int, list[list[int]]] = {}
    for tag, data in _split(words):
        if tag not in _READ or len(data) != _FIXED_WORDS.get(tag, len(data)):
            continue
        if tag in fields and tag not in _REPEATABLE:
            raise _no(f"its field '{bech32.CHARSET[tag]}' is there twice")
        fields.setdefault(tag, []).append(data)
    for hops in fields.get(_R, []):
        _check_hops(_bytes(hops))
    return fields


def _split(words: list[int]) -> Iterator[tuple[int, list[int]]]:
    at = 0
    while at < len(words):
        if at + 3 > len(words):
            raise _no("its last field is cut off")
        tag, size = words[at], words[at + 1] << 5 | words[at + 2]
        at += 3
        if at + size > len(words):
            raise _no("its last field is cut off")
        yield tag, words[at : at + size]
        at += size


def _check_hops(data: bytes) -> None:
    if not data or len(data) % _HOP_BYTES:
        raise _no("a routing hint has the wrong length")
    for start in range(0, len(data), _HOP_BYTES):
        _public_key(data[start : start + 33])


def _amount(digits: str | None, multiplier: str | None) -> Msat | None:
    if digits is None:
        return None
    amount_msat, rest = divmod(int(digits) * _PICO_PER_UNIT[multiplier or ""], _PICO_PER_MSAT)
    if rest:
        raise _no("its amount has a fraction of a millisatoshi")
    if amount_msat > MAX_AMOUNT_MSAT:
        raise _no("its amount is larger than any that we pay")
    return Msat(amount_msat)


def _utf8(words: list[int]) -> str:
    try:
        return _bytes(words).decode("utf-8")
    except UnicodeDecodeError:
        raise _no("its description is not UTF-8") from None


def _short_number(fields: dict[int, list[list[int]]], tag: int, default: int) -> int:
    if tag not in fields:
        return default
    words = fields[tag][0]
    if len(words) > _MAX_NUMBER_WORDS:
        raise _no(f"its field '{bech32.CHARSET[tag]}' is a number out of all bounds")
    return bech32.to_number(words)


def _expires_at(created_at: datetime, fields: dict[int, list[list[int]]]) -> datetime:
    expiry_s = _short_number(fields, _X, _DEFAULT_EXPIRY_S)
    if expiry_s > (_LATEST - created_at).total_seconds():
        raise _no("it expires after the year 9999")
    return created_at + timedelta(seconds=expiry_s)


def _final_cltv(fields: dict[int, list[list[int]]]) -> int:
    blocks = _short_number(fields, _C, _DEFAULT_FINAL_CLTV)
    if blocks > 0xFFFF:  # noqa: PLR2004 - more than a year: no node would lock money for it
        raise _no("it wants the last hop locked for longer than a year")
    return blocks


def _features(fields: dict[int, list[list[int]]]) -> frozenset[int]:
    bits = bech32.to_number(fields[_NINE][0]) if _NINE in fields else 0
    features = frozenset(bit for bit in range(bits.bit_length()) if bits >> bit & 1)
    unknown = sorted(bit for bit in features - _KNOWN_FEATURES if bit % 2 == 0)
    if unknown:
        raise _no(f"it needs feature {unknown[0]}, which we do not have")
    return features


def _payee(prefix: str, signed: list[int], signature: list[int], fields: dict[int, list[list[int]]]) -> str:
    """The payee's key: check the signature with the key in `n`, or recover the key from the signature."""
    spare = -5 * len(signed) % 8
    data = (bech32.to_number(signed) << spare).to_bytes((5 * len(signed) + spare) // 8, "big")
    digest = hashlib.sha256(prefix.encode() + data).digest()
    compact = _bytes(signature)
    try:
        if _N not in fields:
            return PublicKey.from_signature_and_message(compact, digest, hasher=None).format().hex()
        key = _bytes(fields[_N][0])
        _, normal = ecdsa.signature_normalize(ecdsa.deserialize_compact(compact[:64]))
        if _public_key(key).verify(ecdsa.cdata_to_der(normal), digest, hasher=None):
            return key.hex()
    except ValueError:
        raise _no("its signature is wrong") from None
    raise _no("its signature is wrong")


def _public_key(data: bytes) -> PublicKey:
    try:
        return PublicKey(data)
    except ValueError:
        raise _no("it names a node by something that is no public key") from None
