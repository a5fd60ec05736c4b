"""The fee rate of a payout: an estimate, bounded by rule and by what the node relays, and where it came from.

estimate                  rate
fresh                     the estimate
stale, or none            the fallback of the rulebook; the source says so
below the floor           the floor
above the ceiling         the ceiling
below what is relayed     the node's own minimum, be it above the ceiling: less would never leave the node
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from engine.domain.withdrawal.rules import RateRules

Bound = Literal["floor", "ceiling", "node"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a source of fee rates says for one target."""

    rate_sat_kvb: int | None
    """None: it has none."""
    source: str
    at: datetime | None
    """When it was made. None: it does not age, as a fixed rate."""
    detail: str = ""
    """For people; text of the node is made harmless before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The rate to pay, and why it is this one."""

    rate_sat_kvb: int
    source: str
    at: datetime | None
    bounded_by: Bound | None = None
    is_fallback: bool = False
    """There was no estimate that counts: the rulebook's own rate stands in for it."""


def choose_rate(estimate: Estimate, *, node_floor: int, rules: RateRules, now: datetime) -> Rate:
    """The rate for an estimate. `node_floor` is the highest of the node's minima, in sat per 1,000 vB."""
    found, source, at = estimate.rate_sat_kvb, estimate.source, estimate.at
    is_fallback = False
    if found is None or found <= 0:
        is_fallback = True
        found, source, at = rules.fallback, f"fallback: no estimate of {estimate.source}", None
    elif at is not None and now - at > timedelta(seconds=rules.stale_s):
        is_fallback = True
        found, source, at = rules.fallback, f"fallback: the estimate of {estimate.source} is stale", None
    rate, bounded_by = bounded(found, node_floor=node_floor, rules=rules)
    return Rate(rate_sat_kvb=rate, source=source, at=at, bounded_by=bounded_by, is_fallback=is_fallback)


def bounded(rate_sat_kvb: int, *, node_floor: int, rules: RateRules) -> tuple[int, Bound | None]:
    """The rate within its bounds, and which one it met. What the node relays is the last word."""
    found = min(max(rate_sat_kvb, rules.floor), rules.ceiling)
    if found < node_floor:
        return node_floor, "node"
    if found == rate_sat_kvb:
        return found, None
    return found, "floor" if found > rate_sat_kvb else "ceiling"
