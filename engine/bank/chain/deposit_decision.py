"""How two operators decide about a deposit: one row for each proposal, with its outcome.

A deposit has at most one open proposal. A proposal never changes. No money moves here.
"""

from dataclasses import dataclass

from engine.domain.deposit import DepositStatus, Sight
from engine.domain.deposit_decision import Decidable, DepositDecisionKind
from engine.domain.errors import Conflict
from engine.domain.forced_end import DecisionStatus
from engine.domain.ids import AccountId, DepositDecisionId, DepositId, ReceivableId, Txid, WalletId
from engine.domain.money import Msat, Sat, sat_to_msat
from engine.ledger.database import Connection, change_one, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidableDeposit:
    """A deposit, for those who decide about it. Read without a lock."""

    id: DepositId
    txid: Txid
    amount_sat: Sat
    account_id: AccountId | None
    workflow_id: str
    receivable_id: ReceivableId | None
    """The oldest that is open."""
    receivable_msat: Msat | None
    facts: Decidable

    def amount_of(self, kind: DepositDecisionKind) -> Msat:
        """What a decision of this kind is about."""
        if kind is DepositDecisionKind.FORGIVE:
            return self.receivable_msat or Msat(0)
        return sat_to_msat(self.amount_sat)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDepositDecision:
    """What an operator proposes."""

    id: DepositDecisionId
    deposit_id: DepositId
    kind: DepositDecisionKind
    wallet_id: WalletId | None
    receivable_id: ReceivableId | None
    amount_msat: Msat
    reason: str
    proposed_by: AccountId


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositDecisionRow(NewDepositDecision):
    """A proposal as the bank has it."""

    status: DecisionStatus
    decided_by: AccountId | None


async def find_decidable(conn: Connection, deposit_id: DepositId) -> DecidableDeposit | None:
    """The deposit with the facts that a decision needs."""
    with translated():
        row = await conn.fetchrow(
            """SELECT d.id, d.txid, d.amount_sat, d.account_id, d.workflow_id, d.status, d.sight, d.place,
                      d.release_ref, r.id AS receivable_id, r.amount_msat AS receivable_msat
                 FROM bank.deposits d LEFT JOIN LATERAL (
                      SELECT id, amount_msat FROM bank.receivables
                       WHERE deposit_id = d.id AND status = 'open' ORDER BY created_at, id LIMIT 1) r ON true
                WHERE d.id = $1""",
            deposit_id,
        )
    if row is None:
        return None
    return DecidableDeposit(
        id=row["id"],
        txid=row["txid"],
        amount_sat=row["amount_sat"],
        account_id=row["account_id"],
        workflow_id=row["workflow_id"],
        receivable_id=row["receivable_id"],
        receivable_msat=row["receivable_msat"],
        facts=Decidable(
            status=DepositStatus(row["status"]),
            sight=Sight(row["sight"]),
            place=row["place"],
            is_released=row["release_ref"] is not None,
            has_receivable=row["receivable_id"] is not None,
        ),
    )


async def find_owner_of(conn: Connection, wallet_id: WalletId) -> AccountId | None:
    """The account of this wallet."""
    with translated():
        account: str | None = await conn.fetchval("SELECT account_id FROM bank.wallets WHERE id = $1", wallet_id)
    return None if account is None else AccountId(account)


async def propose_in_tx(conn: Connection, new: NewDepositDecision) -> DepositDecisionId:
    """Write the proposal. Returns its id; a repeat by the same operator returns the id of the first.

    Raises Conflict (`decision_open`) when another proposal for the deposit is open.
    """
    with translated():
        row = await conn.fetchrow(
            """INSERT INTO bank.deposit_decisions(id, deposit_id, kind, wallet_id, receivable_id, amount_msat, reason,
                                                  proposed_by)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
               ON CONFLICT (deposit_id) WHERE status = 'proposed' DO UPDATE SET status = bank.deposit_decisions.status
               RETURNING id, kind, wallet_id, receivable_id, amount_msat, reason, proposed_by""",
            new.id,
            new.deposit_id,
            new.kind,
            new.wallet_id,
            new.receivable_id,
            new.amount_msat,
            new.reason,
            new.proposed_by,
        )
    same = (new.kind, new.wallet_id, new.receivable_id, new.amount_msat, new.reason, new.proposed_by)
    if row is None or tuple(row.values())[1:] != same:
        raise Conflict("There is a proposal for this deposit; it is decided first.", code="decision_open")
    return DepositDecisionId(row["id"])


async def find_row_in_tx(conn: Connection, decision: DepositDecisionId) -> DepositDecisionRow | None:
    """The row, locked until the transaction ends."""
    with translated():
        row = await conn.fetchrow(
            """SELECT id, deposit_id, kind, wallet_id, receivable_id, amount_msat, reason, proposed_by, status,
                      decided_by FROM bank.deposit_decisions WHERE id = $1 FOR UPDATE""",
            decision,
        )
    if row is None:
        return None
    known = {**row, "kind": DepositDecisionKind(row["kind"]), "status": DecisionStatus(row["status"])}
    return DepositDecisionRow(**known)


async def mark_in_tx(
    conn: Connection,
    decision: DepositDecisionId,
    status: DecisionStatus,
    *,
    operator: AccountId,
    note: str,
    ref: str | None = None,
) -> None:
    """Write the final status of an open proposal, with the posting that it led to. Raises InvariantBroken otherwise."""
    await change_one(
        conn,
        """UPDATE bank.deposit_decisions
              SET status = $2, decided_by = $3, note = $4, ref = $5, decided_at = clock_timestamp()
            WHERE id = $1 AND status = 'proposed'""",
        decision,
        status,
        operator,
        note,
        ref,
    )
