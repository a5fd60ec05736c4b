"""Why a withdrawal would be refused now, for its quote."""

from api.service.quote.answer import WarningOut
from api.service.resources import Resources
from engine.bank.limit import Payer, find_excess
from engine.domain.limit import exceeded
from engine.domain.money import Msat


async def warn_of(resources: Resources, payer: Payer, held_msat: Msat, available_msat: Msat) -> WarningOut | None:
    """Balance and limits, as they are now. None: it would be taken."""
    if held_msat > available_msat:
        detail = f"Amount and fee cap are {held_msat:,} msat, and {available_msat:,} msat are available."
        return WarningOut(code="insufficient_funds", detail=detail)
    async with resources.reading() as conn:
        excess = await find_excess(conn, resources.limits, payer, "withdrawal", held_msat)
    if excess is None:
        return None
    code, detail, _fields = exceeded(excess)
    return WarningOut(code=code, detail=detail)
