"""A payment as the books see it. A: amount, F: routing cap, B: our fee.

The bank's row of a payment has more columns; the postings need only these.
"""

from dataclasses import dataclass

from engine.domain.fee import Charge
from engine.domain.ids import PaymentHash, PaymentId
from engine.domain.money import Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """What is paid, and the most that it may cost."""

    id: PaymentId
    workflow_id: str
    amount_msat: Msat
    """A."""
    max_fee_msat: Msat
    """F + B: the most that it may cost on top of the amount."""
    payment_hash: PaymentHash | None = None
    attempt: int | None = None
    """Over Lightning: counted from 1 over all payments of this hash."""
    memo: str | None = None
    service_fee_msat: Msat = Msat(0)
    """B. Computed once, when the payment is opened."""
    fee_version: int | None = None
    """With the level: the rule by which B was computed."""
    fee_level: int | None = None

    @property
    def routing_cap_msat(self) -> Msat:
        """F: the most that the network may take."""
        return Msat(self.max_fee_msat - self.service_fee_msat)

    @property
    def total_msat(self) -> Msat:
        """A + F + B: the most that may leave the wallet. This much is held, and counts towards limits."""
        return Msat(self.amount_msat + self.max_fee_msat)

    @property
    def charge(self) -> Charge | None:
        """B with its rule; None is free of charge."""
        if self.fee_version is None or self.fee_level is None:
            return None
        return Charge(fee_msat=self.service_fee_msat, version=self.fee_version, level=self.fee_level)
