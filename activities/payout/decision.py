"""Carries out what operators have decided about a payout: held, resumed, to pay more, or pulled by a child.

The row is locked first. Row, decision and audit line are one transaction; a second call finds what the first did.
"""

from activities.payout import child
from activities.payout.story import Story
from engine.bank.audit import Act, record_in_tx
from engine.bank.withdrawal import payout, version
from engine.bank.withdrawal.decision import WithdrawalDecisionRow, find_row_in_tx, mark_in_tx
from engine.clients.bitcoind.spending import Spending
from engine.contracts.payout import DecidePayout, PayoutRef
from engine.contracts.withdrawal import WithdrawalApproval
from engine.domain.errors import Refused
from engine.domain.forced_end import DecisionStatus
from engine.domain.ids import Txid
from engine.domain.withdrawal.decision import WithdrawalDecisionKind, require_another
from engine.domain.withdrawal.withdrawal import PayoutStatus
from engine.ledger.database import Connection, Pool, transaction


async def carry_out(pool: Pool, spending: Spending, story: Story, decide: DecidePayout, address_type: str) -> None:
    """Do what was proposed. Raises Refused (`decision_made`, `own_proposal`, `payout_not_waiting`)."""
    txid = story.current.txid
    entry = None if txid is None else await spending.mempool_entry(Txid(txid))
    async with transaction(pool) as conn:
        row = await payout.get_row_in_tx(conn, decide.payout_id)
        word = await find_row_in_tx(conn, decide.approval.decision)
        if word is None or word.payout_id != row.id:
            raise Refused("This decision is about another payout.", code="decision_made")
        if word.status is DecisionStatus.DONE and word.decided_by == decide.approval.operator:
            return
        if word.status is not DecisionStatus.PROPOSED:
            raise Refused(f"{word.id} is {word.status} already.", code="decision_made")
        require_another(word.operators, proposed_by=word.proposed_by, operator=decide.approval.operator)
        made = await _act_in_tx(conn, row, word, child.Pulled(story=story, entry=entry, address_type=address_type))
        await mark_in_tx(
            conn, word.id, DecisionStatus.DONE, operator=decide.approval.operator, note=decide.approval.note
        )
        await record_in_tx(conn, _line(word, decide.approval, made))


async def _act_in_tx(
    conn: Connection, row: payout.PayoutRow, word: WithdrawalDecisionRow, pulled: child.Pulled
) -> PayoutRef | None:
    if row.status in (PayoutStatus.FINAL, PayoutStatus.DISSOLVED):
        raise not_waiting(f"it is {row.status}")
    match word.kind:
        case WithdrawalDecisionKind.HOLD | WithdrawalDecisionKind.RESUME:
            on_hold = word.kind is WithdrawalDecisionKind.HOLD
            if row.on_hold is on_hold:
                raise not_waiting("it is on hold already" if on_hold else "it is not on hold")
            await payout.set_hold_in_tx(conn, row.id, on_hold=on_hold)
        case WithdrawalDecisionKind.BUMP | WithdrawalDecisionKind.CHILD:
            if row.status not in (PayoutStatus.SIGNED, PayoutStatus.BROADCAST):
                raise not_waiting(f"it is {row.status}")
            if row.on_hold:
                raise not_waiting("it is on hold; resume it first")
            if len(await version.list_versions(conn, row.id)) != len(pulled.story.versions):
                raise not_waiting("it has another version now")
            if word.rate_sat_kvb is None or word.rate_sat_kvb <= pulled.story.current.rate_sat_kvb:
                raise not_waiting(f"it pays {pulled.story.current.rate_sat_kvb} sat per 1,000 vB already")
            if word.kind is WithdrawalDecisionKind.CHILD:
                return await child.plan_in_tx(conn, pulled, word.rate_sat_kvb)
            await payout.set_bump_in_tx(conn, row.id, word.rate_sat_kvb)
        case _:
            raise not_waiting("this is decided about withdrawals")
    return None


def not_waiting(why: str) -> Refused:
    """The refusal of a decision that the payout does not need now."""
    return Refused(f"This payout does not wait for this decision: {why}.", code="payout_not_waiting")


def _line(word: WithdrawalDecisionRow, approval: WithdrawalApproval, made: PayoutRef | None) -> Act:
    return Act(
        operator=approval.operator,
        key_id=approval.key_id,
        action="withdrawal_decision.approve",
        subject=word.id,
        detail={
            "payout_id": word.payout_id,
            "kind": word.kind,
            "amount_sat": word.amount_sat,
            "rate_sat_kvb": word.rate_sat_kvb,
            "operators": word.operators,
            "proposed_by": word.proposed_by,
            "child": None if made is None else made.payout_id,
            "note": approval.note,
        },
    )
