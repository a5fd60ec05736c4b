"""Prices as operators set them: what one bitcoin is worth in another currency. A feed writes to the same table."""

import re
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field

from api.access import get_resources, needs_role
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.service.auth import Caller, still_may_in_tx
from api.service.resources import Resources
from api.service.role import MAY
from engine.bank.audit import record_in_tx
from engine.bank.prices import add_price_in_tx, read_prices
from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.money import fiat_text, parse_fiat
from engine.ledger.database import transaction

router = APIRouter(tags=["operators"])
Treasury = Annotated[Caller, Depends(needs_role(*MAY["set prices"]))]
Res = Annotated[Resources, Depends(get_resources)]
_CURRENCY = re.compile(r"[A-Z]{3}")


class PriceIn(Content):
    """What one bitcoin is worth."""

    price: Annotated[Text, Field(max_length=20)] = Field(description="A decimal number with at most six decimals.")


class PriceOut(BaseModel):
    """The price of one bitcoin."""

    currency: str = Field(examples=["USD"])
    price: str = Field(examples=["64250.10"])
    source: str = Field(description="Who set it.")
    at: datetime


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
    """Role: `treasury`. Limits in this currency count payments at this price, until the next one.

    A price is fresh for an hour (`MILLRACE_PRICE_MAX_AGE_S`). All that was ever set is kept.
    """
    if not _CURRENCY.fullmatch(currency) or currency == "BTC":
        raise Invalid("A currency is three capital letters, and not BTC.", field="currency")
    price_micro = parse_fiat(body.content.price)
    if not price_micro:
        raise Invalid("A price is a decimal number above zero, with at most six decimals.", field="price")
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        await add_price_in_tx(conn, currency, price_micro, caller.owner)
        price = (await read_prices(conn, [currency])).get(currency)
        await record_in_tx(conn, caller.act("price.set", subject=currency, price=fiat_text(price_micro)))
    if price is None:
        raise InvariantBroken(f"a price in {currency} was set and is gone")
    return PriceOut(currency=currency, price=fiat_text(price.price_micro), source=price.source, at=price.at)
