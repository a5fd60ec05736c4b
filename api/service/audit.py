"""The audit trail: what operators did. Each line is written in the transaction of its act, and none is ever changed."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.page import START, Position, Slice
from engine.views.audit import AuditFilter, list_lines


class AuditOut(BaseModel):
    """One action of an operator, without secrets."""

    id: int = Field(description="Counts from 1, without gaps.")
    at: datetime
    operator: str = Field(description="The account of the key, or 'admin' for the bootstrap key.")
    key_id: str
    action: str = Field(examples=["key.make"])
    account_id: str | None = Field(description="The affected account.")
    subject: str | None = Field(description="Another affected thing: a case, a correction, a key.")
    detail: dict[str, Any]


async def list_audit(
    resources: Resources, caller: Caller, wanted: AuditFilter, *, after: Position = START, limit: int
) -> Slice[AuditOut]:
    """One page, newest first."""
    caller.require_role(*MAY["read the audit trail"])
    async with resources.reading() as conn:
        found = await list_lines(conn, wanted, after, limit)
    return found.map(lambda row: AuditOut(**row))
