"""All withdrawals, for operators: what each waits for, and what was decided about it. The use cases."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from api.service.withdrawal.shape import WithdrawalOut, shown, waits_for
from api.service.withdrawal_decision.answer import WithdrawalDecisionOut
from engine.domain.errors import no_such
from engine.domain.page import START, Position, Slice
from engine.views.withdrawal.decision import list_decisions_about
from engine.views.withdrawal.withdrawal import WithdrawalFilter, find_withdrawal, read_withdrawals


class OperatorWithdrawalOut(WithdrawalOut):
    """A withdrawal with what only operators see."""

    account_id: str
    payee_wallet_id: str | None = Field(description="The user of this bank who was paid in the books.")
    approval: Literal["needed", "given"] | None
    on_hold: bool
    payout_status: str | None = Field(description="Of the payout, which is `batch_id`.")
    payout_problem: str | None = Field(description="Why the payout does not go on.")


class OperatorWithdrawalWithDecisions(OperatorWithdrawalOut):
    """A withdrawal, and the newest 100 decisions about it, newest first."""

    decisions: list[WithdrawalDecisionOut]


async def list_all_withdrawals(
    resources: Resources, caller: Caller, wanted: WithdrawalFilter, *, after: Position = START, limit: int
) -> Slice[OperatorWithdrawalOut]:
    """One page of the withdrawals of all accounts, newest first."""
    caller.require_role(*MAY["see withdrawals"])
    async with resources.reading() as conn:
        found = await read_withdrawals(conn, wanted, after, limit)
    return found.map(lambda row: OperatorWithdrawalOut(**_shown(row)))


async def show_any_withdrawal(
    resources: Resources, caller: Caller, withdrawal_id: str
) -> OperatorWithdrawalWithDecisions:
    """One withdrawal of any account. Raises NotFound."""
    caller.require_role(*MAY["see withdrawals"])
    async with resources.reading() as conn:
        row = await find_withdrawal(conn, withdrawal_id)
        if row is None:
            raise no_such("withdrawal")
        decisions = await list_decisions_about(conn, withdrawal_id=withdrawal_id)
    return OperatorWithdrawalWithDecisions(
        **_shown(row), decisions=[WithdrawalDecisionOut(**each) for each in decisions]
    )


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("account_id", "payee_wallet_id", "approval", "on_hold", "payout_status", "payout_problem")
    return {**shown(row), **{name: row[name] for name in names}, "waits_for": _waits_for(row)}


def _waits_for(row: Mapping[str, Any]) -> str | None:
    """As its owner reads it; once it is in a payout, what that waits for."""
    if row["status"] in {"batched", "broadcast"}:
        if row["payout_on_hold"]:
            return "an operator, who has put its payout on hold"
        return row["payout_problem"] or waits_for(row)
    return waits_for(row)
