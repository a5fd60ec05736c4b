"""What a decision is about: a withdrawal or a payout, and whether it waits for that decision now."""

from dataclasses import dataclass

from api.http.codes import Forbidden
from engine.bank.account.api_key import comes_from_account
from engine.bank.withdrawal import payout, withdrawal
from engine.bank.withdrawal.rules import read_withdrawal_rules
from engine.domain.errors import Invalid, Refused, no_such
from engine.domain.ids import AccountId, ApiKeyId, PayoutId, WithdrawalId
from engine.domain.money import Sat
from engine.domain.withdrawal.decision import (
    LETS_GO,
    WithdrawalDecisionKind,
    not_waiting,
    operators_needed,
    own_account,
)
from engine.domain.withdrawal.withdrawal import PayoutStatus, WithdrawalStatus
from engine.ledger.database import Connection
from engine.views.withdrawal.payout import find_payout

_OF_WITHDRAWALS = frozenset(
    {
        WithdrawalDecisionKind.APPROVE,
        WithdrawalDecisionKind.REJECT,
        WithdrawalDecisionKind.HOLD,
        WithdrawalDecisionKind.RESUME,
    }
)
_OF_PAYOUTS = frozenset(WithdrawalDecisionKind) - {WithdrawalDecisionKind.APPROVE, WithdrawalDecisionKind.REJECT}
_PAY_MORE = frozenset({WithdrawalDecisionKind.BUMP, WithdrawalDecisionKind.CHILD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A withdrawal or a payout, as a decision sees it."""

    withdrawal_id: WithdrawalId | None = None
    payout_id: PayoutId | None = None
    account_id: AccountId | None = None
    amount_sat: Sat
    """Of the withdrawal, or all that the payout pays, with the fee as it will be."""
    operators: int
    """How many must agree."""
    refusal: Refused | None
    """Why it does not wait for this decision now."""


async def read_withdrawal(conn: Connection, withdrawal_id: str, kind: WithdrawalDecisionKind) -> Subject:
    """Raises NotFound, and Invalid for a kind that is decided about payouts."""
    if kind not in _OF_WITHDRAWALS:
        raise Invalid(f"'{kind}' is decided about a payout.", field="kind")
    row = await withdrawal.find_row(conn, WithdrawalId(withdrawal_id))
    if row is None:
        raise no_such("withdrawal")
    rules = await read_withdrawal_rules(conn)
    return Subject(
        withdrawal_id=row.id,
        account_id=row.account_id,
        amount_sat=row.amount_sat,
        operators=operators_needed(kind, row.amount_sat, rules),
        refusal=_refusal_of_withdrawal(kind, row),
    )


async def require_other_account(
    conn: Connection, key_id: str, kind: WithdrawalDecisionKind, account_id: AccountId | None
) -> None:
    """Raises Forbidden (`own_account`) where the key's owner would let a withdrawal of his own account go."""
    if account_id is not None and kind in LETS_GO and await comes_from_account(conn, ApiKeyId(key_id), account_id):
        refused = own_account()
        raise Forbidden(refused.detail, code=refused.code)


async def read_payout(
    conn: Connection, payout_id: str, kind: WithdrawalDecisionKind, rate_sat_kvb: int | None
) -> Subject:
    """Raises NotFound, and Invalid for a kind that is decided about withdrawals, and for a rate that may not be."""
    if kind not in _OF_PAYOUTS:
        raise Invalid(f"'{kind}' is decided about a withdrawal.", field="kind")
    if (rate_sat_kvb is not None) != (kind in _PAY_MORE):
        raise Invalid(f"'{kind}' {'needs' if kind in _PAY_MORE else 'takes no'} rate_sat_kvb.", field="rate_sat_kvb")
    row, shown = await payout.find_row(conn, PayoutId(payout_id)), await find_payout(conn, payout_id)
    if row is None or shown is None:
        raise no_such("payout")
    rules = await read_withdrawal_rules(conn)
    if rate_sat_kvb is not None and not rules.rate.floor <= rate_sat_kvb <= rules.rate.ceiling:
        bounds = f"{rules.rate.floor:,} and {rules.rate.ceiling:,}"
        raise Invalid(f"rate_sat_kvb lies between {bounds}, as the rules say.", field="rate_sat_kvb")
    amount_sat = Sat(shown["paid_sat"] + _fee_then(shown["fee_sat"], shown["rate_sat_kvb"], rate_sat_kvb))
    return Subject(
        payout_id=row.id,
        amount_sat=amount_sat,
        operators=operators_needed(kind, amount_sat, rules),
        refusal=_refusal_of_payout(kind, row, rate_sat_kvb, shown["rate_sat_kvb"]),
    )


def _fee_then(fee_sat: int | None, paid_sat_kvb: int | None, rate_sat_kvb: int | None) -> int:
    """What miners get once it is decided: a small payout at a high rate can cost more than it pays."""
    if not fee_sat or not paid_sat_kvb or not rate_sat_kvb:
        return fee_sat or 0
    return max(fee_sat, -(-fee_sat * rate_sat_kvb // paid_sat_kvb))


def _refusal_of_withdrawal(kind: WithdrawalDecisionKind, row: withdrawal.WithdrawalRow) -> Refused | None:
    """Why it does not wait for this now."""
    if row.status is not WithdrawalStatus.QUEUED:
        return not_waiting(f"it is {row.status}")
    if kind is WithdrawalDecisionKind.APPROVE and not row.waits_for_approval:
        return not_waiting("it needs no approval")
    if kind is WithdrawalDecisionKind.APPROVE and row.approval_is_late:
        return not_waiting("the time to approve it is over")
    if kind is WithdrawalDecisionKind.HOLD and row.on_hold:
        return not_waiting("it is on hold already")
    if kind is WithdrawalDecisionKind.RESUME and not row.on_hold:
        return not_waiting("it is not on hold")
    return None


def _refusal_of_payout(
    kind: WithdrawalDecisionKind, row: payout.PayoutRow, rate_sat_kvb: int | None, paid_sat_kvb: int | None
) -> Refused | None:
    """Why it does not wait for this now."""
    why = None
    if row.status in {PayoutStatus.FINAL, PayoutStatus.DISSOLVED}:
        why = f"it is {row.status}"
    elif kind is WithdrawalDecisionKind.HOLD and row.on_hold:
        why = "it is on hold already"
    elif kind is WithdrawalDecisionKind.RESUME and not row.on_hold:
        why = "it is not on hold"
    elif kind in _PAY_MORE and row.status not in {PayoutStatus.SIGNED, PayoutStatus.BROADCAST}:
        why = f"it is {row.status}"
    elif kind in _PAY_MORE and row.on_hold:
        why = "it is on hold; resume it first"
    elif rate_sat_kvb is not None and rate_sat_kvb <= (paid_sat_kvb or 0):
        why = f"it pays {paid_sat_kvb:,} sat per 1,000 vB already"
    if why is None:
        return None
    return Refused(f"This payout does not wait for this decision: {why}.", code="payout_not_waiting")
