"""Carries out what operators have decided about a withdrawal. The caller has locked its row.

So the decision comes before or after a cancellation, a place in a payout, and the end of the time for an approval, and
sees what came before. Money, row, decision and audit line are one transaction. A second call finds what the first did.
"""

from activities.withdrawal.ending import REJECTED, fail_in_tx
from engine.bank.account.api_key import comes_from_account
from engine.bank.audit import Act, record_in_tx
from engine.bank.withdrawal.decision import WithdrawalDecisionRow, find_row_in_tx, mark_in_tx
from engine.bank.withdrawal.withdrawal import WithdrawalRow, approve_in_tx, set_hold_in_tx
from engine.contracts.withdrawal import WithdrawalApproval
from engine.domain.errors import Refused
from engine.domain.forced_end import DecisionStatus
from engine.domain.ids import ApiKeyId
from engine.domain.withdrawal.decision import (
    LETS_GO,
    WithdrawalDecisionKind,
    not_waiting,
    own_account,
    require_another,
)
from engine.domain.withdrawal.withdrawal import WithdrawalStatus
from engine.ledger.database import Connection


class Decisions:
    """Carries decisions out, in the caller's transaction."""

    async def carry_out_in_tx(self, conn: Connection, row: WithdrawalRow, approval: WithdrawalApproval) -> None:
        """Do what was proposed.

        Raises Refused (`decision_made`, `own_proposal`, `own_account`, `withdrawal_not_waiting`).
        """
        word = await find_row_in_tx(conn, approval.decision)
        if word is None or word.withdrawal_id != row.id:
            raise Refused("This decision is about another withdrawal.", code="decision_made")
        if word.status is DecisionStatus.DONE and word.decided_by == approval.operator:
            return
        if word.status is not DecisionStatus.PROPOSED:
            raise Refused(f"{word.id} is {word.status} already.", code="decision_made")
        require_another(word.operators, proposed_by=word.proposed_by, operator=approval.operator)
        if word.kind in LETS_GO and await comes_from_account(conn, ApiKeyId(approval.key_id), row.account_id):
            raise own_account()
        await _act_in_tx(conn, row, word, approval)
        await mark_in_tx(conn, word.id, DecisionStatus.DONE, operator=approval.operator, note=approval.note)
        await record_in_tx(conn, _line(row, word, approval))


async def _act_in_tx(
    conn: Connection, row: WithdrawalRow, word: WithdrawalDecisionRow, approval: WithdrawalApproval
) -> None:
    if row.status is not WithdrawalStatus.QUEUED:
        raise not_waiting(f"it is {row.status}")
    match word.kind:
        case WithdrawalDecisionKind.APPROVE:
            if not row.waits_for_approval:
                raise not_waiting("it needs no approval")
            if row.approval_is_late:
                raise not_waiting("its time is over, and it ends by itself")
            await approve_in_tx(conn, row.id)
        case WithdrawalDecisionKind.REJECT:
            detail = "It was refused by the bank. All of it is free again."
            await fail_in_tx(conn, row, code=REJECTED, detail=detail, actor=approval.operator)
        case WithdrawalDecisionKind.HOLD | WithdrawalDecisionKind.RESUME:
            on_hold = word.kind is WithdrawalDecisionKind.HOLD
            if row.on_hold is on_hold:
                raise not_waiting("it is on hold already" if on_hold else "it is not on hold")
            await set_hold_in_tx(conn, row.id, on_hold=on_hold)
        case _:
            raise not_waiting("this is decided about payouts")


def _line(row: WithdrawalRow, word: WithdrawalDecisionRow, approval: WithdrawalApproval) -> Act:
    return Act(
        operator=approval.operator,
        key_id=approval.key_id,
        action="withdrawal_decision.approve",
        account_id=row.account_id,
        subject=word.id,
        detail={
            "withdrawal_id": row.id,
            "kind": word.kind,
            "amount_sat": word.amount_sat,
            "operators": word.operators,
            "proposed_by": word.proposed_by,
            "note": approval.note,
        },
    )
