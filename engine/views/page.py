"""Keyset pages: every list that is ordered newest first reads its pages with the SQL of this file.

A list is ordered by a time and a key, both descending. A page takes the rows that come after the last row of the page
before, in the order of an index, so page 1,000 costs as much as page 1. No two rows have the same time and key.
"""

from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from engine.domain.page import Position, Slice, cut
from engine.ledger.database import Connection

_PLACE = ("page_time", "page_key")


def keyset(time: str, key: str, first: int) -> str:
    """The condition for the rows after a position, whose time is parameter `$first` and whose key is the next one."""
    return f"({time}, {key}) < (coalesce(${first}::timestamptz, 'infinity'), coalesce(${first + 1}::text, ''))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list as a statement. `condition` takes the arguments of `read` as $1, $2, …"""

    columns: str
    source: str
    condition: str = "true"
    time: str = "created_at"
    key: str = "id"
    is_numbered: bool = False
    """The key is a number that grows with the time, and orders the list alone."""

    async def read(self, conn: Connection, after: Position, limit: int, *arguments: object) -> Slice[dict[str, Any]]:
        """One page after a position, in one statement."""
        rows = await conn.fetch(self._statement(len(arguments) + 1), *arguments, *after, limit + 1)
        found = cut(rows, limit, itemgetter(*_PLACE))
        return found.map(lambda row: {name: value for name, value in row.items() if name not in _PLACE})

    def _statement(self, first: int) -> str:
        behind, order = keyset(self.time, self.key, first), f"{self.time} DESC, {self.key} DESC"
        if self.is_numbered:
            # The time stands in the cursor only; naming it as a parameter tells Postgres its type.
            behind = f"(${first}::timestamptz IS NULL OR {self.key} < ${first + 1}::text::bigint)"
            order = f"{self.key} DESC"
        return f"""SELECT {self.columns}, {self.time} AS page_time, {self.key}::text AS page_key FROM {self.source}
             WHERE ({self.condition}) AND {behind} ORDER BY {order} LIMIT ${first + 2}"""  # noqa: S608 - constants
