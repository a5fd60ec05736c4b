"""How a miner fee is shared: by output weight, in whole satoshi, the sum exactly the fee.

Each part is rounded down; the satoshi left over go to the largest remainders, one each, and of equal ones to the first.
A fee of 100 over the weights 124, 124, 172 gives 30, 29, 41: the exact parts are 29.52…, 29.52… and 40.95….
"""

from collections.abc import Sequence

from engine.domain.errors import InvariantBroken
from engine.domain.money import Sat


def split(total_sat: Sat, weights: Sequence[int]) -> list[Sat]:
    """The parts, in the order of the weights. Raises InvariantBroken when there is nobody to share a fee."""
    whole = sum(weights)
    if total_sat < 0 or min(weights, default=0) < 0 or (whole == 0 and (total_sat > 0 or weights)):
        raise InvariantBroken(f"{total_sat} sat cannot be shared over the weights {list(weights)[:10]}.")
    parts = [total_sat * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: (-(total_sat * weights[place] % whole), place))
    for place in by_remainder[: total_sat - sum(parts)]:
        parts[place] += 1
    return [Sat(part) for part in parts]
