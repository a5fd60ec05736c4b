"""A word from process to process that a payment has ended, over Redis: sooner by some 15 ms than Temporal tells it.

A word is a hint and nothing else: whoever hears it reads the answer in Postgres, where it was written before the word
was said. Words get lost, with Redis, with a connection, with a process; so nobody waits for one alone.
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

Word: TypeAlias = asyncio.Future[None]

_CHANNEL = "millrace:ended"
_LIMIT_S = 3
"""Of one try: nobody waits for it, and what took so long is news no more."""
_AGAIN_S = 1


class Announcer:
    """Says that payments have ended. Never raises, and nobody waits for it."""

    def __init__(self, url: str) -> None:
        # One repeat: the pool may still hold connections to a Redis that has been restarted since.
        once_more = Retry(NoBackoff(), retries=1)
        self._redis = redis.from_url(url, socket_timeout=_LIMIT_S, socket_connect_timeout=_LIMIT_S, retry=once_more)
        self._saying: set[asyncio.Task[None]] = set()

    def announce(self, payments: Sequence[PaymentId]) -> None:
        """These have ended, and Postgres knows how."""
        if payments:
            task = asyncio.create_task(self._say(" ".join(payments)))
            self._saying.add(task)
            task.add_done_callback(self._saying.discard)

    async def _say(self, word: str) -> None:
        with suppress(RedisError, OSError):
            await self._redis.publish(_CHANNEL, word)

    async def close(self) -> None:
        """Let go of the connections, with what is not said yet."""
        for task in self._saying:
            task.cancel()
        await asyncio.gather(*self._saying, return_exceptions=True)
        await self._redis.aclose()


class Listener:
    """Hears what all processes say, from `listen` on."""

    def __init__(self, url: str) -> None:
        self._redis = redis.from_url(url, socket_connect_timeout=_LIMIT_S)
        self._expected: dict[str, set[Word]] = {}
        self.hears = False
        """Whether a word would be heard now, as far as is known."""

    def expect(self, payment_id: PaymentId) -> Word:
        """Done when the word comes; cancel it to wait no longer."""
        word: Word = asyncio.get_running_loop().create_future()
        self._expected.setdefault(payment_id, set()).add(word)
        word.add_done_callback(lambda _: self._forget(payment_id, word))
        return word

    async def listen(self) -> None:
        """Until cancelled; while Redis is away nothing is heard."""
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
        """Let go of the connections."""
        await self._redis.aclose()

    def _hear(self, word: bytes) -> None:
        for payment_id in word.decode().split():
            for each in self._expected.pop(payment_id, ()):
                if not each.done():
                    each.set_result(None)

    def _forget(self, payment_id: str, word: Word) -> None:
        waiting = self._expected.get(payment_id)
        if waiting is not None:
            waiting.discard(word)
            if not waiting:
                del self._expected[payment_id]
