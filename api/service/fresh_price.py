"""A limit in another currency needs a fresh price.

The books count a payment against such a limit at the last price there, where the money is held. So a payment is
accepted only while that price is fresh (`MILLRACE_PRICE_MAX_AGE_S`).
"""

from api.service.resources import Resources
from engine.bank.limit import Payer
from engine.bank.price import read_prices
from engine.domain.errors import Unavailable
from engine.domain.limit import Kind


async def require_fresh_prices(resources: Resources, payer: Payer, kind: Kind) -> None:
    """Raises Unavailable (`price_unavailable`) when a limit in another currency applies and its price is too old."""
    book = await resources.limits.get(resources.pool, payer.limits_version)
    currencies = book.currencies(payer.level, kind)
    if not currencies:
        return
    prices = await read_prices(resources.pool, currencies)
    for currency in currencies:
        price = prices.get(currency)
        if price is None or price.age_s > resources.settings.price_max_age_s:
            raise Unavailable(f"no fresh price in {currency}", code="price_unavailable")
