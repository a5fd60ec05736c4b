"""The row of a correction or of capital, and its trail. `engine.ledger.postings.correction` has its postings."""

from dataclasses import dataclass

from engine.domain.correction import ACTOR, Correction, CorrectionStatus
from engine.domain.errors import InvariantBroken, Refused
from engine.domain.ids import AccountId, CorrectionId
from engine.ledger.database import Connection, change_one, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionRow(Correction):
    """A correction as the bank has it."""

    status: str
    approved_by: str | None
    refusal_code: str | None
    refusal_detail: str | None


_COLUMNS = """id, kind, debit, credit, amount_msat, reason, case_id, reference, proposed_by, workflow_id, status,
    approved_by, refusal_code, refusal_detail"""


async def add_row_in_tx(conn: Connection, new: Correction, *, open_for_s: int) -> None:
    """Write the proposal. It never changes."""
    with translated():
        await conn.execute(
            """INSERT INTO bank.corrections(id, kind, debit, credit, amount_msat, reason, case_id, reference,
                   proposed_by, workflow_id, expires_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp() + make_interval(secs => $11))""",
            new.id,
            new.kind,
            new.debit,
            new.credit,
            new.amount_msat,
            new.reason,
            new.case_id,
            new.reference,
            new.proposed_by,
            new.workflow_id,
            open_for_s,
        )
    await _note_in_tx(conn, new.id, CorrectionStatus.PROPOSED, new.proposed_by, new.reason)


async def get_row_in_tx(conn: Connection, correction: CorrectionId) -> CorrectionRow:
    """The row, locked until the transaction ends."""
    with translated():
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM bank.corrections WHERE id = $1 FOR UPDATE",  # noqa: S608 - constant
            correction,
        )
    if row is None:
        raise InvariantBroken(f"there is no correction {correction}")
    return CorrectionRow(**row)


async def mark_approved_in_tx(conn: Connection, correction: CorrectionId, *, operator: str, note: str) -> None:
    """A second operator agrees. Nothing has moved yet."""
    await change_one(
        conn,
        """UPDATE bank.corrections SET status = 'approved', approved_by = $2, decided_at = clock_timestamp()
            WHERE id = $1 AND status = 'proposed'""",
        correction,
        operator,
    )
    await _note_in_tx(conn, correction, CorrectionStatus.APPROVED, operator, note)


async def mark_rejected_in_tx(conn: Connection, correction: CorrectionId, *, operator: str, note: str) -> None:
    """Final: rejected by an operator, or withdrawn by its proposer."""
    await change_one(
        conn,
        """UPDATE bank.corrections SET status = 'rejected', rejected_by = $2, decided_at = clock_timestamp(),
               ended_at = clock_timestamp() WHERE id = $1 AND status = 'proposed'""",
        correction,
        operator,
    )
    await _note_in_tx(conn, correction, CorrectionStatus.REJECTED, operator, note)


async def mark_posted_in_tx(conn: Connection, correction: CorrectionId, refs: list[str]) -> None:
    """Final: it is in the books."""
    await _end_in_tx(conn, correction, CorrectionStatus.POSTED)
    await _note_in_tx(conn, correction, CorrectionStatus.POSTED, ACTOR, ", ".join(refs))


async def mark_refused_in_tx(conn: Connection, correction: CorrectionId, refusal: Refused) -> None:
    """Final: the books refused it, and why."""
    await change_one(
        conn,
        """UPDATE bank.corrections SET status = 'refused', refusal_code = $2, refusal_detail = $3,
               ended_at = clock_timestamp() WHERE id = $1 AND status = 'approved'""",
        correction,
        refusal.code,
        refusal.detail,
    )
    await _note_in_tx(conn, correction, CorrectionStatus.REFUSED, ACTOR, f"{refusal.code}: {refusal.detail}")


async def mark_expired_in_tx(conn: Connection, correction: CorrectionId) -> None:
    """Final: nobody decided in time."""
    await _end_in_tx(conn, correction, CorrectionStatus.EXPIRED)
    await _note_in_tx(conn, correction, CorrectionStatus.EXPIRED, ACTOR, "nobody decided in time")


async def require_open_payee(conn: Connection, code: str) -> None:
    """Raises Refused when this is the wallet of a closed account, whose owner could never spend the money."""
    with translated():
        closed = await conn.fetchval(
            """SELECT true FROM ledger.accounts l JOIN bank.wallets w ON w.ledger_account_id = l.id
                 JOIN bank.accounts a ON a.id = w.account_id WHERE l.code = $1 AND a.status = 'closed'""",
            code,
        )
    if closed:
        raise Refused(f"The account of {code} is closed.", code="account_locked", account_status="closed")


async def list_users(conn: Connection, debit: str, credit: str) -> list[AccountId]:
    """The users whose wallets these two accounts of the books are. The debited one comes first."""
    with translated():
        rows = await conn.fetch(
            """SELECT w.account_id FROM ledger.accounts l JOIN bank.wallets w ON w.ledger_account_id = l.id
                WHERE l.code = ANY($1) ORDER BY l.code <> $2""",
            [debit, credit],
            debit,
        )
    return [AccountId(row["account_id"]) for row in rows]


async def _end_in_tx(conn: Connection, correction: CorrectionId, status: CorrectionStatus) -> None:
    await change_one(
        conn,
        """UPDATE bank.corrections SET status = $2, ended_at = clock_timestamp()
            WHERE id = $1 AND status IN ('proposed', 'approved')""",
        correction,
        status,
    )


async def _note_in_tx(
    conn: Connection, correction: CorrectionId, event: CorrectionStatus, actor: str, note: str
) -> None:
    with translated():
        await conn.execute(
            "INSERT INTO bank.correction_updates(correction_id, event, actor, note) VALUES ($1, $2, $3, $4)",
            correction,
            event,
            actor,
            note,
        )
