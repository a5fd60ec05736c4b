"""Carries out what two operators have decided about a deposit: it goes to a wallet, or a receivable is given up.

The deposit's row is locked first, as by every step of the books. So the decision is carried out before or after a step,
and sees what the step has left: a deposit that a reorganisation took back meanwhile is not released. Posting, row,
decision and audit line are one transaction. A second call finds what the first did.
"""

from temporalio import activity

from activities.chain.booking import repay_in_tx
from engine.bank.account.account import payee_closed
from engine.bank.audit import Act, record_in_tx
from engine.bank.chain import receivable
from engine.bank.chain.deposit import DepositRow, get_rows_in_tx, write_booked_in_tx
from engine.bank.chain.deposit_decision import DepositDecisionRow, find_owner_of, find_row_in_tx, mark_in_tx
from engine.bank.fee_schedule import FeeBook
from engine.bank.limit import Payer, find_payer
from engine.contracts.deposit import DecideDeposit, DepositApproval, DepositDecisionActivities
from engine.domain.deposit import DepositStatus
from engine.domain.deposit_decision import Decidable, DepositDecisionKind, not_waiting, require_waiting
from engine.domain.errors import Refused
from engine.domain.forced_end import DecisionStatus
from engine.domain.ids import AccountId, WalletId
from engine.domain.money import Msat
from engine.ledger.chart import Chart
from engine.ledger.database import Connection, Pool, transaction
from engine.ledger.postings.deposit import released
from engine.ledger.store import post_new_in_tx


class DepositDecisions(DepositDecisionActivities):
    """Needs Postgres and nothing else."""

    def __init__(self, pool: Pool, ids: Chart) -> None:
        self._pool = pool
        self._ids = ids
        self._fees = FeeBook()

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
        require_waiting(word.kind, _facts(row, has_receivable=bool(owed)))
        if word.kind is not DepositDecisionKind.FORGIVE:
            return await self._release_in_tx(conn, row, word, approval)
        if word.receivable_id is None or word.receivable_id not in {each.id for each in owed}:
            raise not_waiting("this receivable is not open any more")
        await receivable.end_in_tx(conn, word.receivable_id, "forgiven", by=approval.operator)
        return row.booked.account_id, ""

    async def _release_in_tx(
        self, conn: Connection, row: DepositRow, word: DepositDecisionRow, approval: DepositApproval
    ) -> tuple[AccountId, str]:
        wallet_id, account_id, owner = await _payee(conn, row, word)
        charge = await self._fees.charge(
            conn, "deposit", row.amount_msat, level=owner.level, version=owner.fees_version
        )
        posting = released(
            await self._ids.load(conn),
            row.deposited,
            place=row.booked.place or "suspense",
            owner=owner.ledger_account_id,
            charge=charge,
            repaid_msat=await repay_in_tx(conn, row, Msat(row.amount_msat - charge.fee_msat)),
            number=row.booked.confs,
            actor=approval.operator,
        )
        try:
            await post_new_in_tx(conn, posting)
        except Refused as refused:
            if refused.code == "account_closed":  # at this very moment
                raise payee_closed() from refused
            raise
        credited = row.now_booked(
            status=DepositStatus.CREDITED,
            wallet_id=wallet_id,
            account_id=account_id,
            release_ref=posting.ref,
            fee_msat=charge.fee_msat,
            fee_version=charge.version,
            fee_level=charge.level,
            credited_at=row.now,
        )
        await write_booked_in_tx(conn, [credited])
        return account_id, posting.ref


async def _payee(conn: Connection, row: DepositRow, word: DepositDecisionRow) -> tuple[WalletId, AccountId, Payer]:
    """The wallet that is credited, with the rules in force for its account. Raises Refused for a closed account."""
    wallet_id, account_id = row.booked.wallet_id, row.booked.account_id
    if word.wallet_id is not None:
        wallet_id, account_id = word.wallet_id, await find_owner_of(conn, word.wallet_id)
    if wallet_id is None or account_id is None:
        raise not_waiting("it has no owner, and must be attributed")
    payer = await find_payer(conn, account_id, wallet_id, None)
    if payer is None or payer.status == "closed":
        raise payee_closed()
    return wallet_id, account_id, payer


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
