"""What a payment that has succeeded has cost, by the attempts that were settled.

LND calls a payment succeeded when one of its attempts was settled and none is in flight any more. Of a payment in
several parts a payee can take some and let the others fail: `value_msat` is then still what was to be paid, and only
the settled attempts say what was.
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
        """Both."""
        return Msat(self.delivered_msat + self.fee_msat)


def read_claimed(payment: ln.Payment) -> Msat:
    """What has left the node with the attempts that were settled so far, fees included."""
    return Msat(sum(each.route.total_amt_msat for each in payment.htlcs if each.status == ln.HTLCAttempt.SUCCEEDED))


def read_settled(payment: ln.Payment) -> Settled:
    """Of a payment that has succeeded. By its own sums where its settled attempts do not say what they carried."""
    routes = [attempt.route for attempt in payment.htlcs if attempt.status == ln.HTLCAttempt.SUCCEEDED]
    if not routes or any(route.total_amt_msat <= route.total_fees_msat for route in routes):
        return Settled(delivered_msat=Msat(payment.value_msat), fee_msat=Msat(payment.fee_msat))
    fee_msat = sum(route.total_fees_msat for route in routes)
    return Settled(
        delivered_msat=Msat(sum(route.total_amt_msat for route in routes) - fee_msat), fee_msat=Msat(fee_msat)
    )
