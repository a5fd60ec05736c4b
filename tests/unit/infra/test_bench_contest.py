"""Turns and rounds: what breaks says where, and what was measured before it is kept."""

import pytest

from infra.bench.contest import Begin, Contest, Contestant, Pace, Work, Wrong, find_wrong, measured, play
from infra.bench.figures import Line
from infra.bench.http import Broken
from infra.bench.machine import Meter

pytestmark = pytest.mark.unit


class Player(Contestant):
    """Does ten operations a turn; its balances are wrong from one of its turns on."""

    def __init__(self, name: str, *, wrong_from: int | None = None, breaks: bool = False) -> None:
        self.name, self._wrong_from, self._breaks = name, wrong_from, breaks
        self.turns = self.rests = 0

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        self.turns += 1
        if self._breaks:
            raise ValueError(f"{clients} clients in {seconds} s")
        begin()
        return Work(10, 1.0)

    async def rest(self) -> None:
        self.rests += 1

    async def check(self) -> None:
        if self._wrong_from is not None and self.turns >= self._wrong_from:
            raise Wrong("a balance is wrong")


async def played(*players: Player) -> tuple[list[Line], list[str], Exception | None]:
    """The lines, what was said, and what ended it."""
    lines: list[Line] = []
    said: list[str] = []
    try:
        await play(Contest("c", "per s", players), Pace(2, 1.0, (1, 8)), Meter(dict), said.append, lines)
    except Exception as error:  # noqa: BLE001 - each test looks at what it is
        return lines, said, error
    return lines, said, None


async def test_every_contestant_has_a_turn_in_each_round_and_the_order_turns_around() -> None:
    lines, said, error = await played(Player("a"), Player("b"))
    assert error is None
    assert [(line.contestant, line.clients, len(line.turns)) for line in lines] == [
        ("a", 1, 2),
        ("b", 1, 2),
        ("a", 8, 2),
        ("b", 8, 2),
    ]
    assert [words[-1] for words in said] == ["a", "b", "b", "a"] * 2


async def test_a_check_that_does_not_hold_names_its_turn_and_the_turns_before_are_kept() -> None:
    bad = Player("b", wrong_from=2)
    lines, _, error = await played(Player("a"), bad)
    assert isinstance(error, Wrong)
    assert str(error) == "c: 1 clients, round 2/2, b: a balance is wrong"
    assert [(line.contestant, len(line.turns)) for line in lines] == [("a", 1), ("b", 1)]
    assert bad.rests == 2


async def test_another_error_in_a_turn_is_raised_as_it_is_after_its_rest() -> None:
    broken = Player("a", breaks=True)
    _, _, error = await played(broken)
    assert isinstance(error, ValueError)
    assert error.__notes__ == ["while measuring c: 1 clients, round 1/2, a"]
    assert broken.rests == 1


def test_the_check_that_failed_is_found_among_what_clients_raised_together() -> None:
    wrong, broken = Wrong("w"), Broken("b")
    assert find_wrong(ExceptionGroup("clients", [ValueError("v"), ExceptionGroup("more", [wrong])])) is wrong
    assert find_wrong(broken) is broken
    assert find_wrong(ValueError("v")) is None


def test_a_turn_tells_its_median_and_what_99_of_100_stayed_within() -> None:
    assert measured([5.0, 1.0, 9.0], 2.0) == Work(3, 2.0, 5.0, 9.0)
    assert measured([], 2.0) == Work(0, 2.0)
