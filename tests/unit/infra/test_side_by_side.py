"""How many processes run the tests, and what is charged to none of them."""

import signal
from types import SimpleNamespace

import pytest

from infra.local.commands import ROOT
from tests.conftest import pytest_xdist_auto_num_workers
from tests.fixtures.stack import charged_to_no_test

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("arguments", "setting", "processes"),
    [
        (["tests"], None, 3),
        ([str(ROOT)], None, 3),
        (["tests"], "4", 4),
        (["tests"], "1", 0),
        (["tests/unit"], None, 0),
        (["tests/unit"], "3", 0),
        (["tests", "tests/unit/fee/test_fees.py::test_a"], None, 0),
    ],
)
def test_all_tests_run_in_three_processes_and_a_part_of_them_in_one(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], setting: str | None, processes: int
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("MILLRACE_TEST_PROCESSES", raising=False)
    if setting:
        monkeypatch.setenv("MILLRACE_TEST_PROCESSES", setting)

    config: pytest.Config = SimpleNamespace(args=arguments)  # type: ignore[assignment]
    assert pytest_xdist_auto_num_workers(config) == processes


def test_the_clock_of_a_test_stands_still_while_a_stack_starts() -> None:
    before_s, _ = signal.getitimer(signal.ITIMER_REAL)
    with charged_to_no_test():
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    after_s, _ = signal.getitimer(signal.ITIMER_REAL)
    assert 0 < after_s <= before_s
