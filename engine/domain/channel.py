"""Whether a node has an old channel database. If it has, a payment that it does not show proves nothing.

A channel's update number never falls: it counts the commitments that were agreed on. So the highest number seen of each
channel is kept, and each look is compared with it:

    open, at a lower number            its data are old
    open, and was closed before        the same
    gone, and neither closing nor closed  the same
    closing with its data lost         the node says so itself
    closed by its peer                 in doubt: that is how the peer of a node with old data ends a channel

A doubt ends when the channel is open at its old number or a higher one: the right data are back. A closed channel stays
in doubt for the payments that were made before.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownChannel:
    """A channel as it was last seen."""

    updates: int
    """The highest update number that was seen of it."""
    is_closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenChannels:
    """What a node says of all its channels now; each by its channel point."""

    updates: Mapping[str, int] = field(default_factory=dict[str, int])
    """The update number of each open channel."""
    closing: AbstractSet[str] = frozenset()
    data_lost: AbstractSet[str] = frozenset()
    """The closing channels of which the node itself says that it has lost data."""


def gone(known: Mapping[str, KnownChannel], seen: SeenChannels) -> set[str]:
    """Channels, not known as closed, that are neither open nor closing now: ask whether they were closed."""
    left = {point for point, channel in known.items() if not channel.is_closed}
    return left - seen.updates.keys() - seen.closing


def find_doubts(
    known: Mapping[str, KnownChannel], seen: SeenChannels, closed_by_peer: Mapping[str, bool]
) -> dict[str, str]:
    """The channels in doubt, with the reasons. `closed_by_peer` says of each closed one whether its peer closed it."""
    doubts: dict[str, str] = {}
    for point, channel in known.items():
        number = seen.updates.get(point)
        if number is not None and channel.is_closed:
            doubts[point] = f"channel {point} was closed, and is open again"
        elif number is not None and number < channel.updates:
            doubts[point] = f"channel {point} is at update {number}, and was at {channel.updates} before"
        elif point in seen.data_lost:
            doubts[point] = f"the node has lost data of channel {point}"
    for point in gone(known, seen):
        if point not in closed_by_peer:
            doubts[point] = f"channel {point} is gone, and was not closed"
        elif closed_by_peer[point]:
            doubts[point] = f"channel {point} was closed by its peer, as it is when a node's data are old"
    return doubts
