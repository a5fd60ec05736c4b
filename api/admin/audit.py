"""The trail of what operators did, for those who answer for it. Only added to, in the transaction of each act.

Numbers have no gaps and follow the order of the commits, so what was read once is never joined by an older line.
"""

from datetime import datetime
from operator import itemgetter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from api.access import get_resources, needs_role
from api.http.body import Id
from api.http.errors import problems
from api.http.paging import Page, Paging, no_cursor, paged, position
from api.http.period import Period
from api.service.auth import Caller
from api.service.resources import Resources

router = APIRouter(prefix="/v1/admin/audit", tags=["operators"])
_MOST_DIGITS = 18
_LINES = """
SELECT id, id::text AS key, at, operator, key_id, action, account_id, subject, detail FROM bank.audit
 WHERE ($1::bigint IS NULL OR id < $1)
   AND ($3::text IS NULL OR account_id = $3 OR detail ->> 'other_account_id' = $3)
   AND ($4::text IS NULL OR operator = $4) AND ($5::text IS NULL OR action = $5)
   AND ($6::timestamptz IS NULL OR at >= $6) AND ($7::timestamptz IS NULL OR at < $7)
 ORDER BY id DESC LIMIT $2"""


class AuditQuery(Paging, Period):
    """Which lines; all conditions count together."""

    account: Id | None = Field(default=None, description="The user's account that it was done to.")
    operator: Id | None = Field(default=None, description="An account, or 'admin' for the bootstrap key.")
    action: str | None = Field(default=None, pattern=r"^[a-z_]+\.[a-z_]+$", examples=["correction.approve"])

    @property
    def name(self) -> str:
        """The list's name for its cursors: every condition."""
        return f"audit {self.model_dump_json(exclude={'limit', 'after'})}"


class AuditOut(BaseModel):
    """One thing that an operator did. There are no secrets in it."""

    id: int = Field(description="Counts from 1, without gaps.")
    at: datetime
    operator: str = Field(description="Whose key it was: an account, or 'admin' for the bootstrap key.")
    key_id: str
    action: str = Field(examples=["key.make"])
    account_id: str | None = Field(description="The user's account that it was done to.")
    subject: str | None = Field(description="What else it was done to: a case, a correction, a key.")
    detail: dict[str, Any]


@router.get("", summary="List what operators did", responses=problems("forbidden", "invalid_request"))
async def list_audit(
    _caller: Annotated[Caller, Depends(needs_role("finance"))],
    resources: Annotated[Resources, Depends(get_resources)],
    query: Annotated[AuditQuery, Query()],
) -> Page[AuditOut]:
    """Role: `finance`. Newest first, by account, operator, action and period; a cursor belongs to its conditions."""
    query.check()
    async with resources.reading() as conn:
        rows = await conn.fetch(
            _LINES,
            _after(query),
            query.limit + 1,
            query.account,
            query.operator,
            query.action,
            query.begins_at,
            query.ends_at,
        )
    page, following = paged(rows, query, query.name, itemgetter("at", "key"))
    return Page(items=[AuditOut(**row) for row in page], next_cursor=following)


def _after(query: AuditQuery) -> int | None:
    _at, number = position(query, query.name)
    if number is None:
        return None
    if not number.isascii() or not number.isdecimal() or len(number) > _MOST_DIGITS:
        raise no_cursor()
    return int(number)
