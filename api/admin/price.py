"""The door to prices. The use case is in api/service/price.py."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from api.access import get_resources, needs_role
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.service import price
from api.service.auth import Caller
from api.service.price import PriceOut
from api.service.resources import Resources
from api.service.role import MAY

router = APIRouter(tags=["operators"])
Treasury = Annotated[Caller, Depends(needs_role(*MAY["set prices"]))]
Res = Annotated[Resources, Depends(get_resources)]


class PriceIn(Content):
    """The price of one bitcoin."""

    price: Annotated[Text, Field(max_length=20)] = Field(description="A decimal number with at most six decimals.")


@router.put(
    "/v1/admin/prices/{currency}",
    summary="Set a price",
    responses=problems("forbidden", "invalid_request", "request_too_large"),
    openapi_extra=documented(PriceIn, dollars={"price": "64250.10"}),
)
async def set_price(
    caller: Treasury,
    resources: Res,
    currency: Annotated[str, Path(max_length=10, examples=["USD"])],
    body: Annotated[Body[PriceIn], Depends(JsonBody(PriceIn))],
) -> PriceOut:
    """Role: `treasury`. Limits in this currency count payments at this price until the next one is set.

    A price is fresh for an hour (`MILLRACE_PRICE_MAX_AGE_S`). Every price is kept.
    """
    return await price.set_price(resources, caller, currency, body.content.price)
