"""Decisions about withdrawals and payouts, as they are answered: one, or a page of them."""

from pydantic import Field

from api.service.auth import Caller
from api.service.decision import DecisionBase
from api.service.resources import Resources
from api.service.role import MAY, Role
from engine.domain.errors import no_such
from engine.domain.forced_end import DecisionStatus
from engine.domain.page import START, Position, Slice
from engine.domain.withdrawal.decision import WithdrawalDecisionKind
from engine.ledger.database import Connection
from engine.views.withdrawal.decision import WITHDRAWAL_DECISIONS, find_withdrawal_decision


class WithdrawalDecisionOut(DecisionBase):
    """What an operator has decided, or proposes to a second one, and what has become of it."""

    id: str = Field(examples=["wdec_4t7q2v6x1b0n8r5d01k5y8z3c"])
    withdrawal_id: str | None = Field(description="Either this or `payout_id`.")
    payout_id: str | None
    kind: WithdrawalDecisionKind
    amount_sat: int = Field(description="Of the withdrawal, or all that the payout pays, when it was proposed.")
    rate_sat_kvb: int | None = Field(description="For `bump` and `child`; null: by the rule.")
    operators: int = Field(description="1: it is carried out at once. 2: another operator must approve it.")

    @property
    def roles(self) -> tuple[Role, ...]:
        """Who may decide it."""
        return MAY["decide about payouts" if self.withdrawal_id is None else "decide about withdrawals"]


async def list_withdrawal_decisions(
    resources: Resources, caller: Caller, status: DecisionStatus | None = None, *, after: Position = START, limit: int
) -> Slice[WithdrawalDecisionOut]:
    """One page, newest first."""
    caller.require_role(*MAY["see withdrawals"])
    async with resources.reading() as conn:
        found = await WITHDRAWAL_DECISIONS.read(conn, after, limit, status)
    return found.map(lambda row: WithdrawalDecisionOut(**row))


async def show_withdrawal_decision(resources: Resources, caller: Caller, decision_id: str) -> WithdrawalDecisionOut:
    """One decision. Raises NotFound."""
    caller.require_role(*MAY["see withdrawals"])
    async with resources.reading() as conn:
        return await read(conn, decision_id)


async def read(conn: Connection, decision_id: str) -> WithdrawalDecisionOut:
    """One decision. Raises NotFound."""
    row = await find_withdrawal_decision(conn, decision_id)
    if row is None:
        raise no_such("decision about a withdrawal or a payout")
    return WithdrawalDecisionOut(**row)
