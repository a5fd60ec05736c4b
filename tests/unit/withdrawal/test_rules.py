"""The rulebook "withdrawals": everything is given, within its bounds, and a deviation is named with its place."""

import json
from typing import Any

import pytest

from engine.domain.errors import Invalid
from engine.domain.withdrawal.rules import parse_rules
from engine.domain.withdrawal.withdrawal import Speed
from tests.helpers.withdrawal.rules import rules, rules_content
from tests.tidy.house import ROOT

pytestmark = pytest.mark.unit


def changed(place: str, value: Any) -> dict[str, Any]:
    """The rulebook with another value there; `None` takes it away."""
    content = rules_content()
    *groups, name = place.split(".")
    inner = content
    for each in groups:
        inner = inner[each]
    if value is None:
        del inner[name]
    else:
        inner[name] = value
    return content


def test_the_first_rulebook_is_read() -> None:
    found = rules()
    assert set(found.speeds) == set(Speed)
    assert (found.speeds[Speed.SLOW].target_blocks, found.speeds[Speed.FAST].window_s) == (144, 30)
    assert (found.rate.floor, found.rate.ceiling, found.rate.fallback) == (1_000, 500_000, 10_000)
    assert (found.minimum_sat, found.max_outputs, found.deep, found.bump.most) == (1_000, 200, 6, 10)
    assert not found.consolidation.enabled


def test_the_first_rulebook_is_that_of_the_migration() -> None:
    (path,) = (ROOT / "infra/migrations/versions").glob("*_withdrawals.sql")
    text = path.read_text(encoding="utf-8")
    start = text.index('\'{"minimum_sat"') + 1
    assert json.loads(text[start : text.index("}'", start) + 1]) == rules_content()


@pytest.mark.parametrize(
    "place",
    [
        "minimum_sat",
        "speeds",
        "speeds.fast",
        "speeds.slow.count",
        "rate.floor",
        "coins.max_inputs",
        "bump.most",
        "consolidation.enabled",
        "deep",
    ],
)
def test_a_missing_value_is_named(place: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_rules(changed(place, None))
    assert str(refused.value.fields["field"]).endswith(place)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("minimum_sat", 0),
        ("minimum_sat", 1.0),
        ("minimum_sat", True),
        ("minimum_sat", "1000"),
        ("minimum_sat", 2**63),
        ("approval_hours", 0),
        ("approval_hours", 721),
        ("second_operator_above_sat", 9_999_999),
        ("speeds", []),
        ("speeds.fast", 3),
        ("speeds.fast.target_blocks", 1009),
        ("speeds.fast.window_s", -1),
        ("speeds.fast.count", 501),
        ("rate", 1),
        ("rate.floor", 99),
        ("rate.ceiling", 999),
        ("rate.fallback", 999),
        ("rate.fallback", 500_001),
        ("rate.stale_s", 0),
        ("coins.min_depth", 0),
        ("coins.useful_change_sat", 999),
        ("coins.long_term_rate", 10_000_001),
        ("coins.max_inputs", 0),
        ("coins.max_inputs", 1001),
        ("max_outputs", 0),
        ("max_outputs", 501),
        ("deep", 0),
        ("bump.after_blocks", 0),
        ("bump.most", 101),
        ("consolidation.enabled", 1),
        ("consolidation.above_coins", 1),
    ],
)
def test_a_value_out_of_its_bounds_is_named(place: str, value: Any) -> None:
    with pytest.raises(Invalid) as refused:
        parse_rules(changed(place, value))
    assert refused.value.fields["field"] == place


@pytest.mark.parametrize("place", ["more", "speeds.soon", "speeds.fast.more", "rate.more", "coins.x", "bump.x"])
def test_a_name_that_is_not_known_is_named(place: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_rules(changed(place, 1))
    assert str(refused.value.fields["field"]).endswith(place)


def test_a_long_unknown_name_is_cut() -> None:
    with pytest.raises(Invalid) as refused:
        parse_rules(changed("x" * 10_000, 1))
    assert len(str(refused.value.fields["field"])) <= 200
