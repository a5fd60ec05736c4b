"""Transactions and blocks of regtest, byte by byte: what no RPC makes.

bitcoind makes no transaction that pays an address twice, none with a bare multisig output, and no block elsewhere than
on its tip. With blocks made here, a competing chain reaches the node as from a peer: all at once, when it is longer.
"""

import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_HALVING = 150
_FIRST_REWARD_SAT = 50 * 10**8
_BITS = 0x207FFFFF
_TARGET = 0x7FFFFF << 8 * (0x20 - 3)
_VERSION = 0x20000000


@dataclass(frozen=True)
class Coin:
    """An output that can be spent, with its script in hex."""

    txid: str
    vout: int
    amount_sat: int
    script: str


@dataclass(frozen=True)
class Raw:
    """A signed transaction; `wtxid` is the hash with its witness."""

    txid: str
    wtxid: str
    hex: str


@dataclass(frozen=True)
class Parent:
    """The block to build on; `median_time` is that of the last eleven blocks."""

    hash: str
    height: int
    median_time: int


def unsigned(coins: Sequence[Coin], outputs: Sequence[tuple[bytes, int]], *, replaceable: bool = True) -> str:
    """A transaction of these inputs and outputs (script and satoshi), in hex, without a lock time."""
    sequence = 0xFFFFFFFD if replaceable else 0xFFFFFFFE
    inputs = b"".join(
        bytes.fromhex(coin.txid)[::-1] + struct.pack("<I", coin.vout) + b"\0" + struct.pack("<I", sequence)
        for coin in coins
    )
    return (_i32(2) + _size(len(coins)) + inputs + _outputs(outputs) + _i32(0)).hex()


def bare_multisig(public_keys: Sequence[str]) -> bytes:
    """The script of an output that any one of these keys can spend, without an address."""
    keys = b"".join(_push(bytes.fromhex(key)) for key in public_keys)
    return b"\x51" + keys + bytes([0x50 + len(public_keys)]) + b"\xae"


def block(parent: Parent, time_s: int, script: bytes, transactions: Sequence[Raw]) -> tuple[str, str]:
    """A valid block on this parent, and its hash; its reward goes to `script`. No two blocks are equal."""
    height = parent.height + 1
    witness = _merkle([bytes(32), *(bytes.fromhex(each.wtxid)[::-1] for each in transactions)])
    commitment = b"\x6a\x24\xaa\x21\xa9\xed" + _twice(witness + bytes(32))
    outputs = _outputs([(script, _FIRST_REWARD_SAT >> height // _HALVING), (commitment, 0)])
    signature = _push(_number(height)) + _push(os.urandom(8))
    head = _i32(2), b"\x01" + bytes(32) + b"\xff" * 4 + _size(len(signature)) + signature + b"\xff" * 4 + outputs
    coinbase = head[0] + head[1] + _i32(0)
    with_witness = head[0] + b"\0\x01" + head[1] + b"\x01\x20" + bytes(32) + _i32(0)
    root = _merkle([_twice(coinbase), *(bytes.fromhex(each.txid)[::-1] for each in transactions)])
    fixed = _i32(_VERSION) + bytes.fromhex(parent.hash)[::-1] + root
    fixed += struct.pack("<II", max(time_s, parent.median_time + 1), _BITS)
    nonce = 0
    while int.from_bytes(found := _twice(fixed + struct.pack("<I", nonce)), "little") > _TARGET:
        nonce += 1
    body = _size(len(transactions) + 1) + with_witness + b"".join(bytes.fromhex(each.hex) for each in transactions)
    return (fixed + struct.pack("<I", nonce) + body).hex(), found[::-1].hex()


def header(block_hex: str) -> str:
    """The first 80 bytes of a block, in hex."""
    return block_hex[:160]


def _outputs(outputs: Sequence[tuple[bytes, int]]) -> bytes:
    return _size(len(outputs)) + b"".join(
        struct.pack("<q", amount_sat) + _size(len(script)) + script for script, amount_sat in outputs
    )


def _i32(number: int) -> bytes:
    return struct.pack("<i", number)


def _size(number: int) -> bytes:
    if number < 0xFD:
        return bytes([number])
    return b"\xfd" + struct.pack("<H", number) if number < 0x10000 else b"\xfe" + struct.pack("<I", number)


def _push(content: bytes) -> bytes:
    return bytes([len(content)]) + content


def _number(number: int) -> bytes:
    """As Bitcoin's scripts write it: little-endian, the highest bit is the sign. Above 16, a push of its own."""
    return number.to_bytes(number.bit_length() // 8 + 1, "little")


def _twice(content: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(content).digest()).digest()


def _merkle(level: Sequence[bytes]) -> bytes:
    while len(level) > 1:
        even = [*level, level[-1]] if len(level) % 2 else level
        level = [_twice(even[at] + even[at + 1]) for at in range(0, len(even), 2)]
    return level[0]
