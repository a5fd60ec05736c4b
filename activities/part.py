"""The claimed parts of payments in flight.

A node reports a payment as in flight until its last part has ended. That takes days if a node on the route is away.
Until then the books hold all of its money, and the channels lack what was claimed.
"""

from collections.abc import Iterable

from engine.bank.reconciliation import Pending
from engine.clients.lnd.client import LndNode, NodePaymentStatus
from engine.contracts.reconciliation import InFlight

_MANY = 100


async def list_parts(node: LndNode, pending: Iterable[Pending]) -> list[InFlight]:
    """Ask the node about the oldest hundred of these payments. Raises what `find_payment` raises."""
    parts: list[InFlight] = []
    for waiting in sorted(pending, key=lambda each: each.created_at)[:_MANY]:
        known = await node.find_payment(waiting.payment_hash)
        if known is not None and known.status is NodePaymentStatus.IN_FLIGHT and known.claimed_msat > 0:
            parts.append(InFlight(kind="payment_part", ref=waiting.payment_hash, amount_msat=known.claimed_msat))
    return parts
