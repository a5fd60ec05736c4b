"""Corrections and capital as they are answered: one, with its trail, or a page of them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.http.codes import Forbidden
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY, Role
from engine.domain.correction import CorrectionKind, CorrectionStatus, transfer_refs
from engine.domain.errors import Conflict, no_such
from engine.domain.ids import CorrectionId
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views.correction import CORRECTIONS, find_correction, list_trail

ROLES: dict[CorrectionKind, Role] = {
    CorrectionKind.CORRECTION: MAY["correct the books"][0],
    CorrectionKind.CAPITAL: MAY["move capital"][0],
}
"""Who may propose and decide which kind. Either role may read both."""
_OPEN = (CorrectionStatus.PROPOSED, CorrectionStatus.APPROVED)


class RefusalOut(BaseModel):
    """Why the books refused it. Nothing moved, and a new proposal is needed."""

    code: str = Field(description="insufficient_funds or account_locked")
    detail: str


class CorrectionOut(BaseModel):
    """A proposal and what has become of it."""

    id: str = Field(examples=["corr_4t7q2v6x1b0n8r5d01k5y8z3c"])
    kind: CorrectionKind
    status: CorrectionStatus
    debit: str
    credit: str
    amount_msat: int
    reason: str
    case_id: str | None
    reference: str | None
    proposed_by: str = Field(description="An account, or 'admin' for the bootstrap key.")
    approved_by: str | None
    rejected_by: str | None
    refusal: RefusalOut | None
    transfers: list[str] = Field(description="The references of its transfers, once they are posted.")
    workflow_id: str
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    ended_at: datetime | None


class TrailOut(BaseModel):
    """A line of its trail."""

    event: CorrectionStatus
    actor: str
    note: str
    at: datetime


class CorrectionWithTrail(CorrectionOut):
    """A correction and all that happened to it, the oldest first."""

    trail: list[TrailOut]

    @property
    def is_open(self) -> bool:
        """Whether it waits for a second operator, or for its postings."""
        return self.status in _OPEN

    def decided(self) -> Conflict:
        """The refusal of another decision."""
        return Conflict(f"This is {self.status} already; its trail says how.", code="correction_decided")


async def list_corrections(
    resources: Resources,
    caller: Caller,
    status: CorrectionStatus | None = None,
    *,
    after: Position = START,
    limit: int,
) -> Slice[CorrectionOut]:
    """One page, newest first."""
    caller.require_role(*ROLES.values())
    async with resources.reading() as conn:
        found = await CORRECTIONS.read(conn, after, limit, status)
    return found.map(lambda row: CorrectionOut(**_shown(row)))


async def show_correction(resources: Resources, caller: Caller, correction_id: str) -> CorrectionWithTrail:
    """One correction with its trail. Raises NotFound."""
    caller.require_role(*ROLES.values())
    async with resources.reading() as conn:
        return await read(conn, correction_id)


async def read(conn: Connection, correction_id: str) -> CorrectionWithTrail:
    """One correction with its trail. Raises NotFound."""
    row = await find_correction(conn, correction_id)
    if row is None:
        raise no_such("correction")
    trail = await list_trail(conn, correction_id)
    return CorrectionWithTrail(**_shown(row), trail=[TrailOut(**line) for line in trail])


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    refs = transfer_refs(CorrectionId(row["id"]), CorrectionKind(row["kind"]), row["debit"], row["credit"])
    code, detail = row["refusal_code"], row["refusal_detail"]
    return {
        **row,
        "refusal": RefusalOut(code=code, detail=detail) if code else None,
        "transfers": refs if row["status"] == CorrectionStatus.POSTED else [],
    }


def require_role(caller: Caller, kind: CorrectionKind) -> None:
    """Raises Forbidden unless the key may propose and decide this kind."""
    role = ROLES[kind]
    if not caller.has_role(role):
        raise Forbidden(f"The kind '{kind}' needs a key with the role {role}.", scope=role)
