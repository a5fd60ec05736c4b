"""Whose deposits a coin of the hot wallet descends from.

    a coin                                     descends from
    whose transaction spends coins of ours     all that its inputs descend from, and the account of its address, if any
    that is change of a payout                 those too for whom the payout pays: the chain shows both side by side
    whose transaction spends none              the account of its address, else `UNKNOWN`
    that the adoption found in the wallet      nobody: it is the house's own

Pure: accounts and outpoints in, accounts out.
"""

from dataclasses import dataclass, field

UNKNOWN = "unknown"
"""The origin of a deposit that is nobody's, and of a coin whose inputs are not recorded yet."""


@dataclass(frozen=True, slots=True)
class Family:
    """Coins whose origins are sought, and what they depend on."""

    paid: dict[tuple[str, int], set[str]] = field(default_factory=dict[tuple[str, int], set[str]])
    """Each of these coins, with the account that it was paid to, if any, and those that its payout pays for."""
    inputs: dict[str, list[tuple[str, int]]] = field(default_factory=dict[str, list[tuple[str, int]]])
    """The coins of ours that a transaction spends."""
    known: dict[tuple[str, int], frozenset[str]] = field(default_factory=dict[tuple[str, int], frozenset[str]])
    """The origins of coins that are not sought."""


def trace(family: Family) -> dict[tuple[str, int], frozenset[str]]:
    """The origins of each coin, parents before children."""
    found: dict[tuple[str, int], frozenset[str]] = {}
    waiting = list(family.paid)
    while waiting:
        coin = waiting[-1]
        inputs = family.inputs.get(coin[0], [])
        if coin not in found:
            missing = [each for each in inputs if each in family.paid and each not in found]
            if missing:
                waiting += missing
                continue
            inherited = [found[each] if each in found else family.known.get(each, frozenset()) for each in inputs]
            own = family.paid[coin] or (set() if inputs else {UNKNOWN})
            found[coin] = frozenset(own.union(*inherited))
        waiting.pop()
    return found
