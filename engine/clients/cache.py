"""Redis, as a cache and nothing else: losing it, or all that is in it, loses no money and no history.

It carries the request counter behind the rate limit, quotes of the last minute, and whose turn it is to be probed. When
Redis is away the limit is off, because turning payments away for want of a counter would be the greater harm; nothing
is remembered, and every turn is taken. A Redis that hangs would cost each request a second, so for a second after it
has not counted it is asked by nobody, and then by one.
"""

import time
from collections.abc import Sequence
from contextlib import suppress

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_WINDOW_S = 60
_AWAY_S = 1
_COUNT = """
local counts = {}
for place, key in ipairs(KEYS) do
  counts[place] = redis.call('INCR', key)
  if counts[place] == 1 then redis.call('EXPIRE', key, ARGV[1]) end
end
return counts"""
"""One command: no death of a process leaves a counter without an end."""


class Cache:
    """One connection pool; calls never raise for a Redis that is away."""

    def __init__(self, url: str) -> None:
        # One repeat: the pool may still hold connections to a Redis that has been restarted since.
        once_more = Retry(NoBackoff(), retries=1)
        self._redis = redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=once_more)
        self._count = self._redis.register_script(_COUNT)
        self._is_away, self._ask_after = False, 0.0
        """Whether it did not count when it was last asked, and when it may be asked again."""

    async def count_requests(self, callers: Sequence[str]) -> list[tuple[int, int]]:
        """Count one request of each in the running minute: (requests so far, seconds to its end), in their order.

        One that stands here twice is counted twice. (0, 0) when Redis does not answer.
        """
        now_s, now = int(time.time()), time.monotonic()
        if self._is_away and now < self._ask_after:
            return [(0, 0)] * len(callers)
        self._ask_after = now + _AWAY_S
        keys = [f"rate:{caller}:{now_s // _WINDOW_S}" for caller in callers]
        try:
            counts = await self._count(keys=keys, args=[2 * _WINDOW_S])
        except (RedisError, OSError):
            self._is_away, self._ask_after = True, time.monotonic() + _AWAY_S
            return [(0, 0)] * len(keys)
        self._is_away = False
        return [(int(count), _WINDOW_S - now_s % _WINDOW_S) for count in counts]

    async def find(self, key: str) -> str | None:
        """What is remembered; None also when Redis does not answer."""
        try:
            found = await self._redis.get(key)
        except (RedisError, OSError):
            return None
        return found.decode() if isinstance(found, bytes) else found

    async def remember(self, key: str, value: str, life_s: int) -> str:
        """Keep this for so long, unless something is kept already: what is kept from now on, or else the value."""
        try:
            if await self._redis.set(key, value, nx=True, ex=life_s):
                return value
        except (RedisError, OSError):
            return value
        return await self.find(key) or value

    async def take(self, turn: str, holder: str, life_s: int) -> bool:
        """Whether the turn was free, and is the holder's now for so long at the most; False when Redis is away.

        `find` tells who has it.
        """
        try:
            return bool(await self._redis.set(turn, holder, nx=True, ex=life_s))
        except (RedisError, OSError):
            return False

    async def put(self, turn: str, life_s: int) -> None:
        """Let nobody take the turn for this time."""
        with suppress(RedisError, OSError):
            await self._redis.set(turn, b"", ex=life_s)

    async def drop(self, turn: str) -> None:
        """Free for the next."""
        with suppress(RedisError, OSError):
            await self._redis.delete(turn)

    async def ping(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(await self._redis.ping())
        except (RedisError, OSError):
            return False

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose()
