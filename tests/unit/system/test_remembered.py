"""An answer that holds for a while is made once for all who ask."""

import asyncio

import pytest

from api.service.remembered import Remembered

pytestmark = pytest.mark.unit


class Making:
    """Counts, waits until it may go on, and fails when told."""

    def __init__(self) -> None:
        self.made, self.fails = 0, False
        self.may = asyncio.Event()
        self.may.set()

    async def __call__(self) -> int:
        self.made += 1
        await self.may.wait()
        if self.fails:
            raise ValueError("not now")
        return self.made


async def test_an_answer_is_made_once_while_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("api.service.remembered.time.monotonic", lambda: now)
    make = Making()
    answer = Remembered(make, life_s=1)
    assert await asyncio.gather(*(answer.get() for _ in range(10))) == [1] * 10
    now += 0.99
    assert await answer.get() == 1
    now += 0.01
    assert await asyncio.gather(*(answer.get() for _ in range(10))) == [2] * 10


async def test_a_failure_is_told_to_all_who_wait_and_the_answer_made_again() -> None:
    make = Making()
    make.fails = True
    answer = Remembered(make)
    failed = await asyncio.gather(*(answer.get() for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in failed] == [ValueError] * 3
    assert make.made == 1
    make.fails = False
    assert await answer.get() == 2


async def test_a_caller_who_leaves_stops_it_for_nobody() -> None:
    make = Making()
    make.may.clear()
    answer = Remembered(make)
    first, second = asyncio.create_task(answer.get()), asyncio.create_task(answer.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    make.may.set()
    assert await second == 1
