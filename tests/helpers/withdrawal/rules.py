"""The rulebook "withdrawals" as the bank begins with it, with what a test changes."""

import copy
from typing import Any

from engine.domain.withdrawal.rules import WithdrawalRules, parse_rules

_FIRST: dict[str, Any] = {
    "minimum_sat": 1000,
    "approval_above_sat": 10_000_000,
    "second_operator_above_sat": 100_000_000,
    "approval_hours": 24,
    "speeds": {
        "fast": {"target_blocks": 2, "window_s": 30, "count": 100},
        "standard": {"target_blocks": 6, "window_s": 600, "count": 100},
        "slow": {"target_blocks": 144, "window_s": 7200, "count": 200},
    },
    "rate": {"floor": 1000, "ceiling": 500_000, "fallback": 10_000, "stale_s": 3600},
    "coins": {"min_depth": 1, "useful_change_sat": 10_000, "long_term_rate": 10_000, "max_inputs": 200},
    "max_outputs": 200,
    "deep": 6,
    "bump": {"after_blocks": 3, "after_s": 3600, "most": 10},
    "consolidation": {"enabled": False, "below_rate": 3000, "above_coins": 500},
}


def rules_content() -> dict[str, Any]:
    """To be changed by its caller."""
    return copy.deepcopy(_FIRST)


def rules(**changed: Any) -> WithdrawalRules:
    """With these values; `coins__max_inputs=3` names one of a group."""
    content = rules_content()
    for name, value in changed.items():
        group, _, inner = name.partition("__")
        if inner:
            content[group][inner] = value
        else:
            content[group] = value
    return parse_rules(content)
