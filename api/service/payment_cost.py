"""What a payment may cost on top of its amount: our fee, and the caller's cap within the bounds of the bank."""

from api.service.resources import Resources
from engine.bank.limit import Payer
from engine.bank.rulebook import find_edition
from engine.domain.errors import InvariantBroken
from engine.domain.fee import Kind, fee, parse_schedule
from engine.domain.money import Msat
from engine.domain.routing_cap import highest_routing_cap, require_max_fee_in_bounds


async def require_max_fee(resources: Resources, payer: Payer, amount_msat: Msat, max_fee_msat: Msat) -> None:
    """Raises Invalid (`max_fee_too_high`) for a `max_fee_msat` above the highest routing cap and our fee together."""
    book = await resources.limits.get(resources.pool, payer.limits_version)
    if max_fee_msat > highest_routing_cap(amount_msat, book.max_fee_factor):  # below that our fee does not matter
        service_fee_msat = await service_fee(resources, payer, "lightning_out", amount_msat)
        require_max_fee_in_bounds(amount_msat, max_fee_msat, book.max_fee_factor, service_fee_msat)


async def service_fee(resources: Resources, payer: Payer, kind: Kind, amount_msat: Msat) -> Msat:
    """Our fee under the schedule in force when the payer was read. The payment's transaction computes it anew."""
    async with resources.reading() as conn:
        edition = await find_edition(conn, "fees", payer.fees_version)
    if edition is None:
        raise InvariantBroken(f"there is no version {payer.fees_version} of the fees")
    return fee(parse_schedule(edition.content), kind, amount_msat, payer.level)
