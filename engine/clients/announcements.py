"""Announcements over Redis that a payment has ended, some 15 ms before Temporal reports it.

An announcement is only a hint: a process that hears it reads the answer in Postgres, which was written before. An
announcement may be lost with Redis, a connection or a process, so nobody waits for one alone.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from engine.domain.ids import PaymentId

Announcement: TypeAlias = asyncio.Future[None]

_CHANNEL = "millrace:ended"
_LIMIT_S = 3
"""The time-out of one try. Nobody waits for it, and a later announcement is of no use."""
_AGAIN_S = 1


class Announcer:
    """Announces that payments have ended. Never raises, and nobody waits for it."""

    def __init__(self, url: str) -> None:
        # One repeat: the pool may still hold connections to a Redis that has been restarted since.
        once_more = Retry(NoBackoff(), retries=1)
        self._redis = redis.from_url(url, socket_timeout=_LIMIT_S, socket_connect_timeout=_LIMIT_S, retry=once_more)
        self._saying: set[asyncio.Task[None]] = set()

    def announce(self, payments: Sequence[PaymentId]) -> None:
        """Announce that these payments have ended. Postgres must know their outcomes already."""
        if payments:
            task = asyncio.create_task(self._say(" ".join(payments)))
            self._saying.add(task)
            task.add_done_callback(self._saying.discard)

    async def _say(self, payments: str) -> None:
        with suppress(RedisError, OSError):
            await self._redis.publish(_CHANNEL, payments)

    async def close(self) -> None:
        """Close the connections. Announcements that were not yet sent are dropped."""
        for task in self._saying:
            task.cancel()
        await asyncio.gather(*self._saying, return_exceptions=True)
        await self._redis.aclose()


class Listener:
    """Receives the announcements of all processes, from the call of `listen` on."""

    def __init__(self, url: str) -> None:
        self._redis = redis.from_url(url, socket_connect_timeout=_LIMIT_S)
        self._expected: dict[str, set[Announcement]] = {}
        self.hears = False
        """Whether an announcement would be received now, as far as is known."""

    def expect(self, payment_id: PaymentId) -> Announcement:
        """A future that is done when the announcement comes. Cancel it to stop waiting."""
        announcement: Announcement = asyncio.get_running_loop().create_future()
        self._expected.setdefault(payment_id, set()).add(announcement)
        announcement.add_done_callback(lambda _: self._forget(payment_id, announcement))
        return announcement

    async def listen(self) -> None:
        """Receive announcements until cancelled. While Redis is away, none are received."""
        while True:
            with suppress(RedisError, OSError):
                async with self._redis.pubsub(ignore_subscribe_messages=True) as heard:
                    await heard.subscribe(_CHANNEL)
                    self.hears = True
                    async for message in heard.listen():
                        self._hear(message["data"])
            self.hears = False
            await asyncio.sleep(_AGAIN_S)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _hear(self, payments: bytes) -> None:
        for payment_id in payments.decode().split():
            for each in self._expected.pop(payment_id, ()):
                if not each.done():
                    each.set_result(None)

    def _forget(self, payment_id: str, announcement: Announcement) -> None:
        waiting = self._expected.get(payment_id)
        if waiting is not None:
            waiting.discard(announcement)
            if not waiting:
                del self._expected[payment_id]
