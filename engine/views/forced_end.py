"""Decisions about payments as operators read them."""

from typing import Any

from engine.domain.forced_end import DecisionStatus
from engine.domain.page import Position, Slice
from engine.ledger.database import Connection
from engine.views.operator_tables import Decision
from engine.views.page import Listing, columns

_COLUMNS = columns(Decision)
_DECISIONS = Listing(columns=_COLUMNS, source="bank.decisions", condition="$1::text IS NULL OR status = $1")


async def list_decisions(
    conn: Connection, status: DecisionStatus | None, after: Position, limit: int
) -> Slice[dict[str, Any]]:
    """One page, newest first."""
    return await _DECISIONS.read(conn, after, limit, status)


async def find_decision(conn: Connection, decision_id: str) -> dict[str, Any] | None:
    """The row."""
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM bank.decisions WHERE id = $1", decision_id)  # noqa: S608 - constants
    return None if row is None else dict(row)
