"""Decisions about payments as operators read them."""

from typing import Any

from engine.ledger.database import Connection
from engine.views.page import Listing

_COLUMNS = """id, payment_id, payment_end, preimage, fee_msat, reason, status, proposed_by, decided_by, note,
    created_at, decided_at"""
DECISIONS = Listing(columns=_COLUMNS, source="bank.decisions", condition="$1::text IS NULL OR status = $1")
"""Of one status, or of all."""


async def find_decision(conn: Connection, decision_id: str) -> dict[str, Any] | None:
    """The row."""
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM bank.decisions WHERE id = $1", decision_id)  # noqa: S608 - constants
    return None if row is None else dict(row)
