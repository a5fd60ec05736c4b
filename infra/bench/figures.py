"""The arithmetic of the benchmark: pure functions and plain data, so that each rule can be tested by itself.

A *turn* is one contestant at work for a few seconds. A *round* is one turn of every contestant, one after the other. A
ratio is taken inside each round, between turns that lie seconds apart, and the median of these ratios is reported: what
slows the machine for a minute slows both sides of a ratio.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Literal

FOREIGN_LIMIT = 0.10
"""A turn during which others used more than this share of the machine is marked."""

CLIENT = "client"
"""The component that asks: never part of what an operation costs."""

Measure = Literal["rate", "cpu", "p50", "p99", "p50 added", "whole"]
"""Rates and CPU per operation, milliseconds of one operation, and the seconds until the last one of a turn has ended.

*Added* is a difference, all others are ratios.
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one contestant did in one turn. `cpu_s` is by component; `foreign` is a share of the whole machine."""

    done: int
    elapsed_s: float
    cpu_s: Mapping[str, float] = field(default_factory=dict[str, float])
    foreign: float = 0.0
    latency_ms: float | None = None
    """The median of one operation."""
    p99_ms: float | None = None
    """The time within which 99 of 100 operations ended."""

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU per operation, of everything involved but the client."""
        return sum(cpu_ms_by_component(self).values())

    @property
    def marked(self) -> bool:
        """Whether others used the machine meanwhile."""
        return self.foreign > FOREIGN_LIMIT


@dataclass(frozen=True, slots=True)
class Goal:
    """What a contestant should reach compared with another, or by itself. Without a bound the figure is only shown."""

    contestant: str
    beside: str | None = None
    """None: the bound is on the figure itself."""
    measure: Measure = "rate"
    at_least: float | None = None
    at_most: float | None = None
    clients: int | None = None
    """For this number of clients only; none: for each."""

    def words(self) -> str:
        """For the table."""
        if self.at_least is None and self.at_most is None:
            return ""
        unit = self.unit()
        return f"≥ {self.at_least:,g}{unit}" if self.at_least is not None else f"≤ {self.at_most:,g}{unit}"

    def unit(self) -> str:
        """The unit after the figure."""
        if self.measure == "p50 added" or (self.beside is None and self.measure in ("p50", "p99")):
            return " ms"
        if self.beside is None and self.measure == "whole":
            return " s"
        return "" if self.beside is None else "×"

    def met_by(self, ratio: float) -> bool:
        """Whether a ratio reaches it."""
        above = self.at_least is None or ratio >= self.at_least
        return above and (self.at_most is None or ratio <= self.at_most)


@dataclass(slots=True)
class Line:
    """All turns of one contestant with one number of clients; `missing` says why there are none."""

    contest: str
    contestant: str
    clients: int
    turns: list[Turn] = field(default_factory=list)
    missing: str | None = None

    @property
    def rate(self) -> float | None:
        """The median over rounds."""
        return median_of(self.turns, "rate")

    @property
    def cpu_ms(self) -> float | None:
        """The median over rounds."""
        return median(turn.cpu_ms for turn in self.turns) if any(turn.cpu_s for turn in self.turns) else None

    @property
    def latency_ms(self) -> float | None:
        """The median over rounds of the median within each."""
        return median_of(self.turns, "p50")

    @property
    def p99_ms(self) -> float | None:
        """The median over rounds of the time within which 99 of 100 ended."""
        return median_of(self.turns, "p99")

    @property
    def foreign(self) -> float:
        """The largest share of the machine that others used in any turn."""
        return max((turn.foreign for turn in self.turns), default=0.0)

    @property
    def marked(self) -> bool:
        """Whether any turn is."""
        return any(turn.marked for turn in self.turns)

    @property
    def spread(self) -> float | None:
        """How far apart the rates are: (largest − smallest) / median."""
        if not self.turns or not self.rate:
            return None
        rates = [turn.rate for turn in self.turns]
        return (max(rates) - min(rates)) / self.rate


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal held against what was measured."""

    goal: Goal
    clients: int
    ratio: float | None
    """None when one side was not measured."""
    marked: bool

    @property
    def word(self) -> str:
        """met, missed or not measured; nothing for a ratio that has no goal."""
        if self.ratio is None:
            return "not measured"
        if not self.goal.words():
            return ""
        return "met" if self.goal.met_by(self.ratio) else "missed"


def cpu_ms_by_component(turn: Turn) -> dict[str, float]:
    """Milliseconds of CPU per operation for each component but the client; empty when nothing was done."""
    if turn.done == 0:
        return {}
    return {name: 1000 * spent_s / turn.done for name, spent_s in turn.cpu_s.items() if name != CLIENT}


_READ: Mapping[Measure, Callable[[Turn], float | None]] = {
    "rate": lambda turn: turn.rate,
    "cpu": lambda turn: turn.cpu_ms,
    "p50": lambda turn: turn.latency_ms,
    "p99": lambda turn: turn.p99_ms,
    "p50 added": lambda turn: turn.latency_ms,
    "whole": lambda turn: turn.elapsed_s,
}


def ratio_of(ours: Sequence[Turn], beside: Sequence[Turn], measure: Measure = "rate") -> float | None:
    """The median of the ratios (of the differences, for what is added) within each round.

    Rounds in which one side has nothing do not count.
    """
    read = _READ[measure]
    pairs = [(read(mine) or 0, read(other) or 0) for mine, other in zip(ours, beside, strict=False)]
    both = [(mine, other) for mine, other in pairs if mine > 0 and other > 0]
    compared = [mine - other if measure == "p50 added" else mine / other for mine, other in both]
    return median(compared) if compared else None


def median_of(turns: Sequence[Turn], measure: Measure) -> float | None:
    """The median over rounds of the figure itself."""
    known = [value for turn in turns if (value := _READ[measure](turn)) is not None]
    return median(known) if known else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that this share of all does not exceed (nearest rank); none of none."""
    if not values:
        return None
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def judge(goals: Sequence[Goal], lines: Sequence[Line]) -> list[Verdict]:
    """Each goal for each number of clients that it speaks of and that was measured."""
    verdicts = []
    by_key = {(line.contestant, line.clients): line for line in lines}
    for goal in goals:
        for line in [one for one in lines if one.contestant == goal.contestant]:
            if goal.clients not in (None, line.clients):
                continue
            other = by_key.get((goal.beside or "", line.clients))
            ratio = None if other is None else ratio_of(line.turns, other.turns, goal.measure)
            if goal.beside is None:
                ratio = median_of(line.turns, goal.measure)
            marked = line.marked or (other is not None and other.marked)
            verdicts.append(Verdict(goal, line.clients, ratio, marked))
    return verdicts


def foreign_share(busy_s: float, ours_s: float, elapsed_s: float, cores: int) -> float:
    """The share of the machine that processes which we do not know used; 0 when clocks disagree a little."""
    if elapsed_s <= 0 or cores <= 0:
        return 0.0
    return max(0.0, busy_s - ours_s) / (elapsed_s * cores)
