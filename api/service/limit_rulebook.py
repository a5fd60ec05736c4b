"""The limits for operators: the version in force, and the next one. The use cases."""

from typing import Any

from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from api.service.rulebook import set_edition
from engine.bank.price import read_prices
from engine.bank.rulebook import Edition, read_current
from engine.domain.errors import Invalid
from engine.domain.limit import parse_limits


async def show_limit_rulebook(resources: Resources, caller: Caller) -> Edition:
    """The version in force."""
    caller.require_role(*MAY["set limits"])
    async with resources.reading() as conn:
        return await read_current(conn, "limits")


async def set_limit_rulebook(
    resources: Resources, caller: Caller, content: dict[str, Any], *, version: int, note: str
) -> Edition:
    """Put the next version in force.

    Raises Invalid, also for a currency that never had a price: so a payment always finds a price, however old. Raises
    Conflict (`version_conflict`) when another version came first.
    """
    caller.require_role(*MAY["set limits"])
    currencies = parse_limits(content).all_currencies()
    async with resources.reading() as conn:
        missing = sorted(currencies - set(await read_prices(conn, currencies)))
    if missing:
        raise Invalid(
            f"There never was a price in {missing[0]}: set one first, with PUT /v1/admin/prices/{missing[0]}.",
            field="content",
        )
    return await set_edition(resources, caller, "limits", content, version=version, note=note)
