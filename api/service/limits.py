"""What limits ask of a payment before it is accepted: fresh prices, and a cap on fees within bounds.

The books count the payment against its limits where the money is held. A limit in another currency is counted at the
last price there, so a payment is accepted only while the price is fresh.
"""

from api.service.resources import Resources
from engine.bank.limits import Payer
from engine.bank.prices import read_prices
from engine.bank.rulebook import find_edition
from engine.domain import limits
from engine.domain.errors import InvariantBroken, Unavailable
from engine.domain.fees import Kind, fee, parse_schedule
from engine.domain.money import Msat
from engine.domain.routing_cap import highest_routing_cap, require_max_fee_in_bounds


async def require_fresh_prices(resources: Resources, payer: Payer, kind: limits.Kind) -> None:
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


async def require_max_fee(resources: Resources, payer: Payer, amount_msat: Msat, max_fee_msat: Msat) -> None:
    """Raises Invalid (`max_fee_too_high`) for a `max_fee_msat` above the highest routing cap and our fee together."""
    book = await resources.limits.get(resources.pool, payer.limits_version)
    if max_fee_msat > highest_routing_cap(amount_msat, book.max_fee_factor):  # else our fee cannot matter
        service_fee_msat = await service_fee(resources, payer, "lightning_out", amount_msat)
        require_max_fee_in_bounds(amount_msat, max_fee_msat, book.max_fee_factor, service_fee_msat)


async def service_fee(resources: Resources, payer: Payer, kind: Kind, amount_msat: Msat) -> Msat:
    """Our fee under the schedule in force when the payer was read. The payment's transaction computes it anew."""
    async with resources.reading() as conn:
        edition = await find_edition(conn, "fees", payer.fees_version)
    if edition is None:
        raise InvariantBroken(f"there is no version {payer.fees_version} of the fees")
    return fee(parse_schedule(edition.content), kind, amount_msat, payer.level)
