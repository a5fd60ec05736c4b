"""The rulebook "withdrawals" as the bank begins with it, with what a test changes."""

import copy
import json
from typing import Any

from engine.domain.withdrawal.rules import WithdrawalRules, parse_rules
from engine.ledger.database import Pool

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


async def read_rules(pool: Pool) -> dict[str, Any]:
    """The version in force of a bank of its own."""
    text = "SELECT content::text FROM bank.rulebooks WHERE name = 'withdrawals' ORDER BY version DESC LIMIT 1"
    found: dict[str, Any] = json.loads(await pool.fetchval(text))
    return found


async def set_rules(pool: Pool, **groups: Any) -> None:
    """Another version, in which these values stand in for those of the same name at the top."""
    await pool.execute(
        """INSERT INTO bank.rulebooks(name, version, content, note, set_by)
           SELECT 'withdrawals', max(version) + 1, $1, 'a test', 'test'
             FROM bank.rulebooks WHERE name = 'withdrawals'""",
        await read_rules(pool) | groups,
    )


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
