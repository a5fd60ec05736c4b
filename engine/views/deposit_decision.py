"""Decisions about deposits as operators read them."""

from collections.abc import Sequence
from typing import Any

from engine.ledger.database import Connection, translated
from engine.views.page import Listing

_COLUMNS = """id, deposit_id, kind, wallet_id, receivable_id, amount_msat, reason, status, proposed_by, decided_by,
    note, ref, created_at, decided_at"""
DEPOSIT_DECISIONS = Listing(
    columns=_COLUMNS, source="bank.deposit_decisions", condition="$1::text IS NULL OR status = $1"
)
"""Of one status, or of all."""


async def find_deposit_decision(conn: Connection, decision_id: str) -> dict[str, Any] | None:
    """The row."""
    with translated():
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM bank.deposit_decisions WHERE id = $1",  # noqa: S608 - constants
            decision_id,
        )
    return None if row is None else dict(row)


async def list_decisions_of(conn: Connection, deposits: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """The decisions about these deposits, newest first."""
    with translated():
        rows = await conn.fetch(
            f"""SELECT {_COLUMNS} FROM bank.deposit_decisions WHERE deposit_id = ANY($1)
                 ORDER BY created_at DESC, id DESC LIMIT $2""",  # noqa: S608 - constants
            list(deposits),
            limit,
        )
    return [dict(row) for row in rows]
