"""Counting by address: bounded memory, a fair pace, refusals that cost the asker more and more time."""

import pytest

from api.http import stranger_limit
from api.http.stranger_limit import Refusal, Strangers

pytestmark = pytest.mark.unit


class Clock:
    """Stands still unless told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 120.0
        monkeypatch.setattr("api.http.stranger_limit._now_s", lambda: int(self.now))
        monkeypatch.setattr("api.http.stranger_limit.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def away(_who: str) -> tuple[int, int]:
    return 0, 60


async def refusals(counted: Strangers, who: str, times: int) -> list[Refusal]:
    return [found for _ in range(times) if isinstance(found := await counted.admit(who, away), Refusal)]


async def test_a_minute_ends_the_refusal(clock: Clock) -> None:
    counted = Strangers(3, 0)
    assert len(await refusals(counted, "a", 5)) == 2
    assert len(await refusals(counted, "b", 3)) == 0
    clock.now += 59
    assert len(await refusals(counted, "a", 1)) == 1
    clock.now += 1
    assert len(await refusals(counted, "a", 3)) == 0


async def test_other_processes_count_too(clock: Clock) -> None:
    async def many(_who: str) -> tuple[int, int]:
        return 4, 60

    assert isinstance(await Strangers(3, 0).admit("a", many), Refusal)


async def test_the_first_refusals_come_at_once_and_the_last_take_a_second(clock: Clock) -> None:
    found = await refusals(Strangers(1, 0), "a", 500)
    assert [each.pause_s for each in found[:100]] == [0] * 100
    assert found[200].pause_s == pytest.approx(0.505)
    assert {each.pause_s for each in found[300:]} == {1.0}
    assert {each.retry_after_s for each in found} == {60}


async def test_a_seconds_worth_comes_at_once_and_the_rest_in_turn(clock: Clock) -> None:
    counted = Strangers(0, 10)
    waits = [await counted.admit("a", away) for _ in range(40)]
    assert waits[:11] == [0.0] * 11
    assert waits[20] == pytest.approx(1.0)
    assert [isinstance(each, Refusal) for each in waits] == [False] * 31 + [True] * 9
    clock.now += 1
    again = [await counted.admit("a", away) for _ in range(11)]
    assert [isinstance(each, Refusal) for each in again] == [False] * 10 + [True]


async def test_0_is_no_limit(clock: Clock) -> None:
    counted = Strangers(0, 0)
    assert {await counted.admit("a", away) for _ in range(10_000)} == {0.0}


async def test_memory_is_bounded_however_many_addresses_come(clock: Clock) -> None:
    counted = Strangers(1_000_000, 1_000)
    for number in range(60_000):
        await counted.admit(f"2001:db8:{number:x}::", away)
    assert len(counted) <= stranger_limit._MOST_PLACES + stranger_limit._SHARED_PLACES
    for key in range(30_000):
        counted.was_good(key)
    assert len(counted._good) == stranger_limit._MOST_KEYS
    assert not counted.is_good(0)
    assert counted.is_good(29_999)


async def test_when_the_table_is_full_a_flood_is_still_refused(clock: Clock) -> None:
    counted = Strangers(10, 0)
    for number in range(20_000):
        await counted.admit(f"early {number}", away)
    assert len(await refusals(counted, "late", 100)) == 90
    assert len(await refusals(counted, "early 5", 9)) == 0
