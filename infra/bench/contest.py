"""How contestants are measured: turns of a few seconds, in rounds, one after the other, each followed by its check.

The order is reversed from round to round, so that nobody always comes after the same neighbour. A check that fails ends
the bench: figures of an engine whose balances are wrong are worth nothing.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from infra.bench.figures import CLIENT, Goal, Line, Turn, percentile
from infra.bench.http import Broken
from infra.bench.machine import Meter

Begin = Callable[[], None]
NOT_BUILT = "not built"


class Wrong(Exception):
    """A check did not hold: what was measured is not right."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and how often."""

    rounds: int
    turn_s: float
    clients: Sequence[int]


@dataclass(frozen=True, slots=True)
class Work:
    """What a contestant reports of its turn."""

    done: int
    elapsed_s: float
    latency_ms: float | None = None
    p99_ms: float | None = None


class Contestant(ABC):
    """Something that does operations and can prove afterwards that it did them right."""

    name: str
    components: Sequence[str] = ()
    """Whose CPU its operations cost; the client is always read."""

    @abstractmethod
    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:
        """Do operations with this many clients for this long. Raises Wrong when one fails.

        What it does before `begin()` is warming up: it costs and counts nothing. Without a call all of it counts.
        """

    async def rest(self) -> None:  # noqa: B027 - most have nothing to put away
        """Put away what only the turn needed; it costs and counts nothing. Called after a turn that broke, too."""

    @abstractmethod
    async def check(self) -> None:
        """Raises Wrong unless everything done so far stands exactly where it should."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Contestants that are compared with each other. For one that is missing there is its name, and the reason."""

    title: str
    unit: str
    contestants: Sequence[Contestant | tuple[str, str]]
    goals: Sequence[Goal] = ()


async def play(contest: Contest, pace: Pace, meter: Meter, say: Callable[[str], None], lines: list[Line]) -> None:
    """All rounds for each number of clients, noted in `lines` turn by turn. Raises Wrong, naming the turn."""
    present = [one for one in contest.contestants if isinstance(one, Contestant)]
    absent = [one for one in contest.contestants if not isinstance(one, Contestant)]
    try:
        await _play_rounds(contest.title, present, pace, meter, say, lines)
    finally:
        lines += [Line(contest.title, name, pace.clients[0], missing=reason) for name, reason in absent]


async def _play_rounds(
    title: str,
    present: Sequence[Contestant],
    pace: Pace,
    meter: Meter,
    say: Callable[[str], None],
    lines: list[Line],
) -> None:
    for clients in pace.clients:
        by_name = {one.name: Line(title, one.name, clients) for one in present}
        lines += by_name.values()
        for number in range(pace.rounds):
            order = present if number % 2 == 0 else present[::-1]
            for one in order:
                where = f"{title}: {clients} clients, round {number + 1}/{pace.rounds}, {one.name}"
                say(where)
                with naming(where):
                    turn = await take_turn(one, clients, pace.turn_s, meter)
                    await one.check()
                by_name[one.name].turns.append(turn)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """An error inside the block names the place. Raises Wrong for a check, and else the error itself, with a note."""
    try:
        yield
    except Exception as error:
        wrong = find_wrong(error)
        if wrong is not None:
            raise Wrong(f"{where}: {wrong}") from error
        error.add_note(f"while measuring {where}")
        raise


def find_wrong(error: BaseException) -> Wrong | Broken | None:
    """The check that failed, from among those that clients raised together."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := find_wrong(each)) is not None), None)
    return error if isinstance(error, Wrong | Broken) else None


async def take_turn(contestant: Contestant, clients: int, seconds: float, meter: Meter) -> Turn:
    """One turn, with what it cost."""
    samples = [meter.sample()]
    try:
        work = await contestant.work(clients, seconds, lambda: samples.append(meter.sample()))
        spent = meter.since(samples[-1])
    finally:
        await contestant.rest()
    cpu_s = {name: cpu for name, cpu in spent.cpu_s.items() if name in (*contestant.components, CLIENT)}
    return Turn(work.done, work.elapsed_s, cpu_s, spent.foreign, work.latency_ms, work.p99_ms)


async def keep_asking(operation: Callable[[int], Awaitable[None]], clients: int, seconds: float) -> Work:
    """This many clients, each doing one operation after the other until the time is over and the last has ended."""
    began = time.monotonic()
    took_ms: list[float] = []

    async def client(number: int) -> None:
        while (start := time.monotonic()) < began + seconds:
            await operation(number)
            took_ms.append(1000 * (time.monotonic() - start))

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    return measured(took_ms, time.monotonic() - began)


def measured(took_ms: Sequence[float], elapsed_s: float) -> Work:
    """The report of a turn from the time that each operation took."""
    return Work(len(took_ms), elapsed_s, median(took_ms) if took_ms else None, percentile(took_ms, 0.99))


async def eventually(holds: Callable[[], Awaitable[bool]], what: str, limit_s: float = 60) -> None:
    """Wait for a fact, looking twenty times a second. Raises Wrong when it does not come."""
    try:
        async with asyncio.timeout(limit_s):
            while not await holds():  # noqa: ASYNC110 - the fact is elsewhere
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Wrong(f"waited {limit_s:.0f} s in vain for {what}") from None
