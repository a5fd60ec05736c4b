"""The arithmetic of the benchmark: medians, ratios inside a round, marks and goals."""

import pytest

from infra.bench.figures import (
    CLIENT,
    Goal,
    Line,
    Turn,
    cpu_ms_by_component,
    foreign_share,
    judge,
    percentile,
    ratio_of,
)

pytestmark = pytest.mark.unit


def turn(rate: float, *, cpu_ms: float = 0.0, foreign: float = 0.0) -> Turn:
    """A turn of two seconds with this rate."""
    done = round(2 * rate)
    return Turn(done, 2.0, {"api": cpu_ms * done / 1000} if cpu_ms else {}, foreign)


def took(p50: float, *, p99: float | None = None) -> Turn:
    """A turn whose operations took so long."""
    return Turn(10, 1.0, latency_ms=p50, p99_ms=p99)


def line(name: str, *turns: Turn, clients: int = 1) -> Line:
    return Line("contest", name, clients, list(turns))


def test_a_rate_is_what_was_done_per_second_and_nothing_in_no_time_is_nothing() -> None:
    assert Turn(10, 4.0).rate == 2.5
    assert Turn(10, 0.0).rate == 0.0


def test_cpu_is_counted_per_operation_and_without_the_client() -> None:
    spent = Turn(100, 1.0, {"api": 0.5, "postgres": 0.25, CLIENT: 9.0})
    assert cpu_ms_by_component(spent) == {"api": 5.0, "postgres": 2.5}
    assert spent.cpu_ms == 7.5
    assert Turn(0, 1.0, {"api": 0.5}).cpu_ms == 0.0


def test_a_line_is_the_median_of_its_rounds_so_that_one_bad_round_changes_little() -> None:
    found = line("a", turn(100), turn(10), turn(110))
    assert found.rate == 100
    assert found.spread == pytest.approx(1.0)
    assert line("a").rate is None
    assert line("a").spread is None


def test_a_ratio_is_taken_inside_each_round_so_that_a_slow_minute_slows_both_sides() -> None:
    ours, beside = [turn(100), turn(10), turn(100)], [turn(50), turn(5), turn(50)]
    assert ratio_of(ours, beside) == 2.0
    assert ratio_of([turn(100), turn(10)], [turn(50), turn(10)]) == 1.5


def test_a_ratio_of_cpu_compares_what_one_operation_costs() -> None:
    assert ratio_of([turn(50, cpu_ms=10)], [turn(100, cpu_ms=40)], "cpu") == pytest.approx(0.25)


def test_an_added_cost_is_a_difference_inside_each_round() -> None:
    ours, beside = [took(60), took(900), took(50)], [took(30), took(860), took(30)]
    assert ratio_of(ours, beside, "p50 added") == 30
    assert ratio_of([took(10)], [took(30)], "p50 added") == -20
    assert ratio_of([Turn(1, 1.0)], [took(30)], "p50 added") is None


def test_the_slowest_operations_are_compared_like_all_else() -> None:
    assert ratio_of([took(10, p99=30)], [took(10, p99=20)], "p99") == 1.5
    assert ratio_of([took(10)], [took(10, p99=20)], "p99") is None


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7, 3], 0.99) == 7
    assert percentile([7, 3], 0.0) == 3
    assert percentile([], 0.99) is None


def test_a_round_in_which_one_side_did_nothing_gives_no_ratio() -> None:
    assert ratio_of([turn(100), turn(100)], [turn(0), turn(50)]) == 2.0
    assert ratio_of([turn(100)], [turn(0)]) is None
    assert ratio_of([turn(100)], []) is None


@pytest.mark.parametrize(("foreign", "marked"), [(0.0, False), (0.10, False), (0.11, True)])
def test_a_turn_is_marked_when_others_used_more_than_a_tenth_of_the_machine(foreign: float, marked: bool) -> None:  # noqa: FBT001 - a table
    assert turn(1, foreign=foreign).marked is marked
    assert line("a", turn(1), turn(1, foreign=foreign)).marked is marked


def test_the_use_of_others_is_the_busy_time_that_is_not_ours() -> None:
    assert foreign_share(busy_s=6.0, ours_s=4.0, elapsed_s=5.0, cores=2) == pytest.approx(0.2)
    assert foreign_share(busy_s=4.0, ours_s=4.1, elapsed_s=5.0, cores=2) == 0.0
    assert foreign_share(busy_s=4.0, ours_s=1.0, elapsed_s=0.0, cores=2) == 0.0


def test_a_goal_is_judged_for_each_number_of_clients_that_it_speaks_of() -> None:
    lines = [
        line("a", turn(100), clients=1),
        line("a", turn(300), clients=16),
        line("b", turn(100), clients=1),
        line("b", turn(100), clients=16),
    ]
    every = judge([Goal("a", "b", at_least=2)], lines)
    assert [(one.clients, one.ratio, one.word) for one in every] == [(1, 1.0, "missed"), (16, 3.0, "met")]
    (only,) = judge([Goal("a", "b", at_least=2, clients=16)], lines)
    assert (only.clients, only.word) == (16, "met")


def test_a_goal_can_be_a_ceiling_or_a_bound_on_the_rate_itself_or_none() -> None:
    lines = [line("a", turn(50, cpu_ms=10)), line("b", turn(50, cpu_ms=40))]
    goals = [Goal("a", "b", "cpu", at_most=0.5), Goal("a", at_least=60), Goal("a", "b")]
    assert [(one.ratio, one.word) for one in judge(goals, lines)] == [(0.25, "met"), (50.0, "missed"), (1.0, "")]
    assert [goal.words() for goal in goals] == ["≤ 0.5×", "≥ 60", ""]


def test_a_goal_in_milliseconds_says_so() -> None:
    lines = [line("a", took(50), took(70), took(60)), line("b", took(30), took(30), took(30))]
    goals = [Goal("a", "b", "p50 added", at_most=40), Goal("a", measure="p50", at_most=50), Goal("a", "b", "p99")]
    assert [(one.ratio, one.word) for one in judge(goals, lines)] == [
        (30, "met"),
        (60, "missed"),
        (None, "not measured"),
    ]
    assert [goal.words() for goal in goals] == ["≤ 40 ms", "≤ 50 ms", ""]


def test_a_goal_for_the_last_operation_of_a_turn_is_in_seconds() -> None:
    lines = [line("a", Turn(10, 59.0), Turn(10, 62.0)), line("b", Turn(10, 30.5))]
    goals = [Goal("a", measure="whole", at_most=60), Goal("a", "b", "whole", at_most=2)]
    assert [(one.ratio, one.word) for one in judge(goals, lines)] == [
        (60.5, "missed"),
        (pytest.approx(59 / 30.5), "met"),
    ]
    assert [goal.words() for goal in goals] == ["≤ 60 s", "≤ 2×"]


def test_a_missing_figure_is_neither_met_nor_missed() -> None:
    absent = Line("contest", "a", 1, missing="not built")
    assert [one.word for one in judge([Goal("a", "b", at_least=1)], [absent, line("b", turn(1))])] == ["not measured"]
    assert [one.word for one in judge([Goal("b", "c", at_least=1)], [line("b", turn(1))])] == ["not measured"]
    assert [one.word for one in judge([Goal("a", at_least=1)], [absent])] == ["not measured"]


def test_a_verdict_is_marked_when_either_side_is() -> None:
    lines = [line("a", turn(1)), line("b", turn(1, foreign=0.5))]
    assert [one.marked for one in judge([Goal("a", "b", at_least=1)], lines)] == [True]
