"""How two operators end a payment: one row for each proposal, with its outcome.

A payment has at most one proposal that is open or done. A proposal never changes. No money moves here: the postings are
those of any payment's end.
"""

from dataclasses import dataclass
from datetime import timedelta

from engine.domain.errors import Conflict, NotFound
from engine.domain.forced_end import DecisionEnd, DecisionStatus
from engine.domain.ids import AccountId, DecisionId, PaymentHash, PaymentId
from engine.domain.money import Msat
from engine.ledger.database import Connection, change_one, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckPayment:
    """The facts of a payment that a decision about it needs."""

    account_id: AccountId
    status: str
    payment_hash: PaymentHash | None
    workflow_id: str
    routing_cap_msat: Msat
    waits_for: str | None
    needs_operator: bool
    begun: bool
    """Whether its node has confirmed that it has the payment."""
    node_away_for: timedelta | None
    """How long its node has not reported; None for a payment without a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDecision:
    """What an operator proposes."""

    id: DecisionId
    payment_id: PaymentId
    payment_end: DecisionEnd
    preimage: str | None
    fee_msat: Msat
    reason: str
    proposed_by: AccountId


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow(NewDecision):
    """A proposal as the bank has it."""

    status: DecisionStatus
    decided_by: AccountId | None


async def find_stuck_payment(conn: Connection, payment_id: PaymentId) -> StuckPayment | None:
    """The payment with what it waits for, whatever its status."""
    with translated():
        row = await conn.fetchrow(
            """SELECT p.account_id, p.status, p.payment_hash, p.workflow_id,
                      p.max_fee_msat - p.service_fee_msat AS routing_cap_msat, w.reason AS waits_for,
                      coalesce(w.needs_operator, false) AS needs_operator,
                      EXISTS (SELECT FROM bank.begun_sends b WHERE b.payment_id = p.id) AS begun,
                      clock_timestamp() - n.reported_at AS node_away_for
                 FROM bank.payments p LEFT JOIN bank.payment_waits w ON w.payment_id = p.id AND p.status = 'pending'
                 LEFT JOIN bank.nodes n ON n.name = p.node
                WHERE p.id = $1""",
            payment_id,
        )
    return None if row is None else StuckPayment(**row)


async def propose_in_tx(conn: Connection, new: NewDecision) -> DecisionId:
    """Write the proposal. Returns its id; a repeat by the same operator returns the id of the first.

    Raises Conflict (`decision_open`) when another proposal is open or done.
    """
    with translated():
        row = await conn.fetchrow(
            """INSERT INTO bank.decisions(id, payment_id, payment_end, preimage, fee_msat, reason, proposed_by)
               VALUES ($1, $2, $3, $4, $5, $6, $7)
               ON CONFLICT (payment_id) WHERE status <> 'rejected' DO UPDATE SET status = bank.decisions.status
               RETURNING id, payment_end, preimage, fee_msat, reason, proposed_by""",
            new.id,
            new.payment_id,
            new.payment_end,
            new.preimage,
            new.fee_msat,
            new.reason,
            new.proposed_by,
        )
    same = (new.payment_end, new.preimage, new.fee_msat, new.reason, new.proposed_by)
    if row is None or tuple(row.values())[1:] != same:
        raise Conflict("There is a proposal for this payment; it is decided first.", code="decision_open")
    return DecisionId(row["id"])


async def get_row_in_tx(conn: Connection, decision: DecisionId) -> DecisionRow:
    """The row, locked until the transaction ends. Raises NotFound."""
    with translated():
        row = await conn.fetchrow(
            """SELECT id, payment_id, payment_end, preimage, fee_msat, reason, proposed_by, status, decided_by
                 FROM bank.decisions WHERE id = $1 FOR UPDATE""",
            decision,
        )
    if row is None:
        raise NotFound("There is no such decision.")
    known = {**row, "payment_end": DecisionEnd(row["payment_end"]), "status": DecisionStatus(row["status"])}
    return DecisionRow(**known)


async def mark_in_tx(
    conn: Connection, decision: DecisionId, status: DecisionStatus, *, operator: AccountId, note: str
) -> None:
    """Write the final status of an open proposal. Raises InvariantBroken when it is not open."""
    await change_one(
        conn,
        """UPDATE bank.decisions SET status = $2, decided_by = $3, note = $4, decided_at = clock_timestamp()
            WHERE id = $1 AND status = 'proposed'""",
        decision,
        status,
        operator,
        note,
    )
