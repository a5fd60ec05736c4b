"""The door to an account's limits. The use case is in api/service/limit_use.py."""

from typing import Annotated

from fastapi import APIRouter, Depends

from api.access import get_resources, needs
from api.http.errors import problems
from api.service import limit_use
from api.service.auth import Caller
from api.service.limit_use import LimitsOut
from api.service.resources import Resources

router = APIRouter()
Read = Annotated[Caller, Depends(needs("read"))]
Res = Annotated[Resources, Depends(get_resources)]


@router.get("/v1/limits", tags=["accounts"], summary="Show your limits", responses=problems("forbidden"))
async def show_limits(caller: Read, resources: Res) -> LimitsOut:
    """Scope: `read`. What may leave the account within rolling windows, and what this key may spend.

    While it is pending, a payment counts all that it may take: amount and `max_fee_msat`. Once it is settled it counts
    amount and `fee_msat`; one that failed counts nothing. Exactly the limit passes: a payment of all that remains needs
    a `max_fee_msat` of 0. What has left a window frees its part within a 96th of it.
    """
    return await limit_use.show_limits(resources, caller)
