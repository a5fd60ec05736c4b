"""What a payment in flight waits for, and when its attempt is proven to have been lost.

A lost attempt is in flight in the node's records for ever, and in no channel.

LND writes an attempt down before it hands it to a channel. Killed between the two, it keeps the attempt as "in flight"
through every restart, and no new block ends it (seen). Nothing of it can be paid any more when the chain is past the
time lock of all attempts, because no channel takes an HTLC that has expired, and when it was in no channel then.
"""

from collections.abc import Collection
from dataclasses import dataclass

IN_FLIGHT = "in_flight"
"""The reason to wait of a payment that is on its way: it is the payee's turn."""
LOST_ATTEMPT = "lost_attempt"
"""The reason to wait, and then the failure code, of a payment whose attempt the node has lost."""
NOT_TRIED = "not_tried"
"""The reason to wait of a payment that its node has taken, and stopped to work on before the first attempt."""
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


def release_height(time_lock: int) -> int:
    """The first block at which the proof can be complete."""
    return time_lock + MARGIN_BLOCKS


def is_proven_lost(heights: Collection[int], time_lock: int) -> bool:
    """Whether looks at these heights, each of which found it in no channel, are enough."""
    past = {height for height in heights if height > time_lock}
    return len(past) >= SIGHTINGS and max(past) >= release_height(time_lock)
