"""What moved in a wallet: one row per business event, from the seven parts of the view `bank.transactions`.

A page reads each part in the order of its index and merges them, so it reads no further than it is long. A search looks
at no more than `_LOOK` rows per page: with conditions that few rows meet, a page may be short and still have a
following one.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

from engine.domain.page import MAX_LIMIT, Position, Slice, cut
from engine.ledger.database import Connection
from engine.views.page import keyset

_LOOK = 5_000
"""The most rows that one page looks at, whatever the conditions."""
_PARTS = (
    *("transactions_paid", "transactions_paid_by_users", "transactions_received", "transactions_entered"),
    *("transactions_deposited", "transactions_withdrawn", "transactions_withdrawn_by_users"),
)
_COLUMNS = """id, kind, direction, status, amount_msat, fee_msat, memo, counterparty, created_at, settled_at,
    reference, key"""
_PART = f"""
(SELECT {_COLUMNS} FROM bank.{{part}}
  WHERE wallet_id = $1 AND {keyset("created_at", "key", 2)}
    AND created_at >= coalesce($4::timestamptz, '-infinity') AND created_at < coalesce($5::timestamptz, 'infinity')
  ORDER BY created_at DESC, key DESC LIMIT {_LOOK})"""  # noqa: S608 - constant
_SEEN = f"""
SELECT * FROM ({" UNION ALL ".join(_PART.format(part=part) for part in _PARTS)}) parts
 ORDER BY created_at DESC, key DESC LIMIT {_LOOK}"""  # noqa: S608 - constant
# The planner must see the limit: with a parameter it would sort the whole wallet for one page.
_TRANSACTIONS = f"""
SELECT {_COLUMNS} FROM ({_SEEN}) seen
 WHERE ($6::text IS NULL OR kind = $6) AND ($7::text IS NULL OR status = $7) AND ($8::text IS NULL OR direction = $8)
   AND ($9::text IS NULL OR memo ILIKE $9 OR counterparty ILIKE $9 OR reference ILIKE $9)
 ORDER BY created_at DESC, key DESC LIMIT {MAX_LIMIT + 1}"""  # noqa: S608 - constant
_LAST_SEEN = f"""
SELECT created_at, key, count(*) OVER () AS seen FROM ({_SEEN}) seen
 ORDER BY created_at, key LIMIT 1"""  # noqa: S608 - constant


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionFilter:
    """Which transactions; all conditions count together. The period is [begins_at, ends_at) of `created_at`."""

    begins_at: datetime | None = None
    ends_at: datetime | None = None
    kind: str | None = None
    status: str | None = None
    direction: str | None = None
    text: str | None = None
    """Part of the memo, the counterparty or the reference, whatever the case."""

    @property
    def is_narrow(self) -> bool:
        """Whether a page may leave rows out that it looked at."""
        return any((self.kind, self.status, self.direction, self.text))

    @property
    def pattern(self) -> str | None:
        """`text` as a pattern of LIKE in which no character is special."""
        if self.text is None:
            return None
        literal = re.sub(r"([%_\\])", r"\\\1", self.text)
        return f"%{literal}%"


async def list_transactions(
    conn: Connection, wallet_id: str, wanted: TransactionFilter, after: Position, limit: int
) -> Slice[dict[str, Any]]:
    """One page of at most `MAX_LIMIT` rows, newest first."""
    frame = (wallet_id, *after, wanted.begins_at, wanted.ends_at)
    rows = await conn.fetch(_TRANSACTIONS, *frame, wanted.kind, wanted.status, wanted.direction, wanted.pattern)
    found = cut([dict(row) for row in rows], limit, itemgetter("created_at", "key"))
    if found.following is None and wanted.is_narrow:
        return Slice(found.rows, await _last_seen(conn, frame))
    return found


async def _last_seen(conn: Connection, frame: tuple[object, ...]) -> Position | None:
    """The last row that a page looked at, if there may be more behind it."""
    row = await conn.fetchrow(_LAST_SEEN, *frame)
    return None if row is None or row["seen"] < _LOOK else (row["created_at"], row["key"])
