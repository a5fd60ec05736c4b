"""Decisions about deposits, as they are answered: one, or a page of them."""

from pydantic import Field

from api.service.auth import Caller
from api.service.decision import DecisionBase
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.deposit_decision import DepositDecisionKind
from engine.domain.errors import no_such
from engine.domain.forced_end import DecisionStatus
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views.deposit_decision import DEPOSIT_DECISIONS, find_deposit_decision


class DepositDecisionOut(DecisionBase):
    """A proposal and what has become of it."""

    id: str = Field(examples=["ddec_4t7q2v6x1b0n8r5d01k5y8z3c"])
    deposit_id: str
    kind: DepositDecisionKind
    wallet_id: str | None = Field(description="To whom an unattributed deposit is credited.")
    receivable_id: str | None = Field(description="Which receivable is given up.")
    amount_msat: int = Field(description="Of the deposit, or of the receivable, when it was proposed.")
    ref: str | None = Field(description="The posting that moved the deposit to a wallet.")


async def list_deposit_decisions(
    resources: Resources, caller: Caller, status: DecisionStatus | None = None, *, after: Position = START, limit: int
) -> Slice[DepositDecisionOut]:
    """One page, newest first."""
    caller.require_role(*MAY["decide about deposits"])
    async with resources.reading() as conn:
        found = await DEPOSIT_DECISIONS.read(conn, after, limit, status)
    return found.map(lambda row: DepositDecisionOut(**row))


async def show_deposit_decision(resources: Resources, caller: Caller, decision_id: str) -> DepositDecisionOut:
    """One decision. Raises NotFound."""
    caller.require_role(*MAY["decide about deposits"])
    async with resources.reading() as conn:
        return await read(conn, decision_id)


async def read(conn: Connection, decision_id: str) -> DepositDecisionOut:
    """One decision. Raises NotFound."""
    row = await find_deposit_decision(conn, decision_id)
    if row is None:
        raise no_such("decision about a deposit")
    return DepositDecisionOut(**row)
