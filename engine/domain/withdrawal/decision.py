"""What operators decide about withdrawals and payouts. Rules that need no books.

    kind       of what           when                                     what it does
    approve    a withdrawal      it is large, and its time is not over    its batcher may take it
    reject     a withdrawal      it is in the queue                       ends it: all of the hold is free again
    hold       both              it waits, or a payout is not final       no further step is taken
    resume     both              it is on hold                            steps are taken again
    bump       a payout          it is sent, and no block has it          its next version pays this rate
    child      a payout          the same                                 another payout spends its change at this rate

Whatever lets money go that a limit has stopped, or pays a miner more, needs two people above an amount. To stop
something, one is enough at any time. Nobody lets a withdrawal of his own account go.
"""

from enum import StrEnum

from engine.domain.errors import Refused
from engine.domain.money import Sat
from engine.domain.withdrawal.rules import WithdrawalRules


class WithdrawalDecisionKind(StrEnum):
    """What is decided."""

    APPROVE = "approve"
    REJECT = "reject"
    HOLD = "hold"
    RESUME = "resume"
    BUMP = "bump"
    CHILD = "child"


LETS_GO = frozenset({WithdrawalDecisionKind.APPROVE, WithdrawalDecisionKind.RESUME})
"""After these a withdrawal goes out."""
_STOPS = frozenset({WithdrawalDecisionKind.REJECT, WithdrawalDecisionKind.HOLD})


def operators_needed(kind: WithdrawalDecisionKind, amount_sat: Sat, rules: WithdrawalRules) -> int:
    """How many people decide it: 1 or 2. `amount_sat` is the withdrawal's, or all that the payout pays."""
    return 2 if kind not in _STOPS and amount_sat > rules.second_operator_above_sat else 1


def require_another(operators: int, *, proposed_by: str, operator: str) -> None:
    """Raises Refused (`own_proposal`) when two people are needed, and it is the same one."""
    if operators > 1 and proposed_by == operator:
        raise Refused("Nobody approves what he proposed himself.", code="own_proposal")


def own_account() -> Refused:
    """The refusal of whoever would let a withdrawal of his own account go."""
    return Refused(
        "You cannot let a withdrawal of your own account go: another operator must.",
        code="own_account",
    )


def not_waiting(why: str) -> Refused:
    """The refusal of a decision that the withdrawal does not need now."""
    return Refused(f"This withdrawal does not wait for this decision: {why}.", code="withdrawal_not_waiting")
