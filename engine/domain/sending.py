"""What a payment in flight waits for.

`lost_attempt.py` says when its attempt is proven lost, and `pause.py` how long a sender pauses between looks.
"""

from dataclasses import dataclass

IN_FLIGHT = "in_flight"
"""The reason to wait of a payment that is on its way: it is the payee's turn."""
LOST_ATTEMPT = "lost_attempt"
"""The reason to wait, and then the failure code, of a payment whose attempt the node has lost."""
NOT_TRIED = "not_tried"
"""The reason to wait of a payment that its node accepted, and stopped working on before the first attempt."""
OVERDUE = "overdue"
"""The reason to wait of a payment past its time lock that its node has not ended."""
IN_DOUBT = "channels_in_doubt"
"""The reason to wait of a payment in no channel of a node whose channel database may be old: it proves nothing."""
UNDER_WAY = frozenset({IN_FLIGHT, LOST_ATTEMPT, NOT_TRIED, OVERDUE, IN_DOUBT})
"""Reasons to wait of a payment that its node has. With any other the payment is not going on."""
REFUSED_BY_NODE = "invoice_refused_by_node"
"""The code of a refusal by our node: an invoice that it cannot read, or a payment that it never began."""
REFUSALS = 3
"""A payment that never began ends after so many refusals in the same words. A look after each found no payment."""
REFUSAL_REST_S = 10
"""Seconds from the last refusal to one more look, before the payment ends. A send of a stopped worker has arrived by
then: another worker takes a payment up after five or six seconds."""
TRIED_AFTER_S = 75
"""Seconds after which a node makes no first attempt any more: it has a minute for all attempts."""
CLTV_LIMIT = 1008
"""Blocks for which a payment or a probe may be locked in the worst case: a week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a payment waits for, as a stable code and as one sentence."""

    reason: str
    detail: str
    needs_operator: bool = False
    impatient: bool = False
    """Whether an operator is needed if it lasts."""

    @property
    def is_stalled(self) -> bool:
        """Whether the payment is not going on: its node does not have it, or does not say so."""
        return self.reason not in UNDER_WAY
