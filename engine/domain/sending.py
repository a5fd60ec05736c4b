"""What a payment in flight waits for, and when its attempt is proven to have been lost.

A lost attempt is in flight in the node's records for ever, and in no channel.

LND writes an attempt down before it hands it to a channel. Killed between the two, it keeps the attempt as "in flight"
through every restart, and no new block ends it (seen). Nothing of it can be paid any more when the chain is past the
time lock of all attempts, because no channel takes an HTLC that has expired, and when it was in no channel then.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

IN_FLIGHT = "in_flight"
"""The reason to wait of a payment that is on its way: it is the payee's turn."""
LOST_ATTEMPT = "lost_attempt"
"""The reason to wait, and then the failure code, of a payment whose attempt the node has lost."""
NOT_TRIED = "not_tried"
"""The reason to wait of a payment that its node has taken, and stopped to work on before the first attempt."""
OVERDUE = "overdue"
"""The reason to wait of a payment past its time lock of which the node has no final word."""
IN_DOUBT = "channels_in_doubt"
"""The reason to wait of what is in no channel of a node that may have an old channel database: it proves nothing."""
UNDER_WAY = frozenset({IN_FLIGHT, LOST_ATTEMPT, NOT_TRIED, OVERDUE, IN_DOUBT})
"""Reasons to wait of a payment that its node has. With any other the payment is not going on."""
REFUSED_BY_NODE = "invoice_refused_by_node"
"""The code of what our node does not take: an invoice that it cannot read, or a payment that it never began."""
REFUSALS = 3
"""So many refusals in the same words, each followed by a look that found no payment, end a payment that never began."""
REFUSAL_REST_S = 10
"""So long after the last of them it is looked at once more, before it ends. What a stopped worker may still be sending
has arrived by then: another one takes a payment up after five or six seconds."""
TRIED_AFTER_S = 75
"""So long after it took a payment the node makes no first attempt any more: it is given a minute for all of them."""
CLTV_LIMIT = 1008
"""Blocks a payment, or a probe, may be locked for in the worst case: a week."""
SIGHTINGS = 3
"""So many looks at different heights past the time lock must have found it in no channel."""
MARGIN_BLOCKS = 12
"""So far past it must be the last of them: by then the node would have begun to close a channel that still had it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a payment waits for, in a stable word and in one sentence."""

    reason: str
    detail: str
    needs_operator: bool = False
    impatient: bool = False
    """Whether an operator is needed when it lasts."""

    @property
    def is_stalled(self) -> bool:
        """Whether the payment is not going on: its node does not have it, or does not say so."""
        return self.reason not in UNDER_WAY


_QUICK, _LONGEST_PAUSE = timedelta(seconds=30), timedelta(minutes=5)


def pause_after(stalled_for: timedelta) -> timedelta | None:
    """How long to wait before the next try of a payment that has not gone on for so long; None while it is early.

    A tenth of it: 2,000 payments that wait for one node ask it seven times a second in the end, and not 700 times.
    """
    return None if stalled_for < _QUICK else min(stalled_for // 10, _LONGEST_PAUSE)


def release_height(time_lock: int) -> int:
    """The first block at which the proof can be complete."""
    return time_lock + MARGIN_BLOCKS


def is_proven_lost(heights: Collection[int], time_lock: int) -> bool:
    """Whether looks at these heights, each of which found it in no channel, are enough."""
    past = {height for height in heights if height > time_lock}
    return len(past) >= SIGHTINGS and max(past) >= release_height(time_lock)
