"""Carry decisions about withdrawals and payouts out: the use cases, for any door.

What needs two people waits for the second one (`two_operators.py`). What one decides alone is done at once.
"""

from functools import partial

from api.service import two_operators
from api.service.auth import Caller, still_may_in_tx
from api.service.resources import Resources
from api.service.withdrawal_decision.answer import WithdrawalDecisionOut, read
from api.service.withdrawal_decision.carry_out import NOT_WAITING, carry_out
from api.service.withdrawal_decision.subject import require_other_account
from engine.bank.audit import record_in_tx
from engine.bank.withdrawal import withdrawal
from engine.bank.withdrawal.decision import find_row_in_tx, mark_in_tx
from engine.domain.errors import InvariantBroken, Refused, Unavailable, no_such
from engine.domain.forced_end import DecisionStatus
from engine.domain.ids import AccountId, WithdrawalDecisionId, WithdrawalId
from engine.ledger.database import Connection, transaction


async def approve_withdrawal_decision(
    resources: Resources, caller: Caller, decision_id: str, *, note: str = ""
) -> WithdrawalDecisionOut:
    """The decision, once it is carried out.

    Raises as `two_operators.approve`, Forbidden (`own_account`), and Refused (`withdrawal_not_waiting`,
    `payout_not_waiting`) when the withdrawal or the payout has changed meanwhile: reject the decision then.
    """
    read_it = partial(_read_to_approve, caller=caller, decision_id=decision_id)
    return await two_operators.approve(resources, caller, read_it, partial(carry_out, resources, caller, note))


async def reject_withdrawal_decision(
    resources: Resources, caller: Caller, decision_id: str, *, reason: str
) -> WithdrawalDecisionOut:
    """The decision, rejected or taken back. Raises as `two_operators.reject`."""
    read_it = partial(_read_to_decide, caller=caller, decision_id=decision_id)
    return await two_operators.reject(resources, caller, read_it, partial(_mark_rejected, resources, caller, reason))


async def carry_out_own(resources: Resources, caller: Caller, known: WithdrawalDecisionOut) -> WithdrawalDecisionOut:
    """Do at once what one operator decides alone. Where it has become needless, the row is closed, and this raises.

    Raises as `approve_withdrawal_decision`. After Unavailable the same proposal again carries it out.
    """
    if known.operators != 1:
        raise InvariantBroken(f"{known.id} needs a second operator")
    if known.is_open:
        try:
            await carry_out(resources, caller, known.reason, known)
        except Refused as refusal:
            if refusal.code in NOT_WAITING:
                await _mark_rejected(resources, caller, refusal.detail[:1000], known)
            raise
        async with resources.reading() as conn:
            known = await read(conn, known.id)
    if known.is_open:
        raise Unavailable(f"{known.id} is not carried out yet", code="temporarily_unavailable")
    if known.approved_by is None:
        raise known.decided()
    return known


async def _read_to_decide(conn: Connection, *, caller: Caller, decision_id: str) -> WithdrawalDecisionOut:
    known = await read(conn, decision_id)
    caller.require_role(*known.roles)
    return known


async def _read_to_approve(conn: Connection, *, caller: Caller, decision_id: str) -> WithdrawalDecisionOut:
    known = await _read_to_decide(conn, caller=caller, decision_id=decision_id)
    withdrawal_id = None if known.withdrawal_id is None else WithdrawalId(known.withdrawal_id)
    await require_other_account(conn, caller.key_id, known.kind, await _account_of(conn, withdrawal_id))
    return known


async def _mark_rejected(resources: Resources, caller: Caller, reason: str, known: WithdrawalDecisionOut) -> None:
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        row = await find_row_in_tx(conn, WithdrawalDecisionId(known.id))
        if row is None:
            raise no_such("decision about a withdrawal or a payout")
        if row.status is not DecisionStatus.PROPOSED:
            return
        await mark_in_tx(conn, row.id, DecisionStatus.REJECTED, operator=caller.owner, note=reason)
        account = await _account_of(conn, row.withdrawal_id)
        act = caller.act("withdrawal_decision.reject", account_id=account, subject=row.id, note=reason)
        await record_in_tx(conn, act)


async def _account_of(conn: Connection, withdrawal_id: WithdrawalId | None) -> AccountId | None:
    row = None if withdrawal_id is None else await withdrawal.find_row(conn, withdrawal_id)
    return None if row is None else row.account_id
