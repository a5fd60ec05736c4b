"""The fee rate of a payout: fresh, bounded, and never below what the node relays."""

from datetime import UTC, datetime, timedelta

import pytest

from engine.domain.withdrawal.fee_rate import Estimate, Rate, choose_rate
from engine.domain.withdrawal.rules import RateRules

pytestmark = pytest.mark.unit

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RULES = RateRules(floor=1_000, ceiling=100_000, fallback=10_000, stale_s=3_600)


def chosen(rate: int | None, *, node_floor: int = 1_000, age_s: int | None = 0) -> Rate:
    at = None if age_s is None else NOW - timedelta(seconds=age_s)
    estimate = Estimate(rate_sat_kvb=rate, source="node", at=at)
    return choose_rate(estimate, node_floor=node_floor, rules=RULES, now=NOW)


@pytest.mark.parametrize(
    ("estimate", "node_floor", "rate", "bounded_by"),
    [
        (5_000, 1_000, 5_000, None),
        (1_000, 1_000, 1_000, None),
        (999, 0, 1_000, "floor"),
        (100_000, 1_000, 100_000, None),
        (2**63, 1_000, 100_000, "ceiling"),
        (5_000, 5_001, 5_001, "node"),
        (500, 2_000, 2_000, "node"),
        (5_000, 200_000, 200_000, "node"),
        (300_000, 200_000, 200_000, "node"),
    ],
)
def test_an_estimate_stays_within_its_bounds(estimate: int, node_floor: int, rate: int, bounded_by: str | None) -> None:
    found = chosen(estimate, node_floor=node_floor)
    assert (found.rate_sat_kvb, found.bounded_by) == (rate, bounded_by)
    assert (found.source, found.at) == ("node", NOW)


@pytest.mark.parametrize("missing", [None, 0, -1])
def test_a_missing_estimate_gives_the_fallback_and_says_so(missing: int | None) -> None:
    found = chosen(missing)
    assert (found.rate_sat_kvb, found.bounded_by, found.at) == (10_000, None, None)
    assert found.source == "fallback: no estimate of node"
    assert chosen(missing, node_floor=20_000).bounded_by == "node"


def test_a_stale_estimate_gives_the_fallback_and_says_so() -> None:
    assert chosen(5_000, age_s=3_600).rate_sat_kvb == 5_000
    found = chosen(5_000, age_s=3_601)
    assert (found.rate_sat_kvb, found.source) == (10_000, "fallback: the estimate of node is stale")


def test_a_fixed_rate_does_not_age() -> None:
    assert chosen(5_000, age_s=None).rate_sat_kvb == 5_000
