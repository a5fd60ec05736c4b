"""The audit trail, page by page. Numbers have no gaps and follow the order of the commits, so a page never changes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.domain.page import Position, Slice
from engine.ledger.database import Connection
from engine.views.page import Listing

_LINES = Listing(
    columns="id, at, operator, key_id, action, account_id, subject, detail",
    source="bank.audit",
    condition="""($1::text IS NULL OR account_id = $1 OR detail ->> 'other_account_id' = $1)
             AND ($2::text IS NULL OR operator = $2) AND ($3::text IS NULL OR action = $3)
             AND ($4::timestamptz IS NULL OR at >= $4) AND ($5::timestamptz IS NULL OR at < $5)""",
    time="at",
    is_numbered=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which lines; all conditions count together. The period is [begins_at, ends_at)."""

    account_id: str | None = None
    operator: str | None = None
    action: str | None = None
    begins_at: datetime | None = None
    ends_at: datetime | None = None


async def list_lines(conn: Connection, wanted: AuditFilter, after: Position, limit: int) -> Slice[dict[str, Any]]:
    """One page, newest first. The key of a position is a line's number."""
    conditions = (wanted.account_id, wanted.operator, wanted.action, wanted.begins_at, wanted.ends_at)
    return await _LINES.read(conn, after, limit, *conditions)
