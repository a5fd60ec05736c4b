"""Decide about a withdrawal or a payout: the use cases, for any door.

Every decision is a row first, with its reason. What one operator may decide is carried out at once. What lets much
money go waits for a second one (`engine/domain/withdrawal/decision.py`).
"""

from dataclasses import dataclass

from api.service.auth import Caller, still_may_in_tx
from api.service.idempotency import Outcome
from api.service.resources import Resources
from api.service.role import MAY
from api.service.withdrawal_decision.answer import WithdrawalDecisionOut, read
from api.service.withdrawal_decision.decide import carry_out_own
from engine.bank.audit import record_in_tx
from engine.bank.withdrawal import payout, withdrawal
from engine.bank.withdrawal.decision import NewWithdrawalDecision, propose_in_tx
from engine.bank.withdrawal.rules import read_withdrawal_rules
from engine.domain.errors import Conflict, Invalid, Refused, no_such
from engine.domain.ids import AccountId, PayoutId, WithdrawalDecisionId, WithdrawalId, id_for_key, new_id
from engine.domain.money import Sat
from engine.domain.withdrawal.decision import WithdrawalDecisionKind, not_waiting, operators_needed
from engine.domain.withdrawal.withdrawal import PayoutStatus, WithdrawalStatus
from engine.ledger.database import Connection, transaction
from engine.views.withdrawal.decision import find_withdrawal_decision
from engine.views.withdrawal.payout import find_payout

_SAME = ("withdrawal_id", "payout_id", "kind", "rate_sat_kvb", "reason", "proposed_by")
OF_WITHDRAWALS = frozenset(
    {
        WithdrawalDecisionKind.APPROVE,
        WithdrawalDecisionKind.REJECT,
        WithdrawalDecisionKind.HOLD,
        WithdrawalDecisionKind.RESUME,
    }
)
OF_PAYOUTS = frozenset(WithdrawalDecisionKind) - {WithdrawalDecisionKind.APPROVE, WithdrawalDecisionKind.REJECT}
_PAY_MORE = frozenset({WithdrawalDecisionKind.BUMP, WithdrawalDecisionKind.CHILD})


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionOrder:
    """What an operator wants, and why."""

    kind: WithdrawalDecisionKind
    reason: str
    rate_sat_kvb: int | None = None
    key: str | None = None
    """The idempotency key, if there is one: with it, also a repeat of what is done already finds the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What it is about."""

    withdrawal_id: WithdrawalId | None = None
    payout_id: PayoutId | None = None
    amount_sat: Sat
    account_id: AccountId | None = None


async def decide_withdrawal(
    resources: Resources, caller: Caller, withdrawal_id: str, order: DecisionOrder
) -> Outcome[WithdrawalDecisionOut]:
    """Approve, reject, hold or resume a withdrawal: at once, or as a proposal to a second operator.

    The same by the same operator while it is open is a repeat. Raises NotFound, Invalid, Refused
    (`withdrawal_not_waiting`), Conflict (`decision_open`), and Unavailable while its workflow does not answer.
    """
    caller.require_role(*MAY["decide about withdrawals"])
    if order.kind not in OF_WITHDRAWALS:
        raise Invalid(f"'{order.kind}' is decided about a payout.", field="kind")
    async with resources.reading() as conn:
        row = await withdrawal.find_row(conn, WithdrawalId(withdrawal_id))
    if row is None:
        raise no_such("withdrawal")
    subject = _Subject(withdrawal_id=row.id, amount_sat=row.amount_sat, account_id=row.account_id)
    return await _decide(resources, caller, subject, order, _refusal_of_withdrawal(order.kind, row))


async def decide_payout(
    resources: Resources, caller: Caller, payout_id: str, order: DecisionOrder
) -> Outcome[WithdrawalDecisionOut]:
    """Hold, resume, bump or pull a payout with a child; as `decide_withdrawal`. Refused: `payout_not_waiting`."""
    caller.require_role(*MAY["decide about payouts"])
    if order.kind not in OF_PAYOUTS:
        raise Invalid(f"'{order.kind}' is decided about a withdrawal.", field="kind")
    if order.rate_sat_kvb is not None and order.kind not in _PAY_MORE:
        raise Invalid(f"'{order.kind}' takes no rate_sat_kvb.", field="rate_sat_kvb")
    async with resources.reading() as conn:
        row = await payout.find_row(conn, PayoutId(payout_id))
        shown = await find_payout(conn, payout_id)
        rules = await read_withdrawal_rules(conn)
    if row is None or shown is None:
        raise no_such("payout")
    if order.rate_sat_kvb is not None and not rules.rate.floor <= order.rate_sat_kvb <= rules.rate.ceiling:
        bounds = f"{rules.rate.floor:,} and {rules.rate.ceiling:,}"
        raise Invalid(f"rate_sat_kvb lies between {bounds}, as the rules say.", field="rate_sat_kvb")
    amount_sat = Sat(shown["paid_sat"] + (shown["fee_sat"] or 0))
    subject = _Subject(payout_id=row.id, amount_sat=amount_sat)
    return await _decide(resources, caller, subject, order, _refusal_of_payout(order.kind, row))


async def _decide(
    resources: Resources, caller: Caller, subject: _Subject, order: DecisionOrder, refusal: Refused | None
) -> Outcome[WithdrawalDecisionOut]:
    wanted_id = id_for_key("wdec", caller.owner, order.key) if order.key else new_id("wdec")
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        known_id = await _propose_in_tx(conn, caller, subject, order, WithdrawalDecisionId(wanted_id), refusal)
        is_new = known_id is None
    async with resources.reading() as conn:
        known = await read(conn, known_id or wanted_id)
    if known.operators == 1:
        known = await carry_out_own(resources, caller, known)
    return Outcome(known, is_replay=not is_new)


async def _propose_in_tx(
    conn: Connection,
    caller: Caller,
    subject: _Subject,
    order: DecisionOrder,
    wanted_id: WithdrawalDecisionId,
    refusal: Refused | None,
) -> str | None:
    """Write the proposal. The id of an earlier one that this repeats; None: it is new."""
    rules = await read_withdrawal_rules(conn)
    new = NewWithdrawalDecision(
        id=wanted_id,
        withdrawal_id=subject.withdrawal_id,
        payout_id=subject.payout_id,
        kind=order.kind,
        amount_sat=subject.amount_sat,
        rate_sat_kvb=order.rate_sat_kvb,
        operators=operators_needed(order.kind, subject.amount_sat, rules),
        reason=order.reason,
        proposed_by=caller.owner,
    )
    earlier = await find_withdrawal_decision(conn, wanted_id)
    if earlier is not None:
        if any(earlier[name] != getattr(new, name) for name in _SAME):
            raise Conflict("This Idempotency-Key was used for another decision; take a new one.")
        return wanted_id
    if refusal is not None:
        raise refusal
    known = await propose_in_tx(conn, new)
    if known != wanted_id:
        return known
    said: dict[str, object] = {"kind": new.kind, "payout_id": new.payout_id, "withdrawal_id": new.withdrawal_id}
    said |= {"rate_sat_kvb": new.rate_sat_kvb, "reason": new.reason}
    act = caller.act("withdrawal_decision.propose", account_id=subject.account_id, subject=known, **said)
    await record_in_tx(conn, act)
    return None


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


def _refusal_of_payout(kind: WithdrawalDecisionKind, row: payout.PayoutRow) -> Refused | None:
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
    if why is None:
        return None
    return Refused(f"This payout does not wait for this decision: {why}.", code="payout_not_waiting")
