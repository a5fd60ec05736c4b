"""Transactions as bytes (BIP 144): the unsigned one is written here, a signed one is read here and by nobody trusted.

A signer and a node answer with bytes. What these spend and pay is read from them, never from what was asked for; the
txid is computed. No count or length is believed before the bytes for it are there, and nothing may follow the end.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.script import WITNESS_FACTOR

MAX_BYTES = 4_000_000
"""No block has room for more."""
MAX_MONEY_SAT = 2_100_000_000_000_000
REPLACEABLE = 0xFFFFFFFD
"""The sequence of an input whose transaction may be replaced (BIP 125), with no lock of its own."""
VERSION = 2
"""Of every transaction that is written here."""
_TXID_BYTES, _VOUT_MAX = 32, 0xFFFFFFFF
_INPUT_LEAST_BYTES, _OUTPUT_LEAST_BYTES = 41, 9
_MARKER_AND_FLAG = b"\x00\x01"
_COMPACT_SIZES = {0xFD: (2, 0xFD), 0xFE: (4, 0x10000), 0xFF: (8, 0x100000000)}
"""By its first byte: how many bytes follow, and the least number that needs so many."""


class Output(NamedTuple):
    """Whom it pays, and how much."""

    script: bytes
    amount_sat: Sat


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What it spends, and the proof that it may."""

    outpoint: Outpoint
    sequence: int
    script_sig: bytes = b""
    witness: tuple[bytes, ...] = ()

    @property
    def signed(self) -> bool:
        """Whether there is any proof. Whether it holds, only a node can tell."""
        return bool(self.script_sig or self.witness)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tx:
    """A transaction as its bytes have it."""

    version: int
    locktime: int
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    txid: Txid
    weight: int

    @property
    def outpoints(self) -> tuple[Outpoint, ...]:
        """What it spends, in order."""
        return tuple(each.outpoint for each in self.inputs)

    @property
    def paid_sat(self) -> Sat:
        """The sum of its outputs. The fee is what its inputs hold beyond that."""
        return Sat(sum(each.amount_sat for each in self.outputs))

    @property
    def signed(self) -> bool:
        """Whether every input has a proof."""
        return all(each.signed for each in self.inputs)


def unsigned_transaction(
    inputs: Sequence[Outpoint], outputs: Sequence[tuple[bytes, Sat]], sequence: int = REPLACEABLE, locktime: int = 0
) -> bytes:
    """The bytes of a transaction of version 2 without signatures. The same arguments give the same bytes.

    Raises ValueError for what no transaction can hold: no input or output, one input twice, an amount out of range.
    """
    _check(inputs, [Output(*each) for each in outputs])
    parts = [VERSION.to_bytes(4, "little"), _compact(len(inputs))]
    for each in inputs:
        parts += [_outpoint(each), b"\x00", sequence.to_bytes(4, "little")]
    parts.append(_compact(len(outputs)))
    for script, amount_sat in outputs:
        parts += [amount_sat.to_bytes(8, "little"), _compact(len(script)), script]
    parts.append(locktime.to_bytes(4, "little"))
    return b"".join(parts)


def parse_transaction(raw: bytes) -> Tx:
    """Read a transaction, signed or not. Raises ValueError with the reason for anything but exactly one."""
    if len(raw) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES} bytes")
    reader = _Reader(raw)
    head = reader.take(4)
    has_witness = raw[4:6] == _MARKER_AND_FLAG
    reader.place += len(_MARKER_AND_FLAG) if has_witness else 0
    body_start = reader.place
    bare = [_read_input(reader) for _ in range(reader.count(_INPUT_LEAST_BYTES))]
    outputs = tuple(_read_output(reader) for _ in range(reader.count(_OUTPUT_LEAST_BYTES)))
    body = raw[body_start : reader.place]
    witnesses = [_read_witness(reader) if has_witness else () for _ in bare]
    tail = reader.take(4)
    if reader.place != len(raw):
        raise ValueError("bytes follow its end")
    if has_witness and not any(witnesses):
        raise ValueError("it says that it has witnesses, and has none")
    inputs = tuple(
        Input(outpoint=outpoint, sequence=sequence, script_sig=script_sig, witness=witness)
        for (outpoint, script_sig, sequence), witness in zip(bare, witnesses, strict=True)
    )
    _check([each.outpoint for each in inputs], outputs)
    stripped = head + body + tail
    return Tx(
        version=int.from_bytes(head, "little"),
        locktime=int.from_bytes(tail, "little"),
        inputs=inputs,
        outputs=outputs,
        txid=Txid(hashlib.sha256(hashlib.sha256(stripped).digest()).digest()[::-1].hex()),
        weight=(WITNESS_FACTOR - 1) * len(stripped) + len(raw),
    )


def parse_transaction_hex(text: str) -> Tx:
    """As `parse_transaction`, from hex digits."""
    if len(text) > 2 * MAX_BYTES or not text.isascii() or not text.isalnum():
        raise ValueError("it is not a transaction in hex")
    return parse_transaction(bytes.fromhex(text))


class _Reader:
    """Takes bytes from the front. Raises ValueError when there are fewer."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.place = 0

    def take(self, size: int) -> bytes:
        if size > len(self.raw) - self.place:
            raise ValueError("it ends too early")
        self.place += size
        return self.raw[self.place - size : self.place]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def compact(self) -> int:
        """A CompactSize in its shortest form: a longer one would give one transaction two spellings."""
        first = self.number(1)
        if first not in _COMPACT_SIZES:
            return first
        size, least = _COMPACT_SIZES[first]
        found = self.number(size)
        if found < least:
            raise ValueError("one of its lengths is not in its shortest form")
        return found

    def count(self, least_bytes: int) -> int:
        """How many items follow that have at least so many bytes each."""
        found = self.compact()
        if found * least_bytes > len(self.raw) - self.place:
            raise ValueError("it ends too early")
        return found

    def text(self) -> bytes:
        return self.take(self.compact())


def _read_input(reader: _Reader) -> tuple[Outpoint, bytes, int]:
    outpoint = Outpoint(txid=Txid(reader.take(_TXID_BYTES)[::-1].hex()), vout=reader.number(4))
    return outpoint, reader.text(), reader.number(4)


def _read_output(reader: _Reader) -> Output:
    amount_sat = Sat(reader.number(8))
    return Output(reader.text(), amount_sat)


def _read_witness(reader: _Reader) -> tuple[bytes, ...]:
    return tuple(reader.text() for _ in range(reader.count(1)))


def _check(inputs: Sequence[Outpoint], outputs: Sequence[Output]) -> None:
    if not inputs or not outputs:
        raise ValueError("it spends nothing or pays nothing")
    if len(set(inputs)) != len(inputs):
        raise ValueError("it spends one output twice")
    if any(not 0 <= each.amount_sat <= MAX_MONEY_SAT for each in outputs):
        raise ValueError("it pays an amount that cannot exist")
    if sum(each.amount_sat for each in outputs) > MAX_MONEY_SAT:
        raise ValueError("it pays more than can exist")


def _outpoint(outpoint: Outpoint) -> bytes:
    raw = bytes.fromhex(outpoint.txid)
    if len(raw) != _TXID_BYTES or not 0 <= outpoint.vout <= _VOUT_MAX:
        raise ValueError(f"{outpoint} names no output")
    return raw[::-1] + outpoint.vout.to_bytes(4, "little")


def _compact(number: int) -> bytes:
    for first, (size, least) in reversed(_COMPACT_SIZES.items()):
        if number >= least:
            return bytes([first]) + number.to_bytes(size, "little")
    return number.to_bytes(1, "little")
