"""Prices as operators set them: what one bitcoin is worth in another currency. A feed writes to the same table.

Limits in a currency count payments at its newest price. A payment needs a fresh one, see `fresh_price.py`.
"""

import re
from datetime import datetime

from pydantic import BaseModel, Field

from api.service.auth import Caller, still_may_in_tx
from api.service.resources import Resources
from api.service.role import MAY
from engine.bank.audit import record_in_tx
from engine.bank.price import add_price_in_tx, read_prices
from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.money import fiat_text, parse_fiat
from engine.ledger.database import transaction

_CURRENCY = re.compile(r"[A-Z]{3}")


class PriceOut(BaseModel):
    """The price of one bitcoin."""

    currency: str = Field(examples=["USD"])
    price: str = Field(examples=["64250.10"])
    source: str = Field(description="Who set it.")
    at: datetime


async def set_price(resources: Resources, caller: Caller, currency: str, price: str) -> PriceOut:
    """Set the price of one bitcoin, a decimal number. Raises Invalid. Every price that was ever set is kept."""
    caller.require_role(*MAY["set prices"])
    if not _CURRENCY.fullmatch(currency) or currency == "BTC":
        raise Invalid("A currency is three capital letters, and not BTC.", field="currency")
    price_micro = parse_fiat(price)
    if not price_micro:
        raise Invalid("A price is a decimal number above zero, with at most six decimals.", field="price")
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        await add_price_in_tx(conn, currency, price_micro, caller.owner)
        known = (await read_prices(conn, [currency])).get(currency)
        await record_in_tx(conn, caller.act("price.set", subject=currency, price=fiat_text(price_micro)))
    if known is None:
        raise InvariantBroken(f"a price in {currency} was set and is gone")
    return PriceOut(currency=currency, price=fiat_text(known.price_micro), source=known.source, at=known.at)
