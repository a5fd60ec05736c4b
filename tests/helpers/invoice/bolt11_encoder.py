"""A writer of BOLT 11 invoices for tests, which can also write the wrong ones."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from coincurve import PrivateKey

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
SPEC_KEY = PrivateKey(bytes.fromhex("e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734"))
GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)

Field = tuple[str, list[int]]


def to_words(data: bytes) -> list[int]:
    bits = int.from_bytes(data, "big") << (-8 * len(data) % 5)
    size = (8 * len(data) + 4) // 5
    return [bits >> 5 * place & 31 for place in reversed(range(size))]


def number_words(number: int) -> list[int]:
    size = max(1, (number.bit_length() + 4) // 5)
    return [number >> 5 * place & 31 for place in reversed(range(size))]


def _polymod(values: Sequence[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(GENERATOR):
            checksum ^= generator if top >> place & 1 else 0
    return checksum


def bech32(prefix: str, words: Sequence[int]) -> str:
    head = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    checksum = _polymod([*head, *words, *([0] * 6)]) ^ 1
    tail = [checksum >> 5 * place & 31 for place in reversed(range(6))]
    return prefix + "1" + "".join(CHARSET[word] for word in [*words, *tail])


def sign(prefix: str, words: Sequence[int], key: PrivateKey = SPEC_KEY, *, high_s: bool = False) -> list[int]:
    bits = "".join(f"{word:05b}" for word in words)
    bits += "0" * (-len(bits) % 8)
    data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    signature = key.sign_recoverable(hashlib.sha256(prefix.encode() + data).digest(), hasher=None)
    if high_s:
        order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
        s = order - int.from_bytes(signature[32:64], "big")
        signature = signature[:32] + s.to_bytes(32, "big") + bytes([signature[64] ^ 1])
    return to_words(signature)


def tagged(fields: Sequence[Field]) -> list[int]:
    words: list[int] = []
    for tag, data in fields:
        words += [CHARSET.index(tag), len(data) >> 5, len(data) & 31, *data]
    return words


@dataclass(kw_only=True)
class Draft:
    """An invoice to be written; a good one unless told otherwise."""

    prefix: str = "lnbcrt"
    amount: str = ""
    timestamp: int = 1_750_000_000
    payment_hash: bytes = b"\x01" * 32
    secret: bytes = b"\x11" * 32
    description: bytes = b"coffee"
    expiry_s: int = 3600
    features: int = 1 << 9 | 1 << 14
    without: str = ""
    """Tags to leave out."""
    extra: list[Field] = field(default_factory=list)
    key: PrivateKey = SPEC_KEY
    high_s: bool = False

    def fields(self) -> list[Field]:
        own: list[Field] = [
            ("p", to_words(self.payment_hash)),
            ("s", to_words(self.secret)),
            ("d", to_words(self.description)),
            ("x", number_words(self.expiry_s)),
            ("9", number_words(self.features)),
        ]
        return [*(item for item in own if item[0] not in self.without), *self.extra]

    def words(self) -> list[int]:
        time = [self.timestamp >> 5 * place & 31 for place in reversed(range(7))]
        return time + tagged(self.fields())

    def text(self) -> str:
        hrp, words = self.prefix + self.amount, self.words()
        return bech32(hrp, [*words, *sign(hrp, words, self.key, high_s=self.high_s)])
