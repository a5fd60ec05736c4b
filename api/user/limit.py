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
    """Scope: `read`. How much may leave the account, and come in on chain, within rolling windows.

    It also shows how much this key may spend.

    A pending payment counts everything that it may take: amount and `max_fee_msat`. A settled one counts amount and
    `fee_msat`; a failed one counts nothing. A payment of exactly what remains passes with a `max_fee_msat` of 0. An
    amount is free again at most a 96th of the window after it has left the window. A deposit counts from the time it
    is first seen. One that exceeds a limit is received and `held`, until an operator decides.
    """
    return await limit_use.show_limits(resources, caller)
