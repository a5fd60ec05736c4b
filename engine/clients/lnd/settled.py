"""What a succeeded payment has cost, by its settled attempts.

LND reports a payment as succeeded when one of its attempts was settled and none is in flight any more. When a payment
has several parts, a payee can take some and let the others fail. `value_msat` is then still the amount asked for, and
only the settled attempts say what was paid.
"""

from dataclasses import dataclass

from engine.clients.lndrpc import lightning_pb2 as ln
from engine.domain.money import Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What has left the node."""

    delivered_msat: Msat
    """What the payee has got."""
    fee_msat: Msat

    @property
    def total_msat(self) -> Msat:
        """Delivered amount and fee together."""
        return Msat(self.delivered_msat + self.fee_msat)


def read_claimed(payment: ln.Payment) -> Msat:
    """What has left the node so far with settled attempts, fees included."""
    return Msat(sum(each.route.total_amt_msat for each in payment.htlcs if each.status == ln.HTLCAttempt.SUCCEEDED))


def read_settled(payment: ln.Payment) -> Settled:
    """What a succeeded payment has delivered and cost.

    The payment's own sums count when its settled attempts do not say what they carried.
    """
    routes = [attempt.route for attempt in payment.htlcs if attempt.status == ln.HTLCAttempt.SUCCEEDED]
    if not routes or any(route.total_amt_msat <= route.total_fees_msat for route in routes):
        return Settled(delivered_msat=Msat(payment.value_msat), fee_msat=Msat(payment.fee_msat))
    fee_msat = sum(route.total_fees_msat for route in routes)
    return Settled(
        delivered_msat=Msat(sum(route.total_amt_msat for route in routes) - fee_msat), fee_msat=Msat(fee_msat)
    )
