"""The audit trail over HTTP, for operators."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from api.access import get_resources, needs_role
from api.http.body import Id
from api.http.errors import problems
from api.http.paging import Page, Paging, no_cursor, page_of, position
from api.http.period import Period
from api.service import audit
from api.service.audit import AuditOut
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.page import Position
from engine.views.audit import AuditFilter

router = APIRouter(prefix="/v1/admin/audit", tags=["operators"])
_MOST_DIGITS = 18


class AuditQuery(Paging, Period):
    """Which lines; all conditions count together."""

    account: Id | None = Field(default=None, description="The affected account.")
    operator: Id | None = Field(default=None, description="An account, or 'admin' for the bootstrap key.")
    action: str | None = Field(default=None, pattern=r"^[a-z_]+\.[a-z_]+$", examples=["correction.approve"])

    @property
    def name(self) -> str:
        """The list's name for its cursors: every condition."""
        return f"audit {self.model_dump_json(exclude={'limit', 'after'})}"

    @property
    def wanted(self) -> AuditFilter:
        """The conditions."""
        return AuditFilter(
            account_id=self.account,
            operator=self.operator,
            action=self.action,
            begins_at=self.begins_at,
            ends_at=self.ends_at,
        )


@router.get("", summary="List what operators did", responses=problems("forbidden", "invalid_request"))
async def list_audit(
    caller: Annotated[Caller, Depends(needs_role(*MAY["read the audit trail"]))],
    resources: Annotated[Resources, Depends(get_resources)],
    query: Annotated[AuditQuery, Query()],
) -> Page[AuditOut]:
    """Role: `finance`. Newest first, by account, operator, action and period; a cursor belongs to its conditions."""
    query.check()
    found = await audit.list_audit(resources, caller, query.wanted, after=_position(query), limit=query.limit)
    return page_of(found, query.name)


def _position(query: AuditQuery) -> Position:
    """The position of a line, whose key is its number. Raises Invalid."""
    at, number = position(query, query.name)
    if number is not None and not (number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS):
        raise no_cursor()
    return at, number
