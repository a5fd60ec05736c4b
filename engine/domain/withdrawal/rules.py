"""The rulebook "withdrawals": minimum, approval, windows of the batchers, fee rates, coins and bumps.

    {"minimum_sat": 1000,
     "approval_above_sat": 10000000, "second_operator_above_sat": 100000000, "approval_hours": 24,
     "speeds": {"fast": {"target_blocks": 2, "window_s": 30, "count": 100}, "standard": …, "slow": …},
     "rate": {"floor": 1000, "ceiling": 500000, "fallback": 10000, "stale_s": 3600},
     "coins": {"min_depth": 1, "useful_change_sat": 10000, "long_term_rate": 10000, "max_inputs": 200},
     "max_outputs": 200, "deep": 6,
     "bump": {"after_blocks": 3, "after_s": 3600, "most": 10},
     "consolidation": {"enabled": false, "below_rate": 3000, "above_coins": 500}}

Rates are whole satoshi per 1,000 virtual bytes, as nodes count them; 1,000 is one sat/vB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.domain.errors import Invalid
from engine.domain.money import MAX_AMOUNT_MSAT, Sat, msat_to_sat_floor
from engine.domain.rulebook_content import check_names, read_object, read_whole, wrong
from engine.domain.withdrawal.withdrawal import Speed

_MAX_SAT = msat_to_sat_floor(MAX_AMOUNT_MSAT)
_MAX_RATE = 10_000_000
_DAY_S = 86_400
_MOST_MEMBERS = 500
"""One posting settles them all; see `engine.ledger.book.MAX_RELATED`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRules:
    """The batcher of one speed."""

    target_blocks: int
    window_s: int
    """So long the first waits for others."""
    count: int
    """With so many it does not wait any longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRules:
    """Bounds of the fee rate, and what to do without an estimate."""

    floor: int
    ceiling: int
    fallback: int
    stale_s: int
    """An older estimate does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinRules:
    """Which coins may be chosen, and what is a good choice."""

    min_depth: int
    useful_change_sat: Sat
    long_term_rate: int
    """What an input is expected to cost later: below this rate it pays to spend more of them."""
    max_inputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BumpRules:
    """When a payout that no block takes pays more by itself. The added fee is ours."""

    after_blocks: int
    after_s: int
    most: int
    """So many bumps by rule; further ones are an operator's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationRules:
    """When small coins are joined."""

    enabled: bool
    below_rate: int
    above_coins: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRules:
    """A version of the rulebook, read."""

    minimum_sat: Sat
    approval_above_sat: Sat
    second_operator_above_sat: Sat
    approval_hours: int
    speeds: Mapping[Speed, SpeedRules]
    rate: RateRules
    coins: CoinRules
    max_outputs: int
    deep: int
    bump: BumpRules
    consolidation: ConsolidationRules


def parse_rules(content: Mapping[str, Any]) -> WithdrawalRules:
    """Read a rulebook's content. Raises Invalid, naming the place. Everything must be given."""
    _require_names(content, WithdrawalRules.__slots__, "content")
    speeds = read_object(content["speeds"], "speeds")
    _require_names(speeds, [each.value for each in Speed], "speeds")
    rules = WithdrawalRules(
        minimum_sat=Sat(read_whole(content["minimum_sat"], "minimum_sat", 1, _MAX_SAT, "satoshi")),
        approval_above_sat=Sat(read_whole(content["approval_above_sat"], "approval_above_sat", 0, _MAX_SAT, "satoshi")),
        second_operator_above_sat=Sat(
            read_whole(content["second_operator_above_sat"], "second_operator_above_sat", 0, _MAX_SAT, "satoshi")
        ),
        approval_hours=read_whole(content["approval_hours"], "approval_hours", 1, 720),
        speeds={each: _read_speed(speeds[each], f"speeds.{each}") for each in Speed},
        rate=_read_rate(content["rate"]),
        coins=_read_coins(content["coins"]),
        max_outputs=read_whole(content["max_outputs"], "max_outputs", 1, _MOST_MEMBERS),
        deep=read_whole(content["deep"], "deep", 1, 1000),
        bump=_read_bump(content["bump"]),
        consolidation=_read_consolidation(content["consolidation"]),
    )
    if rules.second_operator_above_sat < rules.approval_above_sat:
        raise wrong("second_operator_above_sat", "must not be below approval_above_sat")
    return rules


def _read_speed(value: object, place: str) -> SpeedRules:
    given = read_object(value, place)
    _require_names(given, SpeedRules.__slots__, place)
    return SpeedRules(
        target_blocks=read_whole(given["target_blocks"], f"{place}.target_blocks", 1, 1008),
        window_s=read_whole(given["window_s"], f"{place}.window_s", 0, _DAY_S, "seconds"),
        count=read_whole(given["count"], f"{place}.count", 1, _MOST_MEMBERS),
    )


def _read_rate(value: object) -> RateRules:
    given = read_object(value, "rate")
    _require_names(given, RateRules.__slots__, "rate")
    floor = read_whole(given["floor"], "rate.floor", 100, _MAX_RATE)
    ceiling = read_whole(given["ceiling"], "rate.ceiling", floor, _MAX_RATE)
    return RateRules(
        floor=floor,
        ceiling=ceiling,
        fallback=read_whole(given["fallback"], "rate.fallback", floor, ceiling),
        stale_s=read_whole(given["stale_s"], "rate.stale_s", 1, 30 * _DAY_S, "seconds"),
    )


def _read_coins(value: object) -> CoinRules:
    given = read_object(value, "coins")
    _require_names(given, CoinRules.__slots__, "coins")
    return CoinRules(
        min_depth=read_whole(given["min_depth"], "coins.min_depth", 1, 1000),
        useful_change_sat=Sat(read_whole(given["useful_change_sat"], "coins.useful_change_sat", 1000, _MAX_SAT)),
        long_term_rate=read_whole(given["long_term_rate"], "coins.long_term_rate", 100, _MAX_RATE),
        max_inputs=read_whole(given["max_inputs"], "coins.max_inputs", 1, 1000),
    )


def _read_bump(value: object) -> BumpRules:
    given = read_object(value, "bump")
    _require_names(given, BumpRules.__slots__, "bump")
    return BumpRules(
        after_blocks=read_whole(given["after_blocks"], "bump.after_blocks", 1, 1008),
        after_s=read_whole(given["after_s"], "bump.after_s", 1, 30 * _DAY_S, "seconds"),
        most=read_whole(given["most"], "bump.most", 0, 100),
    )


def _read_consolidation(value: object) -> ConsolidationRules:
    given = read_object(value, "consolidation")
    _require_names(given, ConsolidationRules.__slots__, "consolidation")
    if type(given["enabled"]) is not bool:
        raise wrong("consolidation.enabled", "must be true or false")
    return ConsolidationRules(
        enabled=given["enabled"],
        below_rate=read_whole(given["below_rate"], "consolidation.below_rate", 100, _MAX_RATE),
        above_coins=read_whole(given["above_coins"], "consolidation.above_coins", 2, 1_000_000),
    )


def _require_names(given: Mapping[str, Any], known: Any, place: str) -> None:  # noqa: ANN401 - names
    """Exactly these names."""
    check_names(given, set(known), place)
    for name in known:
        if name not in given:
            raise Invalid(f"{place}.{name} is missing.", field=f"{place}.{name}")
