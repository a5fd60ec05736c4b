"""Carries out what two operators have decided about a deposit: it goes to a wallet, or a receivable is given up.

The deposit's row is locked first, as by every step of the books. So the decision is carried out before or after a step,
and sees what the step has left: a deposit that a reorganisation took back meanwhile is not released. Posting, row,
the origin of its coin, decision and audit line are one transaction. A second call finds what the first did.
"""

from temporalio import activity

from activities.deposit.release import Release
from engine.bank.audit import Act, record_in_tx
from engine.bank.chain import receivable
from engine.bank.chain.coin import retrace_in_tx
from engine.bank.chain.deposit import DepositRow, get_rows_in_tx
from engine.bank.chain.deposit_decision import DepositDecisionRow, find_row_in_tx, mark_in_tx
from engine.contracts.deposit import DecideDeposit, DepositApproval, DepositDecisionActivities
from engine.domain.deposit_decision import Decidable, DepositDecisionKind, not_waiting, require_waiting
from engine.domain.errors import Refused
from engine.domain.forced_end import DecisionStatus
from engine.domain.ids import AccountId
from engine.ledger.chart import Chart
from engine.ledger.database import Connection, Pool, transaction


class DepositDecisions(DepositDecisionActivities):
    """Needs Postgres and nothing else."""

    def __init__(self, pool: Pool, ids: Chart) -> None:
        self._pool = pool
        self._release = Release(ids)

    @activity.defn
    async def decide_deposit(self, decide: DecideDeposit) -> str:
        approval = decide.approval
        async with transaction(self._pool) as conn:
            (row,) = await get_rows_in_tx(conn, [decide.deposit])
            word = await find_row_in_tx(conn, approval.decision)
            if word is None or word.deposit_id != row.id:
                raise Refused("This decision is about another deposit.", code="decision_made")
            if word.status is DecisionStatus.DONE and word.decided_by == approval.operator:
                return row.booked.release_ref or ""
            if word.status is not DecisionStatus.PROPOSED:
                raise Refused(f"{word.id} is {word.status} already.", code="decision_made")
            if word.proposed_by == approval.operator:
                raise Refused("Nobody approves what he proposed himself.", code="own_proposal")
            account, ref = await self._carry_out_in_tx(conn, row, word, approval)
            await mark_in_tx(
                conn, word.id, DecisionStatus.DONE, operator=approval.operator, note=approval.note, ref=ref or None
            )
            await record_in_tx(conn, _line(word, approval, account, ref))
        return ref

    async def _carry_out_in_tx(
        self, conn: Connection, row: DepositRow, word: DepositDecisionRow, approval: DepositApproval
    ) -> tuple[AccountId | None, str]:
        """(whose account it is about, the reference of the posting)."""
        owed = await receivable.list_open_in_tx(conn, row.id)
        if row.facts.is_booked and not row.facts.booking_is_of_this:
            raise not_waiting("another transaction has taken the place of its own, and the books follow")
        require_waiting(word.kind, _facts(row, has_receivable=bool(owed)))
        if word.kind is not DepositDecisionKind.FORGIVE:
            account, ref = await self._release.to_wallet_in_tx(conn, row, word, operator=approval.operator)
            await retrace_in_tx(conn, [row.txid])
            return account, ref
        if word.receivable_id is None or word.receivable_id not in {each.id for each in owed}:
            raise not_waiting("this receivable is not open any more")
        await receivable.end_in_tx(conn, word.receivable_id, "forgiven", by=approval.operator)
        return row.booked.account_id, ""


def _facts(row: DepositRow, *, has_receivable: bool) -> Decidable:
    return Decidable(
        status=row.booked.status,
        sight=row.sight,
        place=row.booked.place,
        is_released=row.booked.release_ref is not None,
        has_receivable=has_receivable,
    )


def _line(word: DepositDecisionRow, approval: DepositApproval, account: AccountId | None, ref: str) -> Act:
    return Act(
        operator=approval.operator,
        key_id=approval.key_id,
        action="deposit_decision.approve",
        account_id=account,
        subject=word.id,
        detail={
            "deposit_id": word.deposit_id,
            "kind": word.kind,
            "amount_msat": word.amount_msat,
            "receivable_id": word.receivable_id,
            "ref": ref or None,
            "proposed_by": word.proposed_by,
            "note": approval.note,
        },
    )
