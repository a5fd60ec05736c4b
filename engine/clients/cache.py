"""Redis as a cache and nothing else: losing it, or all that is in it, loses no money and no history.

It holds the request counter behind the rate limit, quotes of the last minute, and the turns to probe. While Redis is
away, the rate limit is off, because refusing payments for want of a counter would do more harm. Then nothing is
remembered, and no turn can be taken. A Redis that hangs would cost each request a second. So for a second after it has
failed to count, nobody asks it, and then one request does.
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
"""One command, so that a process that dies never leaves a counter without an expiry."""


class Cache:
    """One connection pool. Calls never raise while Redis is away."""

    def __init__(self, url: str) -> None:
        # One repeat: the pool may still hold connections to a Redis that has been restarted since.
        once_more = Retry(NoBackoff(), retries=1)
        self._redis = redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=once_more)
        self._count = self._redis.register_script(_COUNT)
        self._is_away, self._ask_after = False, 0.0
        """Whether Redis failed to count when it was last asked, and when it may be asked again."""

    async def count_requests(self, callers: Sequence[str]) -> list[tuple[int, int]]:
        """Count one request of each caller in the current minute.

        Returns (requests so far, seconds to the end of the minute) in the callers' order, or (0, 0) when Redis does not
        answer. A caller who is named twice is counted twice.
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
        """The remembered value; None also when Redis does not answer."""
        try:
            found = await self._redis.get(key)
        except (RedisError, OSError):
            return None
        return found.decode() if isinstance(found, bytes) else found

    async def remember(self, key: str, value: str, life_s: int) -> str:
        """Remember the value for `life_s` seconds unless the key has one. Returns what is remembered from now on.

        Returns the value itself when Redis does not answer.
        """
        try:
            if await self._redis.set(key, value, nx=True, ex=life_s):
                return value
        except (RedisError, OSError):
            return value
        return await self.find(key) or value

    async def take(self, turn: str, holder: str, life_s: int) -> bool:
        """Take the turn for at most `life_s` seconds if it is free. False when it is taken, and when Redis is away.

        `find` returns the holder.
        """
        try:
            return bool(await self._redis.set(turn, holder, nx=True, ex=life_s))
        except (RedisError, OSError):
            return False

    async def put(self, turn: str, life_s: int) -> None:
        """Let nobody take the turn for `life_s` seconds."""
        with suppress(RedisError, OSError):
            await self._redis.set(turn, b"", ex=life_s)

    async def drop(self, turn: str) -> None:
        """Free the turn."""
        with suppress(RedisError, OSError):
            await self._redis.delete(turn)

    async def ping(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(await self._redis.ping())
        except (RedisError, OSError):
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
