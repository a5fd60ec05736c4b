"""Bitcoin addresses as text: segwit (bech32, BIP 173; bech32m, BIP 350) and the older ones (base58check).

Every character is checked: the checksum, the witness version and the length of the program. Testnet and signet share
their addresses. Of the older addresses regtest has the same ones too.
"""

import hashlib
import re
from dataclasses import dataclass

from engine.domain import bech32

_SEGWIT_NETWORKS = {
    "bc": frozenset({"mainnet"}),
    "tb": frozenset({"testnet", "signet"}),
    "bcrt": frozenset({"regtest"}),
}
_MAIN, _TEST = frozenset({"mainnet"}), frozenset({"testnet", "signet", "regtest"})
_BASE58_NETWORKS = {0x00: _MAIN, 0x05: _MAIN, 0x6F: _TEST, 0xC4: _TEST}
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_SEGWIT_SHAPE = re.compile(r"(bc|tb|bcrt)1[02-9ac-hj-np-z]{6,87}")
_BASE58_SHAPE = re.compile(r"[123mn][1-9A-HJ-NP-Za-km-z]{24,39}")
_MOST_CHARACTERS = 90
_HASH_BYTES, _CHECKSUM_BYTES = 20, 4
_PROGRAM_BYTES = range(2, 41)
_V0_PROGRAM_BYTES = (20, 32)
_LAST_VERSION = 16


@dataclass(frozen=True, slots=True)
class Address:
    """An address whose checksum is right."""

    text: str
    """Segwit addresses in lower case."""
    networks: frozenset[str]
    """Where it can be paid."""


def looks_like_address(text: str) -> bool:
    """Whether the text has the shape of an address, right or mistyped."""
    is_uniform = text in {text.lower(), text.upper()}
    return bool((is_uniform and _SEGWIT_SHAPE.fullmatch(text.lower())) or _BASE58_SHAPE.fullmatch(text))


def read_address(text: str) -> Address:
    """Read it. Raises ValueError with the reason."""
    if not looks_like_address(text):
        raise ValueError("it does not look like one")
    return _read_base58(text) if _BASE58_SHAPE.fullmatch(text) else _read_segwit(text)


def _read_segwit(text: str) -> Address:
    if len(text) > _MOST_CHARACTERS:
        raise ValueError("it is too long")
    is_v0 = text.lower().partition("1")[2].startswith(bech32.CHARSET[0])
    prefix, words = bech32.read(text, modified=not is_v0)
    size = len(bech32.to_bytes(words[1:]))
    if words[:1] > [_LAST_VERSION] or size not in _PROGRAM_BYTES or (is_v0 and size not in _V0_PROGRAM_BYTES):
        raise ValueError("it names no witness program")
    return Address(text.lower(), _SEGWIT_NETWORKS[prefix])


def _read_base58(text: str) -> Address:
    number = 0
    for character in text:
        number = number * len(_BASE58) + _BASE58.index(character)
    zeroes = len(text) - len(text.lstrip(_BASE58[0]))
    raw = bytes(zeroes) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    payload, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:_CHECKSUM_BYTES] != checksum:
        raise ValueError("its checksum is wrong (was it copied whole?)")
    if len(payload) != 1 + _HASH_BYTES or payload[0] not in _BASE58_NETWORKS:
        raise ValueError("it is of no kind that we know")
    return Address(text, _BASE58_NETWORKS[payload[0]])
