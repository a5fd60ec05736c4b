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
from api.service.withdrawal_decision.subject import Subject, read_payout, read_withdrawal, require_other_account
from engine.bank.audit import record_in_tx
from engine.bank.withdrawal.decision import NewWithdrawalDecision, propose_in_tx
from engine.domain.errors import Conflict
from engine.domain.ids import WithdrawalDecisionId, id_for_key, new_id
from engine.domain.withdrawal.decision import WithdrawalDecisionKind
from engine.ledger.database import Connection, transaction
from engine.views.withdrawal.decision import find_withdrawal_decision

_SAME = ("withdrawal_id", "payout_id", "kind", "rate_sat_kvb", "reason", "proposed_by")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionOrder:
    """What an operator wants, and why."""

    kind: WithdrawalDecisionKind
    reason: str
    rate_sat_kvb: int | None = None
    key: str | None = None
    """The idempotency key, if there is one: with it, also a repeat of what is done already finds the first."""


async def decide_withdrawal(
    resources: Resources, caller: Caller, withdrawal_id: str, order: DecisionOrder
) -> Outcome[WithdrawalDecisionOut]:
    """Approve, reject, hold or resume a withdrawal: at once, or as a proposal to a second operator.

    The same by the same operator while it is open is a repeat. Raises NotFound, Invalid, Refused
    (`withdrawal_not_waiting`), Forbidden (`own_account`: whoever would let a withdrawal of his own go), Conflict
    (`decision_open`), and Unavailable while its workflow does not answer.
    """
    caller.require_role(*MAY["decide about withdrawals"])
    async with resources.reading() as conn:
        subject = await read_withdrawal(conn, withdrawal_id, order.kind)
    return await _decide(resources, caller, subject, order)


async def decide_payout(
    resources: Resources, caller: Caller, payout_id: str, order: DecisionOrder
) -> Outcome[WithdrawalDecisionOut]:
    """Hold, resume, bump or pull a payout with a child; as `decide_withdrawal`. Refused: `payout_not_waiting`."""
    caller.require_role(*MAY["decide about payouts"])
    async with resources.reading() as conn:
        subject = await read_payout(conn, payout_id, order.kind, order.rate_sat_kvb)
    return await _decide(resources, caller, subject, order)


async def _decide(
    resources: Resources, caller: Caller, subject: Subject, order: DecisionOrder
) -> Outcome[WithdrawalDecisionOut]:
    wanted_id = id_for_key("wdec", caller.owner, order.key) if order.key else new_id("wdec")
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        await require_other_account(conn, caller.key_id, order.kind, subject.account_id)
        known_id = await _propose_in_tx(conn, caller, subject, order, WithdrawalDecisionId(wanted_id))
        is_new = known_id is None
    async with resources.reading() as conn:
        known = await read(conn, known_id or wanted_id)
    if known.operators == 1:
        known = await carry_out_own(resources, caller, known)
    return Outcome(known, is_replay=not is_new)


async def _propose_in_tx(
    conn: Connection,
    caller: Caller,
    subject: Subject,
    order: DecisionOrder,
    wanted_id: WithdrawalDecisionId,
) -> str | None:
    """Write the proposal. The id of an earlier one that this repeats; None: it is new."""
    new = NewWithdrawalDecision(
        id=wanted_id,
        withdrawal_id=subject.withdrawal_id,
        payout_id=subject.payout_id,
        kind=order.kind,
        amount_sat=subject.amount_sat,
        rate_sat_kvb=order.rate_sat_kvb,
        operators=subject.operators,
        reason=order.reason,
        proposed_by=caller.owner,
    )
    earlier = await find_withdrawal_decision(conn, wanted_id)
    if earlier is not None:
        if any(earlier[name] != getattr(new, name) for name in _SAME):
            raise Conflict("This Idempotency-Key was used for another decision; take a new one.")
        return wanted_id
    if subject.refusal is not None:
        raise subject.refusal
    known = await propose_in_tx(conn, new)
    if known != wanted_id:
        return known
    said: dict[str, object] = {"kind": new.kind, "payout_id": new.payout_id, "withdrawal_id": new.withdrawal_id}
    said |= {"rate_sat_kvb": new.rate_sat_kvb, "reason": new.reason}
    act = caller.act("withdrawal_decision.propose", account_id=subject.account_id, subject=known, **said)
    await record_in_tx(conn, act)
    return None
