"""Messages of a lane: payments that were asked for at the same time and go through one workflow together.
Durable: add fields with defaults, never rename or remove."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from temporalio import activity

from engine.contracts.payment import PaymentOutcome, PaymentRequest

MAX_ITEMS = 256
"""One transaction of some 30 ms, during which the balances of all payers and payees are locked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRequest:
    """Payments in the order in which they came. No two have the same account and key."""

    items: list[PaymentRequest]
    over_lightning: bool = False
    """Whether they go out over our nodes; else all are between users of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneOutcome:
    """How each ended, in the same order. Without status, refusal or conflict: it is handed to a workflow of its own,
    because it contradicts the books and nothing of it was done, or because its node has no final word yet."""

    outcomes: list[PaymentOutcome]


class LaneActivities(ABC):
    """Safe to repeat."""

    @activity.defn
    @abstractmethod
    async def open_lane(self, lane: LaneRequest) -> LaneOutcome:
        """Claim each key; settle or refuse each payment, whatever becomes of the others.

        Internal payments are one transaction. Those over Lightning are opened and sent side by side, each for itself.
        """
