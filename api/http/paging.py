"""Lists, newest first, in pages: `?limit=` and `&after=<cursor>`, where a cursor names the last row that was seen.

A cursor holds the two values by which the list is ordered, a time and a key, and a checksum over them and the list's
name, so that a garbled one, or one of another list, is refused. The values come from the columns of the ORDER BY
itself, never from what a row shows: an id that is shown may have a suffix, or may not be the key at all. A cursor is no
secret: what may be read is decided by the account, never by the cursor.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from engine.domain.errors import Invalid
from engine.ledger.database import Connection

T = TypeVar("T")
Place: TypeAlias = Callable[[T], tuple[datetime, str]]
"""The time and the key of a row, by which it was ordered."""
MAX_LIMIT = 100
_CHECK_BYTES = 6
_LONGEST_KEY = 200
_LONGEST_CURSOR = 1_200
_FIRST_YEAR, _LAST_YEAR = 2000, 9000


class Paging(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=MAX_LIMIT, description="How many at most.")
    after: str | None = Field(default=None, max_length=_LONGEST_CURSOR, description="`next_cursor` of the page before.")


class Page(BaseModel, Generic[T]):
    """One page; `next_cursor` is null on the last."""

    items: list[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list as a statement: what is shown, where from, and the two columns that order it, both newest first.

    `condition` takes the arguments of `read` as $1, $2, … No two rows may have the same time and key.
    """

    columns: str
    source: str
    condition: str = "true"
    time: str = "created_at"
    key: str = "id"

    async def read(
        self, conn: Connection, paging: Paging, name: str, *arguments: object
    ) -> tuple[list[dict[str, Any]], str | None]:
        """(the rows of the page, the cursor of the next one). Raises Invalid for a cursor that is not of this list."""
        at, key = position(paging, name)
        given = len(arguments)
        rows = await conn.fetch(
            f"""SELECT {self.columns}, {self.time} AS page_time, {self.key} AS page_key FROM {self.source}
                 WHERE ({self.condition}) AND ({self.time}, {self.key})
                       < (coalesce(${given + 1}::timestamptz, 'infinity'), coalesce(${given + 2}::text, ''))
                 ORDER BY {self.time} DESC, {self.key} DESC LIMIT ${given + 3}""",  # noqa: S608 - constants
            *arguments,
            at,
            key,
            paging.limit + 1,
        )
        page, following = paged(rows, paging, name, itemgetter("page_time", "page_key"))
        hidden = {"page_time", "page_key"}
        return [{name: value for name, value in row.items() if name not in hidden} for row in page], following


def position(paging: Paging, name: str) -> tuple[datetime | None, str | None]:
    """After which (time, key) the page begins; (None, None) for the first. Raises Invalid for a garbled cursor."""
    if paging.after is None:
        return None, None
    try:
        raw = base64.b64decode(paging.after.encode("ascii"), altchars=b"-_", validate=True)
        check, data = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check(name, data):
            raise ValueError("checksum")
        text, key = json.loads(data)
        at = datetime.fromisoformat(text)
        if at.tzinfo is None or not _FIRST_YEAR <= at.year <= _LAST_YEAR or not _may_be_a_key(key):
            raise ValueError("content")
        return at, str(key)
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise no_cursor() from None


def paged(rows: Sequence[T], paging: Paging, name: str, place: Place[T]) -> tuple[Sequence[T], str | None]:
    """Cut what was read, beyond `limit`, to the page, with the cursor of the next."""
    page = rows[: paging.limit]
    if len(rows) <= paging.limit:
        return page, None
    return page, cursor(*place(page[-1]), name)


def cursor(at: datetime, key: str, name: str) -> str:
    """Names the last row that was seen. Filters are part of the list's name: a cursor is of no use with others."""
    data = json.dumps([at.isoformat(), key], ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(_check(name, data) + data).decode()


def no_cursor() -> Invalid:
    """The same words for whatever is wrong with it."""
    return Invalid("'after' is not a cursor of this list.", field="after")


def _may_be_a_key(key: object) -> bool:
    """Anything that a row of ours can have, and nothing that the database would not take as a text."""
    return isinstance(key, str) and 0 < len(key) <= _LONGEST_KEY and key.isprintable()


def _check(name: str, data: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + data).digest()[:_CHECK_BYTES]
