"""Fee schedules: what each step does, how a fee is rounded, and what is refused at the door, with its place."""

import json
from itertools import pairwise
from typing import Any

import pytest

from engine.domain.errors import Invalid
from engine.domain.fee import MAX_STEPS, MAX_TIERS, Effect, explain, fee, parse_schedule
from engine.domain.money import MAX_AMOUNT_MSAT, Msat

pytestmark = pytest.mark.unit

TIERS = [
    {"from_msat": 0, "to_msat": 1_000_000},
    {"from_msat": 1_000_000, "to_msat": 10_000_000, "flat_msat": 500, "proportional_ppm": 1_000},
    {"from_msat": 10_000_000, "proportional_ppm": 2_000},
]


def out(*steps: Any, amount_msat: int = 1_000_000, level: int = 0, kind: Any = "lightning_out") -> int:
    return fee(parse_schedule({kind: list(steps)}), kind, Msat(amount_msat), level)


def test_a_kind_without_steps_is_free() -> None:
    schedule = parse_schedule({"lightning_in": [], "internal": [{"flat_msat": 7}]})
    assert fee(schedule, "lightning_in", Msat(5_000), 0) == 0
    assert fee(schedule, "lightning_out", Msat(5_000), 0) == 0
    assert fee(schedule, "internal", Msat(5_000), 0) == 7


def test_steps_are_taken_in_the_order_in_which_they_stand() -> None:
    assert out({"flat_msat": 100}, {"proportional_ppm": 2_500}) == 2_600
    assert out({"flat_msat": 100}, {"maximum_msat": 2_000}, {"proportional_ppm": 2_500}) == 2_600
    assert out({"flat_msat": 100}, {"proportional_ppm": 2_500}, {"maximum_msat": 2_000}) == 2_000
    assert out({"minimum_msat": 3_000}, {"flat_msat": 1}) == 3_001


def test_each_proportional_part_is_rounded_up_by_itself() -> None:
    assert out({"proportional_ppm": 1}, amount_msat=1) == 1
    assert out({"proportional_ppm": 1}, amount_msat=1_000_000) == 1
    assert out({"proportional_ppm": 1}, amount_msat=1_000_001) == 2
    assert out({"proportional_ppm": 1}, {"proportional_ppm": 1}, amount_msat=1) == 2


@pytest.mark.parametrize(
    ("amount_msat", "expected"),
    [(999_999, 0), (1_000_000, 1_500), (9_999_999, 10_500), (10_000_000, 20_000), (MAX_AMOUNT_MSAT, 18014398509482)],
)
def test_an_amount_pays_as_its_tier_says_for_all_of_it(amount_msat: int, expected: int) -> None:
    assert out({"tiered": TIERS}, amount_msat=amount_msat) == expected


def test_an_exemption_ends_with_nothing() -> None:
    steps = [{"flat_msat": 9}, {"exempt": {"levels": [3], "up_to_msat": 10_000}}, {"minimum_msat": 20}]
    assert out(*steps, amount_msat=10_000, level=3) == 0
    assert out(*steps, amount_msat=10_001, level=3) == 20
    assert out(*steps, amount_msat=10_000, level=2) == 20


@pytest.mark.parametrize("kind", ["deposit", "withdrawal"])
def test_a_fee_on_chain_is_rounded_up_to_whole_satoshi_at_its_end(kind: str) -> None:
    assert out({"flat_msat": 1}, {"proportional_ppm": 1}, kind=kind) == 1_000
    assert out({"flat_msat": 2_000}, kind=kind) == 2_000
    assert out({"flat_msat": 2_500}, {"maximum_msat": 3_000}, kind=kind) == 3_000


def test_a_fee_on_a_receipt_takes_no_more_than_came() -> None:
    assert out({"flat_msat": 5_000}, amount_msat=3_000, kind="lightning_in") == 3_000
    assert out({"flat_msat": 5_000}, amount_msat=3_000, kind="deposit") == 3_000
    assert out({"flat_msat": 5_000}, amount_msat=3_000, kind="lightning_out") == 5_000


def test_an_explanation_gives_the_fee_after_each_step() -> None:
    schedule = parse_schedule({"deposit": [{"flat_msat": 1_500}, {"proportional_ppm": 10}, {"minimum_msat": 2_500}]})
    assert explain(schedule, "deposit", Msat(2_000), 0) == [
        Effect("flat_msat", Msat(1_500)),
        Effect("proportional_ppm", Msat(1_501)),
        Effect("minimum_msat", Msat(2_500)),
        Effect("whole_sat", Msat(3_000)),
        Effect("at_most_the_amount", Msat(2_000)),
    ]


