"""Lookups in the books and in the rate counters, coalesced with others of the same kind (`coalesce.py`).

    await resources.lookups.ask(find_api_keys_by_token, token)

A caller passes a function that answers many questions, and one question: one call answers all that come at the same
time. The statements write an array as `unnest((SELECT $1::text[]))`. Postgres then keeps one plan for arrays of all
lengths; otherwise it would plan anew for each call.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from api.service.coalesce import Together
from engine.clients.cache import Cache
from engine.ledger.database import Connection, Pool, borrowed, transaction

Q = TypeVar("Q")
A = TypeVar("A")
Find: TypeAlias = Callable[[Connection, Sequence[Q]], Awaitable[Sequence[A]]]
"""Answers all these questions, in their order."""


class Lookups:
    """One per process."""

    def __init__(self, pool: Pool, cache: Cache) -> None:
        self._pool = pool
        self._known: dict[Find[Any, Any], Together[Any, Any]] = {}
        self.count = Together(cache.count_requests).get
        """Counts one request of one caller: as `Cache.count_requests`."""

    async def ask(self, find: Find[Q, A], question: Q) -> A:
        """The answer as it stands now. Raises what `find` raises, and Unavailable while Postgres is away."""
        together: Together[Q, A] | None = self._known.get(find)
        if together is None:
            together = self._known[find] = Together(self._reading(find))
        return await together.get(question)

    async def write(self, insert: Find[Q, A], new: Q) -> A:
        """Write it, and return what that gave. Writes that come together share a transaction.

        Raises what `insert` raises for this one alone, and what `transaction` raises.
        """
        together: Together[Q, A] | None = self._known.get(insert)
        if together is None:
            together = self._known[insert] = Together(self._writing(insert))
        return await together.get(new)

    def _reading(self, find: Find[Q, A]) -> Callable[[Sequence[Q]], Awaitable[Sequence[A]]]:
        async def ask(questions: Sequence[Q]) -> Sequence[A]:
            async with borrowed(self._pool) as connection:
                return await find(connection, questions)

        return ask

    def _writing(self, insert: Find[Q, A]) -> Callable[[Sequence[Q]], Awaitable[Sequence[A]]]:
        async def write(new: Sequence[Q]) -> Sequence[A]:
            async with transaction(self._pool) as connection:
                return await insert(connection, new)

        return write
