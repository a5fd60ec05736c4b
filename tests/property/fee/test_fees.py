"""Every schedule that is taken gives every amount one fee: never negative, within its bounds, the same as by hand."""

from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.domain.errors import Invalid
from engine.domain.fee import KINDS, MAX_LEVEL, FeeSchedule, Kind, fee, parse_schedule
from engine.domain.money import MAX_AMOUNT_MSAT, Msat

pytestmark = pytest.mark.property

MSATS = st.integers(0, 50_000) | st.integers(0, MAX_AMOUNT_MSAT)
SATS = st.integers(0, 100).map(lambda sat: sat * 1_000)
RATES = st.integers(0, 20_000) | st.integers(0, 1_000_000)
AMOUNTS = (st.integers(1, 200_000) | st.integers(1, MAX_AMOUNT_MSAT)).map(Msat)
LEVELS = st.integers(0, MAX_LEVEL)


@st.composite
def tiered(draw: st.DrawFn) -> dict[str, Any]:
    ends = [0, *sorted(draw(st.sets(st.integers(1, 300_000), max_size=4))), None]
    return {
        "tiered": [
            {"from_msat": low, "to_msat": high, "flat_msat": draw(MSATS), "proportional_ppm": draw(RATES)}
            for low, high in pairwise(ends)
        ]
    }


EXEMPT = st.fixed_dictionaries(
    {"levels": st.lists(LEVELS, min_size=1, max_size=5, unique=True)}, optional={"up_to_msat": st.integers(1, 200_000)}
)
SIMPLE = st.one_of(
    MSATS.map(lambda value: {"flat_msat": value}),
    RATES.map(lambda value: {"proportional_ppm": value}),
    SATS.map(lambda value: {"minimum_msat": value}),
    SATS.map(lambda value: {"maximum_msat": value}),
)
STEPS = SIMPLE | tiered() | EXEMPT.map(lambda value: {"exempt": value})


def taken(kind: Kind, steps: list[Any]) -> FeeSchedule:
    """The schedule, if it is one that can be used."""
    try:
        return parse_schedule({kind: steps})
    except Invalid:
        assume(False)
        raise


def by_hand(kind: Kind, steps: list[Any], amount_msat: int, level: int) -> int:
    """The fee as a person with a pencil computes it: fractions, rounded up where the page about the books says so."""
    running = Fraction(0)
    for step in steps:
        ((name, value),) = step.items()
        if name == "exempt" and level in value["levels"] and amount_msat <= value.get("up_to_msat", MAX_AMOUNT_MSAT):
            return 0
        if name == "flat_msat":
            running += value
        if name == "proportional_ppm":
            running += ceil(Fraction(amount_msat) * Fraction(value, 1_000_000))
        if name == "tiered":
            (tier,) = (
                each
                for each in value
                if each["from_msat"] <= amount_msat and (each["to_msat"] is None or amount_msat < each["to_msat"])
            )
            running += tier["flat_msat"] + ceil(Fraction(amount_msat) * Fraction(tier["proportional_ppm"], 1_000_000))
        if name == "minimum_msat" and running < value:
            running = Fraction(value)
        if name == "maximum_msat" and running > value:
            running = Fraction(value)
    if kind in ("deposit", "withdrawal"):
        running = Fraction(ceil(running / 1_000) * 1_000)
    if kind in ("lightning_in", "deposit") and running > amount_msat:
        running = Fraction(amount_msat)
    assert running.denominator == 1
    return running.numerator


@given(kind=st.sampled_from(KINDS), steps=st.lists(STEPS, max_size=6), amount=AMOUNTS, level=LEVELS)
def test_the_fee_is_what_a_slow_reference_says_and_never_negative(
    kind: Kind, steps: list[Any], amount: Msat, level: int
) -> None:
    found = fee(taken(kind, steps), kind, amount, level)
    assert found == by_hand(kind, steps, amount, level)
    assert found >= 0


@given(
    kind=st.sampled_from(KINDS), steps=st.lists(SIMPLE, max_size=6), amounts=st.tuples(AMOUNTS, AMOUNTS), level=LEVELS
)
def test_without_tiers_more_never_costs_less(
    kind: Kind, steps: list[Any], amounts: tuple[Msat, Msat], level: int
) -> None:
    schedule = taken(kind, steps)
    assert fee(schedule, kind, min(amounts), level) <= fee(schedule, kind, max(amounts), level)


@given(
    kind=st.sampled_from(KINDS),
    steps=st.lists(SIMPLE | tiered(), max_size=4),
    bounds=st.tuples(SATS, SATS),
    amount=AMOUNTS,
    level=LEVELS,
)
def test_a_minimum_and_a_maximum_at_the_end_are_kept(
    kind: Kind, steps: list[Any], bounds: tuple[int, int], amount: Msat, level: int
) -> None:
    least, most = min(bounds), max(bounds)
    found = fee(taken(kind, [*steps, {"minimum_msat": least}, {"maximum_msat": most}]), kind, amount, level)
    assert found <= most
    assert found >= min(least, amount) if kind in ("lightning_in", "deposit") else found >= least


@given(kind=st.sampled_from(("lightning_in", "deposit")), steps=st.lists(STEPS, max_size=6), amount=AMOUNTS)
def test_a_fee_on_a_receipt_is_never_taken_twice(kind: Kind, steps: list[Any], amount: Msat) -> None:
    assert fee(taken(kind, steps), kind, amount, 0) <= amount


@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from([*KINDS, "flat_msat", "tiered", "exempt", "levels", "from_msat"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    ).filter(lambda value: isinstance(value, dict))
)
def test_any_json_is_a_schedule_or_refused_with_a_place(content: dict[str, Any]) -> None:
    place: object = "none"
    try:
        parse_schedule(content)
    except Invalid as refused:
        place = refused.fields["place"]
    assert place
