"""Rulebooks, the fees and the limits: an operator sets the next version, once, with a line in the audit trail.

Of two operators who set the same version one is first, and the other gets a conflict.
"""

from typing import Any

from api.service.auth import Caller, still_may_in_tx
from api.service.resources import Resources
from engine.bank.audit import record_in_tx
from engine.bank.rulebook import Edition, Name, find_edition, set_in_tx
from engine.domain.errors import Conflict, InvariantBroken
from engine.ledger.database import transaction


async def set_edition(
    resources: Resources, caller: Caller, name: Name, content: dict[str, Any], *, version: int, note: str
) -> Edition:
    """Put a checked content in force. A repeat by the same operator returns the first edition.

    Raises Conflict (`version_conflict`) when another version came first.
    """
    try:
        async with transaction(resources.pool) as conn:
            await still_may_in_tx(conn, caller)
            await set_in_tx(conn, name, content, version=version, note=note, set_by=caller.owner)
            await record_in_tx(conn, caller.act(f"{name}.set", subject=f"version {version}", note=note))
    except Conflict:
        known = await find_edition(resources.pool, name, version)
        if known is None or (known.content, known.note, known.set_by) != (content, note, caller.owner):
            raise
        return known
    made = await find_edition(resources.pool, name, version)
    if made is None:
        raise InvariantBroken(f"version {version} of the {name} was set and is not there")
    return made
