"""Requests without a valid key are counted by client address, on every path: open ones, wrong paths, wrong keys.

    in a minute   public_rate_limit_per_minute, over all processes (Redis)   then refused: 429 until it is over
    in a second   public_rate_limit_per_second, in this process              then made to wait, for 2 s at the most

The first bounds what one address can use up, the second how much of the process it can have at once, so that payments
stay fast meanwhile. A client that keeps asking while it is refused waits for its refusals, too, up to a second each. So
a client that repeats at once, over any number of connections, costs next to nothing.

Requests with an unknown key, which needs a lookup in Postgres, are counted apart: a client with a valid key is not
refused because it shares an address with a flood. A key that was valid a moment ago passes, whatever its address does.
From a refused address only so many unknown keys a second are looked up. While Postgres is away, a valid key cannot be
told from another: no key is forgotten, and no address is refused for the keys that it sends meanwhile.

While Redis is away each process counts for itself, in a table of bounded size that begins anew with each minute. When
the table is full, addresses share places.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

WINDOW_S = 60
_LONGEST_S = 2.0
_MOST_PLACES, _SHARED_PLACES = 20_000, 4_096
_MOST_KEYS = 10_000
_TRIES_PER_S = 10
"""Unknown keys of refused addresses that are looked up all the same, in this process."""
_PATIENT, _REFUSALS_PER_S = 100, 200
"""The first refusals of an address come at once; the next ones come later and later, up to a second."""

Count = Callable[[str], Awaitable[tuple[int, int]]]
"""Counts one request over all processes: (requests in this minute, seconds to its end); (0, _) when it cannot count."""


@dataclass(slots=True)
class _Place:
    """One address, in this minute and process."""

    count: int = 0
    refused: int = 0
    is_shut: bool = False
    next_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The bound, when the client may try again, and how long its answer is delayed."""

    bound: str
    retry_after_s: int
    pause_s: float


class Strangers:
    """The counts of one process."""

    def __init__(self, per_minute: int, per_second: int) -> None:
        """0 means no bound."""
        self._per_minute, self._per_second = per_minute, per_second
        self._places: dict[str, _Place] = {}
        self._window = 0
        self._good: OrderedDict[int, None] = OrderedDict()
        self._tries = _Place()

    def __len__(self) -> int:
        return len(self._places)

    # Requests

    async def admit(self, who: str, count: Count) -> float | Refusal:
        """Count one request. The seconds that it must wait for its turn, or the refusal."""
        place = self._place(who)
        if self._per_minute:
            place.count += 1
            if not place.is_shut and place.count <= self._per_minute:
                shared, _ = await count(who)
                place.count = max(place.count, shared)
            place.is_shut = place.is_shut or place.count > self._per_minute
            if place.is_shut:
                return self._refuse(place, "minute", _left_s())
        wait_s = self.turn(who)
        return self._refuse(place, "second", 1) if wait_s is None else wait_s

    def turn(self, who: str) -> float | None:
        """Seconds until the turn of one more request (0 for the first ones of a second); None when too many wait."""
        return _turn(self._place(who), self._per_second) if self._per_second else 0.0

    def pace(self, who: str) -> float:
        """Seconds to hold an answer that does not tell whether the key is valid."""
        wait_s = self.turn(who)
        return _LONGEST_S if wait_s is None else wait_s

    def refuse(self, who: str) -> Refusal | None:
        """The refusal of this address, if it is refused in this minute."""
        place = self._place(who)
        if not place.is_shut:
            return None
        return self._refuse(place, "minute", _left_s())

    # Keys

    def is_good(self, key: int) -> bool:
        """Whether this key was valid a moment ago."""
        if key not in self._good:
            return False
        self._good.move_to_end(key)
        return True

    def was_good(self, key: int) -> None:
        """Remember it; the least recently used key is forgotten."""
        self._good[key] = None
        self._good.move_to_end(key)
        if len(self._good) > _MOST_KEYS:
            self._good.popitem(last=False)

    def forget(self, key: int) -> None:
        """Forget a key that is not valid, or that was sent where none is needed."""
        self._good.pop(key, None)

    def may_try(self) -> bool:
        """Whether one more unknown key from a refused address may be looked up now."""
        return _turn(self._tries, _TRIES_PER_S, longest_s=0) is not None

    def _refuse(self, place: _Place, bound: str, retry_after_s: int) -> Refusal:
        place.refused += 1
        return Refusal(bound, retry_after_s, min(1.0, max(0, place.refused - _PATIENT) / _REFUSALS_PER_S))

    def _place(self, who: str) -> _Place:
        window = _now_s() // WINDOW_S
        if window != self._window:
            self._window, self._places = window, {}
        place = self._places.get(who)
        if place is None:
            if len(self._places) >= _MOST_PLACES:
                who = f"shared:{hash(who) % _SHARED_PLACES}"
            place = self._places.setdefault(who, _Place())
        return place


def _now_s() -> int:
    return int(time.time())


def _left_s() -> int:
    """Seconds left of this minute."""
    return WINDOW_S - _now_s() % WINDOW_S


def _turn(place: _Place, per_second: int, longest_s: float = _LONGEST_S) -> float | None:
    """The generic cell rate algorithm (ITU-T I.371): so many a second, of which a second's worth may come at once."""
    now = time.monotonic()
    wait_s = max(0.0, place.next_at - now - 1)
    if wait_s > longest_s:
        return None
    place.next_at = max(place.next_at, now) + 1 / per_second
    return wait_s
