"""What most requests ask, and ask together with all that come at the same time (`api/together.py`)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from api.together import Together
from engine.clients.cache import Cache
from engine.ledger.accounts import ApiKey, find_api_keys_by_token
from engine.ledger.database import Connection, Pool, translated

Q = TypeVar("Q")
A = TypeVar("A")


class Lookups:
    """One per process. Each raises Unavailable while Postgres is away; what is counted in Redis never raises."""

    def __init__(self, pool: Pool, cache: Cache) -> None:
        self.api_keys: Together[str, ApiKey | None] = Together(_reading(pool, find_api_keys_by_token))
        """By the text of the key, as it is now."""
        self.counts: Together[str, tuple[int, int]] = Together(cache.count_requests)
        """By caller: counts this request."""


def _reading(
    pool: Pool, find: Callable[[Connection, Sequence[Q]], Awaitable[Sequence[A]]]
) -> Callable[[Sequence[Q]], Awaitable[Sequence[A]]]:
    async def ask(questions: Sequence[Q]) -> Sequence[A]:
        with translated():
            async with pool.acquire(timeout=10) as connection:
                return await find(connection, questions)

    return ask
