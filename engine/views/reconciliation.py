"""Runs of the reconciliation and cases as operators read them."""

from typing import Any

from engine.ledger.database import Connection
from engine.views.page import Listing

_RUN = "id, workflow_id, status, report, created_at, finished_at"
_CASE = """id, kind, account, subject, amount_msat, detail, suspects, status, run, last_seen, vanished, note,
    resolved_by, resolved_at, created_at"""
RUNS = Listing(columns=_RUN, source="bank.reconciliations")
CASES = Listing(columns=_CASE, source="bank.cases")


async def find_run(conn: Connection, run_id: str) -> dict[str, Any] | None:
    """The row, once a worker has begun the run."""
    row = await conn.fetchrow(f"SELECT {_RUN} FROM bank.reconciliations WHERE id = $1", run_id)  # noqa: S608 - constants
    return None if row is None else dict(row)


async def find_case(conn: Connection, case_id: str) -> dict[str, Any] | None:
    """The row."""
    row = await conn.fetchrow(f"SELECT {_CASE} FROM bank.cases WHERE id = $1", case_id)  # noqa: S608 - constants
    return None if row is None else dict(row)


async def list_trail(conn: Connection, case_id: str, most: int) -> list[dict[str, Any]]:
    """The newest lines of its trail, the oldest of them first."""
    rows = await conn.fetch(
        """SELECT event, actor, note, at FROM (
               SELECT id, event, actor, note, at FROM bank.case_updates WHERE case_id = $1
                ORDER BY id DESC LIMIT $2) newest ORDER BY id""",
        case_id,
        most,
    )
    return [dict(row) for row in rows]
