"""When coins are joined by rule, and which of them."""

from datetime import UTC, datetime

import pytest

from engine.domain.withdrawal.coin_choice import Candidate
from engine.domain.withdrawal.consolidation import is_due, plan_consolidation
from engine.domain.withdrawal.fee_rate import Estimate, Rate, choose_rate
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.script import output_script
from tests.helpers.address.pool import address_of
from tests.helpers.withdrawal.candidate import coin, held_sat
from tests.helpers.withdrawal.rules import rules

CHANGE = output_script(address_of(1))
POOL = [coin(number, 3_000 + number) for number in range(40)]


def on(*, below: int = 3_000, above: int = 10, **more: int) -> WithdrawalRules:
    return rules(consolidation__enabled=True, consolidation__below_rate=below, consolidation__above_coins=above, **more)


def rate(rate_sat_kvb: int, *, is_fallback: bool = False) -> Rate:
    return Rate(rate_sat_kvb=rate_sat_kvb, source="bitcoind", at=None, is_fallback=is_fallback)


@pytest.mark.parametrize(
    ("paid", "many", "by", "due"),
    [
        (rate(3_000), 11, on(), "due"),
        (rate(3_001), 11, on(), "not"),
        (rate(3_000), 10, on(), "not"),
        (rate(1_000, is_fallback=True), 11, on(), "not"),
        (rate(1_000), 1_000, rules(), "not"),
    ],
)
def test_coins_are_joined_while_fees_are_low_and_there_are_many(
    paid: Rate, many: int, by: WithdrawalRules, due: str
) -> None:
    assert is_due(paid, many, by) is (due == "due")


@pytest.mark.parametrize("estimate", [None, 0, -1])
def test_a_rate_without_an_estimate_is_a_fallback(estimate: int | None) -> None:
    given = Estimate(rate_sat_kvb=estimate, source="bitcoind", at=None)
    assert choose_rate(given, node_floor=1_000, rules=rules().rate, now=datetime.now(UTC)).is_fallback


def test_a_stale_estimate_is_a_fallback_and_a_fresh_one_is_none() -> None:
    now = datetime(2026, 12, 1, 12, tzinfo=UTC)
    stale = Estimate(rate_sat_kvb=2_000, source="bitcoind", at=datetime(2026, 12, 1, 10, tzinfo=UTC))
    fresh = Estimate(rate_sat_kvb=2_000, source="bitcoind", at=now)
    assert choose_rate(stale, node_floor=1_000, rules=rules().rate, now=now).is_fallback
    assert not choose_rate(fresh, node_floor=1_000, rules=rules().rate, now=now).is_fallback


def test_the_smallest_coins_beyond_those_that_stay_free_are_joined() -> None:
    found = plan_consolidation(POOL, (), 1_000, on(above=15), CHANGE)
    assert found is not None
    assert {each.outpoint for each in found.coins} == {each.outpoint for each in POOL[:26]}
    assert held_sat(found.coins) == found.fee_sat + found.change_sat
    assert len(POOL) - len(found.coins) + 1 == 15


def test_no_more_coins_are_joined_than_a_transaction_may_spend() -> None:
    found = plan_consolidation(POOL, (), 1_000, on(coins__max_inputs=7), CHANGE)
    assert found is not None
    assert len(found.coins) == 7


@pytest.mark.parametrize(("pool", "paid"), [(POOL, 20_000), (POOL[:1], 1_000), ([], 1_000)])
def test_nothing_is_joined_where_it_does_not_pay(pool: list[Candidate], paid: int) -> None:
    assert plan_consolidation(pool, (), paid, on(above=2), CHANGE) is None


def test_coins_of_the_house_and_of_customers_are_not_joined_with_each_other() -> None:
    of_customers = {each.outpoint for each in POOL[::3]}
    found = plan_consolidation(POOL, of_customers, 1_000, on(), CHANGE)
    assert found is not None
    assert {each.outpoint in of_customers for each in found.coins} == {False}, "there are more of the house's"
    found = plan_consolidation(POOL, {each.outpoint for each in POOL[5:]}, 1_000, on(), CHANGE)
    assert found is not None
    assert {each.outpoint for each in found.coins} <= {each.outpoint for each in POOL[5:]}


def test_coins_of_unknown_origin_are_left_alone_and_stay_free() -> None:
    unknown = {each.outpoint for each in POOL[:12]}
    found = plan_consolidation(POOL, (), 1_000, on(above=30), CHANGE, unknown=unknown)
    assert found is not None
    assert {each.outpoint for each in found.coins} == {each.outpoint for each in POOL[12:23]}
    assert len(POOL) - len(found.coins) + 1 == 30
