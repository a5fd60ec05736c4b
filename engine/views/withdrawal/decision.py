"""Decisions about withdrawals and payouts as operators read them."""

from typing import Any

from engine.ledger.database import Connection, translated
from engine.views.page import Listing

_COLUMNS = """id, withdrawal_id, payout_id, kind, amount_sat, rate_sat_kvb, operators, reason, status, proposed_by,
    decided_by, note, created_at, decided_at"""
WITHDRAWAL_DECISIONS = Listing(
    columns=_COLUMNS, source="bank.withdrawal_decisions", condition="$1::text IS NULL OR status = $1"
)
"""Of one status, or of all."""


async def find_withdrawal_decision(conn: Connection, decision_id: str) -> dict[str, Any] | None:
    """The row."""
    with translated():
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM bank.withdrawal_decisions WHERE id = $1",  # noqa: S608 - constants
            decision_id,
        )
    return None if row is None else dict(row)


async def list_decisions_about(
    conn: Connection, *, withdrawal_id: str | None = None, payout_id: str | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """The newest decisions about a withdrawal or a payout, newest first."""
    column, target = ("withdrawal_id", withdrawal_id) if payout_id is None else ("payout_id", payout_id)
    with translated():
        rows = await conn.fetch(
            f"""SELECT {_COLUMNS} FROM bank.withdrawal_decisions WHERE {column} = $1
                 ORDER BY created_at DESC, id DESC LIMIT $2""",  # noqa: S608 - constants
            target,
            limit,
        )
    return [dict(row) for row in rows]
