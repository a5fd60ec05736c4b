"""CPU and memory by component, read from /proc, and what others use of the machine meanwhile.

A component is a set of root processes with all their descendants. A process that ended counts in the parent that
waited for it, so the sum of both over a tree loses nothing that ran while we looked.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.bench.figures import CLIENT, foreign_share

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
PARENT, TIMES = 1, slice(11, 15)  # Where proc(5)'s fields 4 and 14 to 17 are, counted behind the name in brackets.


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU seconds so far, by component and of the whole machine."""

    at_s: float
    by_component: Mapping[str, float]
    busy_s: float


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used between two samples."""

    elapsed_s: float
    cpu_s: dict[str, float]
    foreign: float


class Meter:
    """Watches the components whose root processes `roots` names at each look; the bench itself is the client."""

    def __init__(self, roots: Callable[[], Mapping[str, Sequence[int]]]) -> None:
        self._roots = roots

    def sample(self) -> Sample:
        """CPU so far."""
        stats = _stats()
        children = _children(stats)
        roots = {**self._roots(), CLIENT: (os.getpid(),)}
        claimed = {pid for name, pids in roots.items() if name != CLIENT for pid in pids}
        by_component = {}
        for name, pids in roots.items():
            others = claimed - set(pids)
            family = [pid for root in pids for pid in _family(root, children, without=others)]
            by_component[name] = sum(stats[pid].cpu_s for pid in family if pid in stats)
        return Sample(time.monotonic(), by_component, _busy_s())

    def since(self, before: Sample) -> Spent:
        """What was used since then. A component that is new or gone counts as nothing."""
        now = self.sample()
        elapsed_s = now.at_s - before.at_s
        cpu_s = {
            name: max(0.0, total - before.by_component[name])
            for name, total in now.by_component.items()
            if name in before.by_component
        }
        busy_s = now.busy_s - before.busy_s
        return Spent(elapsed_s, cpu_s, foreign_share(busy_s, sum(cpu_s.values()), elapsed_s, os.cpu_count() or 1))

    def memory_mb(self) -> dict[str, float]:
        """Megabytes by component; what processes share is divided among them where the kernel tells."""
        children = _children(_stats())
        return {
            name: sum(_memory_kb(pid) for root in pids for pid in _family(root, children)) / 1024
            for name, pids in self._roots().items()
        }


def cpu_of(root: int) -> float:
    """Seconds of CPU of a process and all below it, so far."""
    stats = _stats()
    return sum(stats[pid].cpu_s for pid in _family(root, _children(stats)) if pid in stats)


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    cpu_s: float


def _stats() -> dict[int, _Stat]:
    found = {}
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(folder.name)] = _Stat(int(fields[PARENT]), sum(int(value) for value in fields[TIMES]) * TICK_S)
    return found


def _children(stats: Mapping[int, _Stat]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        found.setdefault(stat.parent, []).append(pid)
    return found


def _family(root: int, children: Mapping[int, Sequence[int]], without: set[int] | None = None) -> list[int]:
    """The process and all below it; branches that begin with one of `without` belong to others."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += [child for child in children.get(pid, ()) if child not in (without or ())]
    return found


def _busy_s() -> float:
    """Seconds of CPU that the machine has used so far, whoever did."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(value) for value in (PROC / "stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) * TICK_S


def _memory_kb(pid: int) -> int:
    for name, word in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = (PROC / str(pid) / name).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(word):
                return int(line.split()[1])
    return 0
