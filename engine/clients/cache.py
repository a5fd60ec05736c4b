"""Redis, as a cache and nothing else: losing it, or all that is in it, loses no money and no history.

What it carries today is the request counter behind the rate limit. When Redis is away the limit is off, because
turning payments away for want of a counter would be the greater harm.
"""

import time

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_WINDOW_S = 60
_COUNT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return count"""
"""One command, and no counter without an end, whoever dies between."""


class Cache:
    """One connection pool; calls never raise for a Redis that is away."""

    def __init__(self, url: str) -> None:
        # One repeat: the pool may still hold connections to a Redis that has been restarted since.
        once_more = Retry(NoBackoff(), retries=1)
        self._redis = redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=once_more)
        self._count = self._redis.register_script(_COUNT)

    async def count_request(self, caller: str) -> tuple[int, int]:
        """Count one request of this caller in the running minute: (requests so far, seconds to its end).

        (0, 0) when Redis does not answer.
        """
        now_s = int(time.time())
        key = f"rate:{caller}:{now_s // _WINDOW_S}"
        try:
            count = await self._count(keys=[key], args=[2 * _WINDOW_S])
        except (RedisError, OSError):
            return 0, 0
        return int(count), _WINDOW_S - now_s % _WINDOW_S

    async def ping(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(await self._redis.ping())
        except (RedisError, OSError):
            return False

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose()
