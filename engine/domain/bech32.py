"""Bech32 (BIP 173): a prefix, and words of five bits with a checksum. Invoices and LNURLs are written in it.

Addresses of witness version 1 and above have another checksum (bech32m, BIP 350). Callers set length limits: BIP 173's
90 characters are for addresses only.
"""

from collections.abc import Sequence

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
WORD_BITS = 5

_VALUE_OF = {character: value for value, character in enumerate(CHARSET)}
CHECKSUM_WORDS = 6
_BECH32, _BECH32M = 1, 0x2BC830A3
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def _mixed(top: int) -> int:
    """What the five bits that fall out of the checksum are worth."""
    found = 0
    for place, generator in enumerate(_GENERATOR):
        found ^= generator if top >> place & 1 else 0
    return found


_STEP = [_mixed(top) for top in range(32)]


def read(text: str, *, modified: bool = False) -> tuple[str, list[int]]:
    """The prefix, in lower case, and the words without the checksum. Raises ValueError with the reason.

    `modified` asks for bech32m.
    """
    if not text.isascii() or (text != text.lower() and text != text.upper()):
        raise ValueError("its letters must be all lower or all upper case")
    prefix, separator, data = text.lower().rpartition("1")
    if not separator or not prefix or len(data) < CHECKSUM_WORDS:
        raise ValueError("it is not bech32 text")
    try:
        words = [_VALUE_OF[character] for character in data]
    except KeyError:
        raise ValueError("it has a character that bech32 does not use") from None
    if _polymod(prefix, words) != (_BECH32M if modified else _BECH32):
        raise ValueError("its checksum is wrong (was it copied whole?)")
    return prefix, words[:-CHECKSUM_WORDS]


def write(prefix: str, words: Sequence[int], *, modified: bool = False) -> str:
    """The text, in lower case. `prefix` must be in lower case too."""
    checksum = _polymod(prefix, [*words, *[0] * CHECKSUM_WORDS]) ^ (_BECH32M if modified else _BECH32)
    tail = [checksum >> WORD_BITS * place & 31 for place in reversed(range(CHECKSUM_WORDS))]
    return f"{prefix}1{''.join(CHARSET[word] for word in [*words, *tail])}"


def to_number(words: Sequence[int]) -> int:
    """Big-endian, five bits a word."""
    number = 0
    for word in words:
        number = number << WORD_BITS | word
    return number


def to_bytes(words: Sequence[int]) -> bytes:
    """Whole bytes. What is left over must be fewer than five bits, all zero; else ValueError."""
    size, spare = divmod(WORD_BITS * len(words), 8)
    number = to_number(words)
    if spare >= WORD_BITS or number & (1 << spare) - 1:
        raise ValueError("one of its fields is not padded with zeroes")
    return (number >> spare).to_bytes(size, "big")


def to_words(data: bytes) -> list[int]:
    """Five bits each, the last filled up with zeroes."""
    size = -(-8 * len(data) // WORD_BITS)
    number = int.from_bytes(data, "big") << WORD_BITS * size - 8 * len(data)
    return [number >> WORD_BITS * place & 31 for place in reversed(range(size))]


def _polymod(prefix: str, words: Sequence[int]) -> int:
    checksum = 1
    codes = [ord(character) for character in prefix]
    for value in [*(code >> 5 for code in codes), 0, *(code & 31 for code in codes), *words]:
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value ^ _STEP[checksum >> 25]
    return checksum
