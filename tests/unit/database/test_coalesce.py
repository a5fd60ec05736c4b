"""Who asks alone and who in company, with a made-up database."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from api.service.coalesce import Together
from engine.domain.errors import InvariantBroken, Unavailable
from tests.helpers.event_loop import turn

pytestmark = pytest.mark.unit


@dataclass
class MadeUpDatabase:
    """Answers each question with its double, when told."""

    asked: list[list[int]] = field(default_factory=list)
    answers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    poison: int | None = None
    away: bool = False

    async def ask(self, questions: Sequence[int]) -> list[int]:
        self.asked.append(list(questions))
        await self.answers.acquire()
        if self.away:
            raise Unavailable("the database is away")
        if self.poison in questions:
            raise InvariantBroken("not this one")
        return [2 * each for each in questions]

    def answer(self, times: int = 1) -> None:
        for _ in range(times):
            self.answers.release()


def all_of(together: Together[int, int], *questions: int) -> list["asyncio.Task[int]"]:
    return [asyncio.create_task(together.get(each)) for each in questions]


async def test_questions_of_one_turn_go_together_and_later_ones_go_next() -> None:
    database = MadeUpDatabase()
    together = Together(database.ask)
    first = all_of(together, 1, 2)
    await turn()
    second = all_of(together, 3)
    await turn()
    second += all_of(together, 4, 4)
    await turn()
    assert database.asked == [[1, 2]]
    database.answer(2)
    assert await asyncio.gather(*first, *second) == [2, 4, 6, 8, 8]
    assert database.asked == [[1, 2], [3, 4, 4]]


async def test_nothing_is_remembered() -> None:
    database = MadeUpDatabase()
    together = Together(database.ask)
    database.answer(3)
    assert [await together.get(1), await together.get(1), await together.get(2)] == [2, 2, 4]
    assert database.asked == [[1], [1], [2]]


async def test_one_that_takes_long_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.service.coalesce._PATIENCE_S", 0.01)
    database = MadeUpDatabase()
    together = Together(database.ask)
    riders = all_of(together, 1)
    await turn()
    riders += all_of(together, 2, 3)
    async with asyncio.timeout(5):
        while len(database.asked) < 2:
            await asyncio.sleep(0.005)
    database.answer(3)
    assert await asyncio.gather(*riders, *all_of(together, 4)) == [2, 4, 6, 8]
    assert database.asked == [[1], [2, 3], [4]]


async def test_so_many_go_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.service.coalesce._MOST", 2)
    database = MadeUpDatabase()
    together = Together(database.ask)
    database.answer(3)
    assert await asyncio.gather(*all_of(together, 1, 2, 3, 4, 5)) == [2, 4, 6, 8, 10]
    assert database.asked == [[1, 2], [3, 4], [5]]


async def test_one_that_cannot_be_answered_disturbs_none_of_the_others() -> None:
    database = MadeUpDatabase(poison=2)
    together = Together(database.ask)
    riders = all_of(together, 1, 2, 3)
    database.answer(4)
    found = await asyncio.gather(*riders, return_exceptions=True)
    assert (found[0], type(found[1]), found[2]) == (2, InvariantBroken, 6)


async def test_while_the_database_is_away_all_are_told_and_the_next_is_tried() -> None:
    database = MadeUpDatabase(away=True)
    together = Together(database.ask)
    riders = all_of(together, 1, 2)
    database.answer()
    told = await asyncio.gather(*riders, return_exceptions=True)
    assert [type(each) for each in told] == [Unavailable] * 2
    assert database.asked == [[1, 2]]
    database.away = False
    database.answer()
    assert await together.get(3) == 6


async def test_a_caller_who_leaves_is_not_asked_for_and_disturbs_nobody() -> None:
    database = MadeUpDatabase()
    together = Together(database.ask)
    first = all_of(together, 1, 2)
    await turn()
    leaving, staying = all_of(together, 3, 4)
    await turn()
    first[0].cancel()
    leaving.cancel()
    await turn()
    database.answer(2)
    assert (await first[1], await staying) == (4, 8)
    assert database.asked == [[1, 2], [4]]
