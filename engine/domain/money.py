"""Amounts: whole millisatoshi and whole satoshi, never negative, never fractional.

This is the only place where one unit becomes the other, and each conversion says which way it rounds.
Direction (debit or credit) is a matter of the books, not of an amount.
"""

import re
from typing import NewType

Msat = NewType("Msat", int)
Sat = NewType("Sat", int)

MSAT_PER_SAT = 1000
MAX_AMOUNT_MSAT = Msat(2**53 - 1)
"""The largest amount the API takes: the largest integer every JSON reader keeps exactly (RFC 8259, section 6)."""

_PPM = 1_000_000
_MSAT_PER_BTC = 10**11
_FIAT = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?")
_FIAT_PLACES = 6


def sat_to_msat(amount_sat: Sat) -> Msat:
    """Exact."""
    return Msat(amount_sat * MSAT_PER_SAT)


def msat_to_sat_floor(amount_msat: Msat) -> Sat:
    """Round down: for what we show or give, so that it is never more than there is."""
    return Sat(amount_msat // MSAT_PER_SAT)


def two_digits_floor(amount_msat: Msat) -> Msat:
    """Round down to two digits: for a public figure of the bank, which must not reveal its payments."""
    step = 10 ** max(0, len(str(amount_msat)) - 2)
    return Msat(amount_msat // step * step)


def amount_text(amount_msat: Msat) -> str:
    """For people: in sat where it is whole."""
    if amount_msat % MSAT_PER_SAT:
        return f"{amount_msat:,} msat"
    return f"{msat_to_sat_floor(amount_msat):,} sat"


def share_ppm_ceil(amount_msat: Msat, rate_ppm: int) -> Msat:
    """Parts per million of an amount, rounded up to the next millisatoshi: for caps and fees."""
    return Msat(-(-amount_msat * rate_ppm // _PPM))


def sat_ceil(amount_msat: Msat) -> Msat:
    """Up to the next whole satoshi: for fees of what moves on chain."""
    return Msat(-(-amount_msat // MSAT_PER_SAT) * MSAT_PER_SAT)


# Other currencies: whole millionths of a unit ("micro"), written as decimal text


def parse_fiat(text: str) -> int | None:
    """Exact millionths of "64250.10". None unless it has 1 to 12 digits, and at most six decimals."""
    found = _FIAT.fullmatch(text)
    return None if found is None else int(found[1] + (found[2] or "").ljust(_FIAT_PLACES, "0"))


def fiat_text(micro: int) -> str:
    """Exact, with two decimals or as many as there are: "1000.00", "0.000001"."""
    whole, part = divmod(micro, 10**_FIAT_PLACES)
    return f"{whole}.{f'{part:06}'.rstrip('0').ljust(2, '0')}"


def msat_to_fiat_ceil(amount_msat: Msat, price_micro: int) -> int:
    """What an amount is worth at the price of one bitcoin, rounded up to the next millionth: for limits."""
    return -(-amount_msat * price_micro // _MSAT_PER_BTC)
