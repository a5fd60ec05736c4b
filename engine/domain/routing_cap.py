"""The routing cap of a payment: the most that the Lightning network may take for carrying it.

    the payer names no `max_fee_msat`   the default: 1 % of the amount, and at least 5,000 msat; our fee comes on top
    the payer names one                 it bounds routing and our fee together, up to the highest cap and our fee

The highest cap is a multiple of the default: `max_fee_factor` in the rulebook of the limits.
"""

from engine.domain.errors import Invalid
from engine.domain.money import Msat, share_ppm_ceil

DEFAULT_MAX_FEE_FACTOR = 20
"""Where the rulebook names no `max_fee_factor`."""
HIGHEST_MAX_FEE_FACTOR = 1_000
"""The largest `max_fee_factor` that a rulebook may name."""

_DEFAULT_FLOOR_MSAT = Msat(5_000)
_DEFAULT_PPM = 10_000


def default_routing_cap(amount_msat: Msat) -> Msat:
    """The cap where the payer names none: 1 %, and at least 5,000 msat."""
    return max(_DEFAULT_FLOOR_MSAT, share_ppm_ceil(amount_msat, _DEFAULT_PPM))


def highest_routing_cap(amount_msat: Msat, max_fee_factor: int) -> Msat:
    """The largest cap that a payer may name."""
    return Msat(max_fee_factor * default_routing_cap(amount_msat))


def max_fee(routing_cap_msat: Msat, named_msat: Msat | None, service_fee_msat: Msat) -> Msat:
    """The most that a payment may cost on top of its amount: what the payer named, or routing cap and our fee."""
    return Msat(routing_cap_msat + service_fee_msat) if named_msat is None else named_msat


def require_max_fee_in_bounds(
    amount_msat: Msat, max_fee_msat: Msat, max_fee_factor: int, service_fee_msat: Msat = Msat(0)
) -> None:
    """Raises Invalid (`max_fee_too_high`) where `max_fee_msat` exceeds the highest routing cap and our fee together."""
    highest_msat = highest_routing_cap(amount_msat, max_fee_factor) + service_fee_msat
    if max_fee_msat > highest_msat:
        raise Invalid(
            f"The fees of a payment of this amount may be at most {highest_msat:,} msat; lower max_fee_msat.",
            code="max_fee_too_high",
            max_fee_msat=max_fee_msat,
            highest_msat=highest_msat,
        )
