"""Questions that come at the same time are asked together: many requests, one statement.

    nothing under way    asked at the end of this turn of the event loop, with all that came in the same turn
    meanwhile            wait for the answer to those under way, then go together with all that wait

A lone question waits for nobody. Under load, questions share the cost of a statement, as payments share the cost of a
workflow in a lane (`api/service/payment/lane.py`). Nothing is cached: a statement begins after all its questions were
asked. A slow question delays no other. When a statement fails, its questions are asked again one by one, so that one
bad question fails no other. Only Unavailable and OutcomeUnknown are raised for all of them at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from engine.domain.errors import OutcomeUnknown, Unavailable

_PATIENCE_S = 0.1
_MOST = 200

Q = TypeVar("Q")
A = TypeVar("A")


class Together(Generic[Q, A]):
    """One kind of question. `ask` gives an answer for each question, in their order."""

    def __init__(self, ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._turn = 0
        self._is_held = False
        self._under_way: set[asyncio.Task[None]] = set()

    async def get(self, question: Q) -> A:
        """The answer. Raises what asking raised."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if not self._is_held:
            self._is_held = True
            self._begin()
        return await answer

    def _begin(self) -> None:
        task = asyncio.create_task(self._drive())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _drive(self) -> None:
        taken, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        self._turn += 1
        turn = self._turn
        patience = asyncio.get_running_loop().call_later(_PATIENCE_S, self._let_go, turn)
        try:
            await self._answer([each for each in taken if not each[1].done()])
        finally:
            patience.cancel()
            self._let_go(turn)

    def _let_go(self, turn: int) -> None:
        """Let the next questions go, unless they have gone already."""
        if turn != self._turn:
            return
        self._turn += 1
        if self._waiting:
            self._begin()
        else:
            self._is_held = False

    async def _answer(self, taken: Sequence[tuple[Q, "asyncio.Future[A]"]]) -> None:
        try:
            found = await self._ask([question for question, _answer in taken]) if taken else []
            answers = list(zip(taken, found, strict=True))
        except Exception as error:  # noqa: BLE001 - whoever asked raises it
            if len(taken) == 1 or isinstance(error, Unavailable | OutcomeUnknown):
                _fail(taken, error)
            else:
                await asyncio.gather(*(self._answer([each]) for each in taken))
            return
        for (_question, answer), value in answers:
            if not answer.done():
                answer.set_result(value)


def _fail(taken: Sequence[tuple[Q, "asyncio.Future[A]"]], error: Exception) -> None:
    for _question, answer in taken:
        if not answer.done():
            answer.set_exception(error)
