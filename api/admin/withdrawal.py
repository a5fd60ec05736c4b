"""The door to all withdrawals, for operators. The use cases are in api/service/withdrawal/operator.py."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from api.access import PathId, get_resources, needs_role
from api.http.body import Id
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from api.service.withdrawal import operator
from api.service.withdrawal.operator import OperatorWithdrawalOut, OperatorWithdrawalWithDecisions
from api.service.withdrawal.shape import SpeedName, Status
from engine.views.withdrawal.withdrawal import WithdrawalFilter

router = APIRouter(prefix="/v1/admin", tags=["operators"])
Reader = Annotated[Caller, Depends(needs_role(*MAY["see withdrawals"]))]
Res = Annotated[Resources, Depends(get_resources)]


class AllWithdrawalsQuery(Paging):
    """Which withdrawals; all conditions count together."""

    account_id: Id | None = None
    wallet_id: Id | None = None
    status: Status | None = None
    speed: SpeedName | None = None
    payout_id: Id | None = None
    waits_for: Literal["approval", "resume"] | None = Field(
        default=None, description="`approval`: an operator must approve it. `resume`: an operator has put it on hold."
    )

    @property
    def wanted(self) -> WithdrawalFilter:
        """The conditions."""
        return WithdrawalFilter(**self.model_dump(exclude={"limit", "after"}))


@router.get("/withdrawals", summary="List all withdrawals", responses=problems("forbidden", "invalid_request"))
async def list_all_withdrawals(
    caller: Reader, resources: Res, query: Annotated[AllWithdrawalsQuery, Query()]
) -> Page[OperatorWithdrawalOut]:
    """Role: `support`, `treasury` or `finance`. Of all accounts, newest first, each with what it waits for."""
    name = f"all withdrawals {query.model_dump_json(exclude={'limit', 'after'})}"
    found = await operator.list_all_withdrawals(
        resources, caller, query.wanted, after=position(query, name), limit=query.limit
    )
    return page_of(found, name)


@router.get("/withdrawals/{withdrawal_id}", summary="Show any withdrawal", responses=problems("forbidden", "not_found"))
async def show_any_withdrawal(caller: Reader, resources: Res, withdrawal_id: PathId) -> OperatorWithdrawalWithDecisions:
    """Role: `support`, `treasury` or `finance`. With the decisions about it."""
    return await operator.show_any_withdrawal(resources, caller, withdrawal_id)
