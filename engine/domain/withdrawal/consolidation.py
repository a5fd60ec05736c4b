"""When small coins of the wallet are joined, and which: by the rulebook's `consolidation`, which is off by default.

    the rate        an estimate that counts, at or below `below_rate`; never a fallback
    the coins       those above `above_coins`, the smallest first; the others stay free for payouts meanwhile
    the origins     the house's coins among themselves, customers' among themselves

A joined coin descends from whatever its inputs descend from. The house's coins may pay everybody's unlinked
withdrawals, so none of them is joined with a customer's. Whoever's deposit goes into a joined coin can no longer be
paid unlinked with the others in it: they are the smallest coins of the wallet.
"""

from collections.abc import Collection, Sequence

from engine.domain.deposit import Outpoint
from engine.domain.withdrawal.coin_choice import Candidate, Choice, Target, choose, cost
from engine.domain.withdrawal.fee_rate import Rate
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.script import input_weight, output_weight

_FEWEST = 2


def is_due(rate: Rate, coins: int, rules: WithdrawalRules) -> bool:
    """Whether the rule wants coins to be joined at this rate, when the wallet has so many that are free."""
    rule = rules.consolidation
    return rule.enabled and not rate.is_fallback and rate.rate_sat_kvb <= rule.below_rate and coins > rule.above_coins


def plan_consolidation(
    coins: Sequence[Candidate],
    of_customers: Collection[Outpoint],
    rate_sat_kvb: int,
    rules: WithdrawalRules,
    change_script: bytes,
    *,
    unknown: Collection[Outpoint] = (),
) -> Choice | None:
    """The coins that become one, house's or customers', whichever gains more. None: neither gains, or is useful.

    `coins` are all that are free; `of_customers` descend from a deposit. Those of `unknown` origin are left alone, and
    are among those that stay free: so many as the rule says.
    """
    most = min(rules.coins.max_inputs, len(coins) - rules.consolidation.above_coins + 1)
    target = Target(
        outputs_sat=0,
        outputs_weights=(),
        change_weight=output_weight(change_script),
        change_input_weight=input_weight(change_script),
        rate_sat_kvb=rate_sat_kvb,
        long_term_rate=rules.coins.long_term_rate,
        useful_change_sat=rules.coins.useful_change_sat,
        max_inputs=most,
    )
    known = [each for each in coins if each.outpoint not in unknown]
    pools = [[each for each in known if (each.outpoint in of_customers) is owned] for owned in (False, True)]
    found = [choose(pool, target) for pool in pools]
    gains = [each for each in found if each is not None and len(each.coins) >= _FEWEST and cost(each, target) < 0]
    return min(gains, key=lambda each: cost(each, target), default=None)
