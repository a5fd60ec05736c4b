"""Lists, newest first, in pages: `?limit=` and `&after=<cursor>`, where a cursor names the last row that was seen.

A cursor holds the row's time and id and a checksum over them and the list's name, so that a garbled one, or one of
another list, is refused. It is no secret: what may be read is decided by the account, never by the cursor.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from engine.domain.errors import Invalid

T = TypeVar("T")
MAX_LIMIT = 100
_CHECK_BYTES = 6
_FIRST_YEAR, _LAST_YEAR = 2000, 9000
_ID = re.compile(r"[0-9A-Za-z_.]{1,100}")


class Paging(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=MAX_LIMIT, description="How many at most.")
    after: str | None = Field(default=None, max_length=500, description="`next_cursor` of the page before.")


class Page(BaseModel, Generic[T]):
    """One page; `next_cursor` is null on the last."""

    items: list[T]
    next_cursor: str | None


def position(paging: Paging, name: str) -> tuple[datetime | None, str | None]:
    """After which (time, id) the page begins; (None, None) for the first. Raises Invalid for a garbled cursor."""
    if paging.after is None:
        return None, None
    try:
        raw = base64.b64decode(paging.after.encode("ascii"), altchars=b"-_", validate=True)
        check, data = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check(name, data):
            raise ValueError("checksum")
        text, row_id = json.loads(data)
        at = datetime.fromisoformat(text)
        if at.tzinfo is None or not _FIRST_YEAR <= at.year <= _LAST_YEAR or not _ID.fullmatch(row_id):
            raise ValueError("content")
        return at, str(row_id)
    except (ValueError, TypeError, binascii.Error):
        raise Invalid("'after' is not a cursor of this list.", field="after") from None


def paged(rows: Sequence[Any], paging: Paging, name: str) -> tuple[Sequence[Any], str | None]:
    """Cut what was read, beyond `limit`, to the page, with the cursor of the next. Rows have created_at and id."""
    page = rows[: paging.limit]
    if len(rows) <= paging.limit:
        return page, None
    return page, cursor(page[-1]["created_at"], page[-1]["id"], name)


def cursor(at: datetime, row_id: str, name: str) -> str:
    """Names the last row that was seen. Filters are part of the list's name: a cursor is of no use with others."""
    data = json.dumps([at.isoformat(), row_id]).encode()
    return base64.urlsafe_b64encode(_check(name, data) + data).decode()


def _check(name: str, data: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + data).digest()[:_CHECK_BYTES]
