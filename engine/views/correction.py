"""Corrections and capital as operators read them, with their trail."""

from collections.abc import Sequence
from typing import Any

from engine.ledger.database import Connection
from engine.views.page import Listing

_COLUMNS = """id, kind, debit, credit, amount_msat, reason, case_id, reference, status, proposed_by, approved_by,
    rejected_by, refusal_code, refusal_detail, workflow_id, created_at, expires_at, decided_at, ended_at"""
CORRECTIONS = Listing(columns=_COLUMNS, source="bank.corrections", condition="$1::text IS NULL OR status = $1")
"""Of one status, or of all."""


async def find_correction(conn: Connection, correction_id: str) -> dict[str, Any] | None:
    """The row."""
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM bank.corrections WHERE id = $1", correction_id)  # noqa: S608 - constants
    return None if row is None else dict(row)


async def list_trail(conn: Connection, correction_id: str) -> list[dict[str, Any]]:
    """All that happened to it, the oldest first."""
    rows = await conn.fetch(
        "SELECT event, actor, note, at FROM bank.correction_updates WHERE correction_id = $1 ORDER BY id", correction_id
    )
    return [dict(row) for row in rows]


async def find_codes(conn: Connection, codes: Sequence[str]) -> set[str]:
    """Those of these codes that are accounts of the books in bitcoin."""
    rows = await conn.fetch("SELECT code FROM ledger.accounts WHERE code = ANY($1) AND currency = 'BTC'", list(codes))
    return {row["code"] for row in rows}
