"""Ask the pump to look at the chain again from a height. The use case, for any door.

The pump reads the blocks again and finds every deposit in them. What is right stays as it is, so a rescan never hurts.
"""

from dataclasses import dataclass

from api.service.auth import Caller, still_may_in_tx
from api.service.resources import Resources
from api.service.role import MAY
from engine.bank.audit import record_in_tx
from engine.bank.chain.rescan import read_tip_in_tx, request_in_tx
from engine.domain.errors import Invalid, no_such
from engine.ledger.database import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescan:
    """A rescan that was asked for."""

    wallet: str
    rescan_from: int
    tip_height: int


async def rescan_chain(resources: Resources, caller: Caller, wallet: str, *, height: int, reason: str) -> Rescan:
    """Ask for it. While an earlier request from the same or a lower height is open, this adds nothing.

    Raises NotFound before the wallet is adopted, and Invalid for a height above the tip.
    """
    caller.require_role(*MAY["rescan the chain"])
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        known = await read_tip_in_tx(conn, wallet)
        if known is None:
            raise no_such("wallet that a worker has adopted")
        tip_height, asked_before = known
        if height > tip_height:
            raise Invalid(f"The tip is at height {tip_height}; a rescan begins there or below.", field="height")
        if asked_before is not None and asked_before <= height:
            return Rescan(wallet=wallet, rescan_from=asked_before, tip_height=tip_height)
        await request_in_tx(conn, wallet, height)
        await record_in_tx(conn, caller.act("chain.rescan", subject=wallet, height=height, reason=reason))
    return Rescan(wallet=wallet, rescan_from=height, tip_height=tip_height)
