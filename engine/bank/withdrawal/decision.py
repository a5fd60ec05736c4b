"""What operators decide about withdrawals and payouts: one row for each proposal, with its outcome.

A withdrawal or a payout has at most one open proposal. A proposal never changes. No money moves here.
"""

from dataclasses import dataclass

from engine.domain.errors import Conflict
from engine.domain.forced_end import DecisionStatus
from engine.domain.ids import AccountId, PayoutId, WithdrawalDecisionId, WithdrawalId
from engine.domain.money import Sat
from engine.domain.withdrawal.decision import WithdrawalDecisionKind
from engine.ledger.database import Connection, change_one, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWithdrawalDecision:
    """What an operator proposes, about a withdrawal or about a payout."""

    id: WithdrawalDecisionId
    withdrawal_id: WithdrawalId | None = None
    payout_id: PayoutId | None = None
    kind: WithdrawalDecisionKind
    amount_sat: Sat
    rate_sat_kvb: int | None = None
    operators: int
    """1: whoever proposes it may carry it out. 2: only another one may."""
    reason: str
    proposed_by: AccountId


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalDecisionRow(NewWithdrawalDecision):
    """A proposal as the bank has it."""

    status: DecisionStatus
    decided_by: AccountId | None


_COLUMNS = "id, withdrawal_id, payout_id, kind, amount_sat, rate_sat_kvb, operators, reason, proposed_by"

_ASKED = ("withdrawal_id", "payout_id", "kind", "rate_sat_kvb", "reason", "proposed_by")
"""What a repeat has in common with the first."""


async def propose_in_tx(conn: Connection, new: NewWithdrawalDecision) -> WithdrawalDecisionId:
    """Write the proposal. Returns its id; a repeat by the same operator returns the id of the first.

    Raises Conflict (`decision_open`) when another proposal for the same withdrawal or payout is open.
    """
    with translated():
        row = await conn.fetchrow(
            f"""INSERT INTO bank.withdrawal_decisions({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                ON CONFLICT (coalesce(withdrawal_id, payout_id)) WHERE status = 'proposed'
                DO UPDATE SET status = bank.withdrawal_decisions.status
                RETURNING {_COLUMNS}""",  # noqa: S608 - constant
            new.id,
            new.withdrawal_id,
            new.payout_id,
            new.kind,
            new.amount_sat,
            new.rate_sat_kvb,
            new.operators,
            new.reason,
            new.proposed_by,
        )
    if row is None or any(row[name] != getattr(new, name) for name in _ASKED):
        raise Conflict("There is an open proposal for it; it is decided first.", code="decision_open")
    return WithdrawalDecisionId(row["id"])


async def find_row_in_tx(conn: Connection, decision: WithdrawalDecisionId) -> WithdrawalDecisionRow | None:
    """The row, locked until the transaction ends."""
    with translated():
        row = await conn.fetchrow(
            f"""SELECT {_COLUMNS}, status, decided_by FROM bank.withdrawal_decisions
                 WHERE id = $1 FOR UPDATE""",  # noqa: S608 - constant
            decision,
        )
    if row is None:
        return None
    known = {**row, "kind": WithdrawalDecisionKind(row["kind"]), "status": DecisionStatus(row["status"])}
    return WithdrawalDecisionRow(**known)


async def mark_in_tx(
    conn: Connection, decision: WithdrawalDecisionId, status: DecisionStatus, *, operator: AccountId, note: str
) -> None:
    """Write the final status of an open proposal. Raises InvariantBroken otherwise."""
    await change_one(
        conn,
        """UPDATE bank.withdrawal_decisions SET status = $2, decided_by = $3, note = $4, decided_at = clock_timestamp()
            WHERE id = $1 AND status = 'proposed'""",
        decision,
        status,
        operator,
        note,
    )
