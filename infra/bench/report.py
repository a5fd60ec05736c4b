"""What the bench says: a table for people, the same figures as JSON for programs."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.bench.figures import CLIENT, Line, Turn, Verdict, cpu_ms_by_component
from infra.local.commands import ROOT

MARK = "*"
LEAST_SHOWN_MS = 0.05
DIGITS = ((100, 0), (10, 1))
FORMAT = 1
"""Of the JSON; fields are added, never renamed."""


@dataclass(slots=True)
class Fact:
    """One figure that is compared with no other: a start-up time, a process's memory."""

    what: str
    value: float
    unit: str


@dataclass(slots=True)
class Report:
    """Everything that was measured."""

    lines: list[Line] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    verdicts: list[tuple[str, Verdict]] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Checks that did not hold and whatever else broke, each with its place; none in a good run."""
    took_s: float = 0.0
    quick: bool = False
    commit: str = ""

    @property
    def marked(self) -> bool:
        """Whether anything was measured while others used the machine."""
        return any(line.marked for line in self.lines)

    def show(self, console: Console) -> None:
        """The tables."""
        for title in dict.fromkeys(line.contest for line in self.lines):
            console.print(self._table(title, [line for line in self.lines if line.contest == title]))
        if self.verdicts:
            console.print(_goals(self.verdicts))
        if self.facts:
            table = Table("what", "value", "unit", title="start-up and memory")
            table.columns[1].justify = "right"
            for fact in self.facts:
                table.add_row(fact.what, number(fact.value), fact.unit)
            console.print(table)
        if self.marked:
            console.print(f"{MARK} others used more than a tenth of the machine meanwhile: read it as a lower bound.")

    def _table(self, title: str, lines: Sequence[Line]) -> Table:
        table = Table(
            "who",
            "clients",
            self.units.get(title, "per s"),
            "spread",
            "p50 ms",
            "p99 ms",
            "CPU ms each",
            "of it",
            "client",
            "foreign",
        )
        table.title = title
        for column in table.columns[1:7] + table.columns[8:]:
            column.justify = "right"
        for line in lines:
            if line.missing is not None:
                table.add_row(line.contestant, "", line.missing)
                continue
            table.add_row(
                line.contestant,
                str(line.clients),
                f"{number(line.rate)}{MARK if line.marked else ''}",
                f"{100 * (line.spread or 0):.0f} %",
                number(line.latency_ms),
                number(line.p99_ms),
                number(line.cpu_ms),
                _shares(line.turns),
                f"{100 * client_share(line.turns):.0f} %",
                f"{100 * line.foreign:.0f} %",
            )
        return table

    def to_json(self) -> str:
        """All turns, and what was made of them."""
        content = {
            "format": FORMAT,
            "commit": self.commit,
            "quick": self.quick,
            "took_s": round(self.took_s, 1),
            "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
            "lines": [self._line(line) for line in self.lines],
            "goals": [_verdict(title, verdict) for title, verdict in self.verdicts],
            "failures": self.failures,
            "facts": [asdict(fact) for fact in self.facts],
        }
        return json.dumps(content, indent=1)

    def _line(self, line: Line) -> Mapping[str, Any]:
        return {
            "contest": line.contest,
            "contestant": line.contestant,
            "clients": line.clients,
            "unit": self.units.get(line.contest, "per s"),
            "missing": line.missing,
            "rate": line.rate,
            "latency_ms": line.latency_ms,
            "p99_ms": line.p99_ms,
            "cpu_ms": line.cpu_ms,
            "cpu_ms_by_component": _median_by_component(line.turns),
            "client_share": client_share(line.turns),
            "marked": line.marked,
            "turns": [asdict(turn) | {"marked": turn.marked} for turn in line.turns],
        }


def _goals(verdicts: Sequence[tuple[str, Verdict]]) -> Table:
    table = Table("what", "beside", "clients", "of", "goal", "is", "", title="goals, as the median of ratios per round")
    for column in table.columns[4:6]:
        column.justify = "right"
    for _, verdict in verdicts:
        goal, mark = verdict.goal, MARK if verdict.marked else ""
        ratio = "" if verdict.ratio is None else f"{verdict.ratio:,.2f}{goal.unit()}{mark}"
        clients = str(verdict.clients)
        table.add_row(goal.contestant, goal.beside or "", clients, goal.measure, goal.words(), ratio, verdict.word)
    return table


def _verdict(title: str, verdict: Verdict) -> Mapping[str, Any]:
    return {
        "contest": title,
        **asdict(verdict.goal),
        "clients": verdict.clients,
        "ratio": verdict.ratio,
        "verdict": verdict.word,
        "marked": verdict.marked,
    }


def client_share(turns: Sequence[Turn]) -> float:
    """The part of one core that the client used; near 1 the client itself would be what was measured."""
    return median(turn.cpu_s.get(CLIENT, 0.0) / turn.elapsed_s for turn in turns) if turns else 0.0


def _shares(turns: Sequence[Turn]) -> str:
    shares = sorted(_median_by_component(turns).items(), key=lambda one: -one[1])
    return ", ".join(f"{name} {number(spent)}" for name, spent in shares if spent >= LEAST_SHOWN_MS)


def _median_by_component(turns: Sequence[Turn]) -> dict[str, float]:
    each = [cpu_ms_by_component(turn) for turn in turns if turn.done]
    names = dict.fromkeys(name for one in each for name in one)
    return {name: median(one.get(name, 0.0) for one in each) for name in names}


def number(value: float | None) -> str:
    """Three digits are as much as such a machine can say."""
    if value is None:
        return ""
    digits = next((digits for least, digits in DIGITS if value >= least), 2)
    return f"{value:,.{digits}f}"


def current_commit() -> str:
    """What is measured, as git calls it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return said.stdout.strip()