TIERED = "lightning_out[0].tiered"
WRONG: list[tuple[Any, str, str]] = [
    ({"lightning": []}, "'lightning'", "is no kind"),
    ({"lightning_out": {}}, "lightning_out", "is no list"),
    ({"lightning_out": [{}] * (MAX_STEPS + 1)}, "lightning_out", "more than 10"),
    ({"lightning_out": [7]}, "lightning_out[0]", "is no object"),
    ({"lightning_out": [{}]}, "lightning_out[0]", "one step"),
    ({"lightning_out": [{"flat_msat": 1, "maximum_msat": 2}]}, "lightning_out[0]", "one step"),
    ({"internal": [{"flat_msat": 1}, {"percent": 1}]}, "internal[1].'percent'", "is no step"),
    *(
        ({"internal": [{"flat_msat": value}]}, "internal[0].flat_msat", why)
        for value, why in (
            (True, "no whole number"),
            (1.0, "no whole number"),
            ("1", "no whole number"),
            (None, "no whole number"),
            (-1, "negative"),
            (2**53, "above"),
        )
    ),
    ({"internal": [{"proportional_ppm": 1_000_001}]}, "internal[0].proportional_ppm", "above 1000000"),
    ({"internal": [{"proportional_ppm": -1}]}, "internal[0].proportional_ppm", "negative"),
    # tiers
    ({"lightning_out": [{"tiered": []}]}, TIERED, "no tier"),
    ({"lightning_out": [{"tiered": [{"to_msat": 5}]}]}, f"{TIERED}[0]", "no from_msat"),
    ({"lightning_out": [{"tiered": [{"from_msat": 0, "fee": 5}]}]}, f"{TIERED}[0].'fee'", "not known"),
    ({"lightning_out": [{"tiered": [*TIERS[:2], {"from_msat": 9_999_999}]}]}, f"{TIERED}[2]", "overlaps"),
    ({"lightning_out": [{"tiered": [TIERS[1], TIERS[0], TIERS[2]]}]}, f"{TIERED}[0]", "gap"),
    ({"lightning_out": [{"tiered": [TIERS[0], TIERS[2], TIERS[1]]}]}, f"{TIERED}[1]", "gap"),
    ({"lightning_out": [{"tiered": [TIERS[0], TIERS[0], TIERS[2]]}]}, f"{TIERED}[1]", "overlaps"),
    ({"lightning_out": [{"tiered": TIERS[1:]}]}, f"{TIERED}[0]", "gap"),
    ({"lightning_out": [{"tiered": [TIERS[0], TIERS[2]]}]}, f"{TIERED}[1]", "gap"),
    ({"lightning_out": [{"tiered": TIERS[:2]}]}, TIERED, "gap"),
    ({"lightning_out": [{"tiered": [{"from_msat": 0}, *TIERS]}]}, f"{TIERED}[1]", "unreachable"),
    ({"lightning_out": [{"tiered": [{"from_msat": 0, "to_msat": 0}, {"from_msat": 0}]}]}, f"{TIERED}[0]", "ends"),
    ({"lightning_out": [{"tiered": [{"from_msat": 0}] * (MAX_TIERS + 1)}]}, TIERED, "more than 10"),
    (
        {"lightning_out": [{"tiered": [TIERS[0], {**TIERS[1], "proportional_ppm": 1_000_001}, TIERS[2]]}]},
        f"{TIERED}[1].proportional_ppm",
        "above",
    ),
    # exemptions
    ({"internal": [{"exempt": {}}]}, "internal[0].exempt", "exempts nobody"),
    ({"internal": [{"exempt": {"levels": []}}]}, "internal[0].exempt.levels", "empty"),
    ({"internal": [{"exempt": {"levels": [1, 1]}}]}, "internal[0].exempt.levels", "twice"),
    ({"internal": [{"exempt": {"levels": [10]}}]}, "internal[0].exempt.levels[0]", "above 9"),
    ({"internal": [{"exempt": {"up_to_msat": 0}}]}, "internal[0].exempt.up_to_msat", "exempts nothing"),
    ({"internal": [{"exempt": {"levels": list(range(10))}}, {"flat_msat": 1}]}, "internal[1]", "unreachable"),
    (
        {"internal": [{"exempt": {"up_to_msat": 9}}, {"flat_msat": 1}, {"exempt": {"levels": [3], "up_to_msat": 9}}]},
        "internal[2].exempt",
        "unreachable",
    ),
    # bounds
    ({"internal": [{"maximum_msat": 5}, {"minimum_msat": 6}]}, "internal[1]", "can never hold beside the maximum"),
    ({"internal": [{"minimum_msat": 6}, {"maximum_msat": 5}]}, "internal[1]", "can never hold beside the minimum"),
    (
        {"internal": [{"minimum_msat": 6}, {"proportional_ppm": 1}, {"maximum_msat": 6}]},
        "internal[2]",
        "at least 7",
    ),
    (
        {"internal": [{"maximum_msat": 5}, {"tiered": [{"from_msat": 0, "flat_msat": 2}]}, {"minimum_msat": 8}]},
        "internal[2]",
        "at most 7",
    ),
    ({"withdrawal": [{"flat_msat": 1}, {"maximum_msat": 1_500}]}, "withdrawal[1]", "whole satoshi"),
]


@pytest.mark.parametrize(("content", "place", "why"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_schedule_is_refused_with_its_place(content: Any, place: str, why: str) -> None:
    with pytest.raises(Invalid, match="cannot be used") as refused:
        parse_schedule(content)
    assert refused.value.fields == {"place": place}
    assert why in refused.value.detail
    assert place in refused.value.detail


def test_bounds_that_touch_and_steps_of_nothing_are_taken() -> None:
    parse_schedule({"internal": [{"maximum_msat": 5}, {"minimum_msat": 5}, {"flat_msat": 0}, {"proportional_ppm": 0}]})
    parse_schedule({"internal": [{"exempt": {"levels": [1]}}, {"exempt": {"levels": [1, 2]}}, {"flat_msat": 1}]})


def test_the_largest_schedule_fits_into_a_rulebook() -> None:
    ends = [*range(0, MAX_AMOUNT_MSAT, MAX_AMOUNT_MSAT // MAX_TIERS + 1), None]
    tiers = [
        {"from_msat": low, "to_msat": high, "flat_msat": MAX_AMOUNT_MSAT, "proportional_ppm": 1_000_000}
        for low, high in pairwise(ends)
    ]
    assert len(tiers) == MAX_TIERS
    content = {
        kind: [{"tiered": tiers}] * MAX_STEPS
        for kind in ("internal", "lightning_out", "lightning_in", "deposit", "withdrawal")
    }
    schedule = parse_schedule(content)
    assert len(json.dumps(content)) <= 65_536
    assert fee(schedule, "lightning_out", MAX_AMOUNT_MSAT, 0) < 2**60
