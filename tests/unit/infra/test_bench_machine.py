"""What the bench reads of /proc, on processes of its own, and how it reads answers."""

import os
import subprocess
import sys

import pytest

from infra.bench.figures import CLIENT, Turn
from infra.bench.machine import Meter, cpu_of
from infra.bench.report import client_share, number

pytestmark = pytest.mark.unit

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\ninput()"


def test_cpu_of_a_process_and_its_children_is_seen_in_their_component_and_not_in_the_client() -> None:
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        meter = Meter(lambda: {"burner": (child.pid,)})
        client_before = cpu_of_the_client_without(child.pid)
        before = meter.sample()
        child.stdout.readline()
        spent = meter.since(before)
        burnt_by_client = cpu_of_the_client_without(child.pid) - client_before
        assert cpu_of(child.pid) >= 0.25
        assert spent.cpu_s["burner"] >= 0.2
        assert spent.cpu_s[CLIENT] <= burnt_by_client + 0.1
        assert meter.memory_mb()["burner"] > 1
        child.communicate(b"\n")


def cpu_of_the_client_without(child: int) -> float:
    """Of this process and all that a whole test run has started below it, such as the stack."""
    return cpu_of(os.getpid()) - cpu_of(child)


def test_a_component_that_has_gone_counts_as_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        meter = Meter(lambda: {"gone": (child.pid,)})
        before = meter.sample()
        child.communicate(b"\n")
    assert meter.since(before).cpu_s["gone"] == 0.0


def test_the_clients_share_is_of_one_core() -> None:
    assert client_share([Turn(1, 2.0, {CLIENT: 1.0}), Turn(1, 2.0, {CLIENT: 1.0})]) == 0.5
    assert client_share([]) == 0.0


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (5963.4, "5,963"), (100.0, "100"), (31.27, "31.3"), (1.284, "1.28"), (0.05, "0.05")]
)
def test_figures_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text
