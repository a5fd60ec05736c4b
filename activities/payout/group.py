"""Who of a queue may go together, and who is due now."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.bank.withdrawal import queue
from engine.contracts.batcher import Batcher
from engine.domain.deposit import Outpoint
from engine.domain.withdrawal.fee_rate import Rate
from engine.domain.withdrawal.rules import WithdrawalRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What is the same for all payouts of one call."""

    batcher: Batcher
    rules: WithdrawalRules
    rate: Rate
    frozen: frozenset[Outpoint]
    address_type: str


def due_groups(this: Round, waiting: Sequence[queue.Queued]) -> list[list[queue.Queued]]:
    """Those that may go together and are due now, by the age of the oldest.

    Unlinked ones go together, and one by one where that fails.
    """
    speed = this.rules.speeds[this.batcher.speed]
    groups = [[each] for each in waiting if each.alone]
    for unlinked in (False, True):
        together = [each for each in waiting if not each.alone and each.unlinked is unlinked]
        is_due = this.batcher.flush or len(together) >= speed.count
        if together and (is_due or together[0].waited_s >= speed.window_s):
            groups.append(together)
            groups += [[each] for each in together] if unlinked and len(together) > 1 else []
    return sorted(groups, key=lambda group: (group[0].created_at, group[0].id))
