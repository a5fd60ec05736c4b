"""How a withdrawal stands, in the words of its workflow."""

from engine.bank.withdrawal.withdrawal import WithdrawalRow
from engine.contracts.withdrawal import WithdrawalState
from engine.domain.withdrawal.withdrawal import WithdrawalStatus

_AFTER_THE_QUEUE = {
    WithdrawalStatus.BATCHED: "its payout to be signed and sent",
    WithdrawalStatus.BROADCAST: "a block",
}


def state_of(row: WithdrawalRow) -> WithdrawalState:
    """By its row alone."""
    queued = row.status is WithdrawalStatus.QUEUED
    return WithdrawalState(
        status=row.status,
        speed=row.speed,
        amount_sat=row.amount_sat,
        waits_for=_waits_for(row),
        needs_operator=queued and (row.waits_for_approval or row.on_hold),
        joins=queued and not row.waits_for_approval and not row.on_hold,
        payout_id=row.payout_id,
        txid=row.txid,
        approve_in_s=None if row.approve_in_s is None else max(0, row.approve_in_s),
        failure=row.failure_code,
    )


def _waits_for(row: WithdrawalRow) -> str:
    if row.status is not WithdrawalStatus.QUEUED:
        return _AFTER_THE_QUEUE.get(row.status, "nothing")
    if row.on_hold:
        return "an operator who resumes it"
    if row.waits_for_approval:
        return "an operator's approval"
    if row.account_status != "active":
        return f"its account, which is {row.account_status}"
    return row.waits_for or "its turn in the next payout"
