"""Pages of lists in HTTP: `?limit=` and `&after=<cursor>`. The SQL of a page is in engine/views/page.py.

A cursor holds the position of the last row of a page: the time and the key by which the list is ordered. A checksum
over both and the list's name lets us refuse a garbled cursor and a cursor of another list. The values come from the
columns of the ORDER BY, not from the row as shown: an id may be shown with a suffix, or may not be the key. A cursor is
no secret. The account decides what may be read, the cursor never does.
"""

import base64
import binascii
import hashlib
import json
from datetime import datetime
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.page import MAX_LIMIT, START, Position, Slice

T = TypeVar("T")
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


def position(paging: Paging, name: str) -> Position:
    """The position after which the page begins. Raises Invalid for a cursor that is garbled or of another list."""
    if paging.after is None:
        return START
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


def page_of(found: Slice[T], name: str) -> Page[T]:
    """The page as an answer, with the cursor of the next one."""
    return Page(items=list(found.rows), next_cursor=next_cursor(found.following, name))


def next_cursor(following: Position | None, name: str) -> str | None:
    """The cursor for this position; None where no page follows."""
    if following is None:
        return None
    at, key = following
    if at is None or key is None:
        raise InvariantBroken(f"a page of {name} ends without a position")
    return cursor(at, key, name)


def cursor(at: datetime, key: str, name: str) -> str:
    """The cursor after this row. Filters are part of the list's name: with other filters the cursor is refused."""
    data = json.dumps([at.isoformat(), key], ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(_check(name, data) + data).decode()


def no_cursor() -> Invalid:
    """The same sentence for every cursor that is refused."""
    return Invalid("'after' is not a cursor of this list.", field="after")


def _may_be_a_key(key: object) -> bool:
    """Any key that a row can have, and nothing that Postgres would refuse as text."""
    return isinstance(key, str) and 0 < len(key) <= _LONGEST_KEY and key.isprintable()


def _check(name: str, data: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + data).digest()[:_CHECK_BYTES]
