"""When and how a payout that no block takes pays more: a version with the same outputs, or a child of its change.

A new version keeps all inputs of the one before it, so that at most one of them is ever confirmed. Its outputs to
members stay as they are: what it pays more is ours. A node takes it only by BIP 125: it pays what it replaces (rule 3)
and its own relay on top (rule 4).
"""

from collections.abc import Collection, Iterable

from engine.domain.deposit import Outpoint
from engine.domain.money import Sat
from engine.domain.withdrawal.rules import BumpRules
from engine.domain.withdrawal.weight import fee_sat, virtual_bytes

_RATE_VBYTES = 1000


def more_is_due(
    rules: BumpRules, *, blocks: int, waited_s: int, paid_sat_kvb: int, now_sat_kvb: int, incremental: int
) -> bool:
    """Whether it should pay more by now: it has waited, and the rate for its target is now worth a replacement.

    `blocks` and `waited_s` count from the broadcast of the version in force. A rate that has not risen by what a
    replacement must add is no reason: the payout is paid well enough, and only blocks are slow. Who makes the next
    version, the rule or an operator, is not said here: see `BumpRules.most`.
    """
    has_waited = blocks >= rules.after_blocks or waited_s >= rules.after_s
    return has_waited and now_sat_kvb >= paid_sat_kvb + max(1, incremental)


def bump_fee(old_fee: Sat, weight: int, new_rate: int, incremental_rate: int) -> Sat:
    """What a new version of this weight pays: its rate, and at least the old fee and its own relay (BIP 125)."""
    return Sat(max(fee_sat(weight, new_rate), old_fee + fee_sat(weight, incremental_rate)))


def child_fee(parent_fee: Sat, parent_weight: int, child_weight: int, rate: int) -> Sat:
    """What a child pays so that both together pay the rate; at least its own part (CPFP)."""
    vbytes = virtual_bytes(parent_weight) + virtual_bytes(child_weight)
    together = -(-rate * vbytes // _RATE_VBYTES)
    return Sat(max(together - parent_fee, fee_sat(child_weight, rate)))


def conflicts_with_all(new_inputs: Collection[Outpoint], earlier_versions: Iterable[Collection[Outpoint]]) -> bool:
    """Whether the new version shares an input with each earlier one, so that a block can take only one of them."""
    inputs = set(new_inputs)
    return all(not inputs.isdisjoint(each) for each in earlier_versions)
