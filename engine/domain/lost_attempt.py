"""When an attempt is proven lost.

A lost attempt is in flight in the node's records for ever, and in no channel. LND writes an attempt down before it
hands it to a channel. When it is killed between the two, it keeps the attempt as "in flight" through every restart, and
no new block ends it (seen).

Nothing of the attempt can be paid any more when two things hold. The chain is past the time lock of all attempts: no
channel takes an HTLC that has expired. And the attempt was in no channel then.
"""

from collections.abc import Collection

SIGHTINGS = 3
"""Looks at different heights past the time lock that must have found it in no channel."""
MARGIN_BLOCKS = 12
"""Blocks from the time lock to the last of them. By then the node would have begun to close a channel that had it."""


def release_height(time_lock: int) -> int:
    """The first block at which the proof can be complete."""
    return time_lock + MARGIN_BLOCKS


def is_proven_lost(heights: Collection[int], time_lock: int) -> bool:
    """Whether looks at these heights, each of which found it in no channel, are enough."""
    past = {height for height in heights if height > time_lock}
    return len(past) >= SIGHTINGS and max(past) >= release_height(time_lock)
