"""Deposits over HTTP: what has come in on chain, and what is on its way."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from api.access import PathId, get_resources, needs
from api.http.body import Id, Text
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.deposit import deposit
from api.service.deposit.deposit import DepositOut, DepositStatus
from api.service.resources import Resources
from engine.views.deposit import DepositFilter

router = APIRouter(prefix="/v1/deposits", tags=["deposits"])
Read = Annotated[Caller, Depends(needs("read"))]
Res = Annotated[Resources, Depends(get_resources)]


class DepositsQuery(Paging):
    """Which deposits; all conditions count together."""

    wallet_id: Id | None = None
    status: DepositStatus | None = None
    address: Text | None = Field(default=None, min_length=1, max_length=100, description="The address that was paid.")

    @property
    def wanted(self) -> DepositFilter:
        """The conditions."""
        return DepositFilter(**self.model_dump(exclude={"limit", "after"}))


@router.get("", summary="List your deposits", responses=problems("forbidden", "invalid_request"))
async def list_deposits(caller: Read, resources: Res, query: Annotated[DepositsQuery, Query()]) -> Page[DepositOut]:
    """Scope: `read`. Newest first, by the time at which each was first seen.

    A cursor belongs to its conditions: ask for every page with the same ones.
    """
    name = f"deposits {caller.account_id} {query.model_dump_json(exclude={'limit', 'after'})}"
    found = await deposit.list_deposits(resources, caller, query.wanted, after=position(query, name), limit=query.limit)
    return page_of(found, name)


@router.get("/{deposit_id}", summary="Show a deposit", responses=problems("forbidden", "not_found"))
async def show_deposit(caller: Read, resources: Res, deposit_id: PathId) -> DepositOut:
    """Scope: `read`."""
    return await deposit.show_deposit(resources, caller, deposit_id)
