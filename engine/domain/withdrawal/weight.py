"""What a transaction weighs and what it pays: weight units in, whole satoshi out.

Rates are satoshi per 1,000 virtual bytes. A virtual byte is four weight units, rounded up (BIP 141); the fee is rounded
up too, so that no transaction ever pays less than its rate.
"""

from collections.abc import Sequence

from engine.domain.money import Sat
from engine.domain.withdrawal.script import WITNESS_FACTOR, varint_bytes

MAX_STANDARD_WEIGHT = 400_000
"""A heavier transaction is not relayed (Bitcoin Core: MAX_STANDARD_TX_WEIGHT)."""
_VERSION_AND_LOCKTIME_BYTES = 8
_MARKER_AND_FLAG = 2
_RATE_VBYTES = 1000


def transaction_weight(inputs: Sequence[int], outputs: Sequence[int]) -> int:
    """The whole, from the weights of its inputs and outputs. It counts as segwit."""
    return sum(inputs) + sum(outputs) + frame_weight(len(inputs), len(outputs))


def frame_weight(inputs: int, outputs: int) -> int:
    """What is neither in an input nor in an output: version, lock time, marker, and the two counts."""
    counted = _VERSION_AND_LOCKTIME_BYTES + varint_bytes(inputs) + varint_bytes(outputs)
    return WITNESS_FACTOR * counted + _MARKER_AND_FLAG


def virtual_bytes(weight: int) -> int:
    """Rounded up."""
    return -(-weight // WITNESS_FACTOR)


def fee_sat(weight: int, rate_sat_kvb: int) -> Sat:
    """What a transaction of this weight pays at this rate, rounded up."""
    return Sat(-(-rate_sat_kvb * virtual_bytes(weight) // _RATE_VBYTES))


def rate_paid(fee: Sat, weight: int) -> int:
    """The rate that a fee comes to, rounded down: what a node sees."""
    return fee * _RATE_VBYTES // virtual_bytes(weight)
