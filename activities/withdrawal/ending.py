"""Ends a withdrawal that has no place in a payout: all that is held for it is free again.

The caller has locked its row and has found it queued. Posting and row are one transaction.
"""

from engine.bank.withdrawal.withdrawal import WithdrawalRow, end_queued_in_tx
from engine.domain.withdrawal.withdrawal import WithdrawalStatus
from engine.ledger.database import Connection
from engine.ledger.postings.withdrawal import given_back
from engine.ledger.store import post_new_in_tx

APPROVAL_EXPIRED = "approval_expired"
REJECTED = "rejected"
OUTPUT_REFUSED = "output_refused"
"""Failure codes of a withdrawal, beside those that a batcher finds."""


async def cancel_in_tx(conn: Connection, row: WithdrawalRow) -> None:
    """Its owner takes it back."""
    await post_new_in_tx(conn, given_back(row, WithdrawalStatus.CANCELLED))
    await end_queued_in_tx(conn, row.id, WithdrawalStatus.CANCELLED)


async def fail_in_tx(
    conn: Connection, row: WithdrawalRow, *, code: str, detail: str, actor: str = "withdrawal"
) -> None:
    """An operator or a rule refuses it. The detail is read by its owner."""
    await post_new_in_tx(conn, given_back(row, code, actor=actor))
    await end_queued_in_tx(conn, row.id, WithdrawalStatus.FAILED, code=code, detail=detail)


async def expire_in_tx(conn: Connection, row: WithdrawalRow) -> None:
    """Nobody has approved it in time."""
    await fail_in_tx(conn, row, code=APPROVAL_EXPIRED, detail="It was not approved in time. All of it is free again.")
