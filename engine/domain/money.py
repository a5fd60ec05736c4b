"""Amounts: whole millisatoshi and whole satoshi, never negative, never fractional.

This is the only place where one unit becomes the other, and each conversion says which way it rounds.
Direction (debit or credit) is a matter of the books, not of an amount.
"""

from typing import NewType

Msat = NewType("Msat", int)
Sat = NewType("Sat", int)

MSAT_PER_SAT = 1000
MAX_AMOUNT_MSAT = Msat(2**53 - 1)
"""The largest amount the API takes: the largest integer every JSON reader keeps exactly (RFC 8259, section 6)."""

_PPM = 1_000_000


def sat_to_msat(amount_sat: Sat) -> Msat:
    """Exact."""
    return Msat(amount_sat * MSAT_PER_SAT)


def msat_to_sat_floor(amount_msat: Msat) -> Sat:
    """Round down: for what we show or give, so that it is never more than there is."""
    return Sat(amount_msat // MSAT_PER_SAT)


def share_ppm_ceil(amount_msat: Msat, rate_ppm: int) -> Msat:
    """Parts per million of an amount, rounded up to the next millisatoshi: for caps and fees."""
    return Msat(-(-amount_msat * rate_ppm // _PPM))


def sat_ceil(amount_msat: Msat) -> Msat:
    """Up to the next whole satoshi: for fees of what moves on chain."""
    return Msat(-(-amount_msat // MSAT_PER_SAT) * MSAT_PER_SAT)
