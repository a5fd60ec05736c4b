"""Coin choice against brute force: none is cheaper, none is missed, and none breaks a bound."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.money import Sat
from engine.domain.withdrawal.coin_choice import COST_PER_SAT, Candidate, Choice, Target, choose, cost
from tests.helpers.withdrawal.candidate import coin, held_sat

pytestmark = pytest.mark.property

AMOUNTS = st.integers(1, 3_000) | st.integers(1, 60_000) | st.integers(1, 10**9)
WEIGHTS = st.sampled_from([272, 272, 272, 230, 364, 593])
KINDS = st.sampled_from(["one", "many"])
RATES = st.sampled_from([1_000, 1_001, 3_000, 9_999, 10_000, 25_000, 300_000])


@st.composite
def pools(draw: st.DrawFn, least: int, most: int) -> list[Candidate]:
    """Coins of one kind of script, or of several; some amounts come more than once."""
    one = draw(KINDS) == "one"
    amounts = draw(st.lists(AMOUNTS, min_size=least, max_size=most))
    return [coin(number, amount, 272 if one else draw(WEIGHTS)) for number, amount in enumerate(amounts)]


@st.composite
def targets(draw: st.DrawFn, pool: Sequence[Candidate], *, outputs_least: int = 0) -> Target:
    """Something that the pool may pay, just so or not at all."""
    outputs = draw(st.lists(st.sampled_from([124, 136, 172]), min_size=outputs_least, max_size=4))
    share = draw(st.integers(0, 110))
    replaced_sat = draw(st.just(0) | st.integers(0, 5_000))
    return Target(
        outputs_sat=max(0, held_sat(pool) * share // 100 - draw(st.integers(0, 20_000))) if outputs else 0,
        outputs_weights=tuple(outputs),
        change_weight=124,
        change_input_weight=272,
        rate_sat_kvb=draw(RATES),
        long_term_rate=draw(RATES),
        useful_change_sat=draw(st.sampled_from([1_000, 10_000])),
        max_inputs=draw(st.integers(1, 11)),
        forced=tuple(pool[: draw(st.sampled_from([0, 0, 0, 1, 2]))]),
        replaced_fee_sat=replaced_sat,
        incremental_rate=draw(st.sampled_from([0, 1_000])),
    )


def priced(chosen: Sequence[Candidate], target: Target) -> Iterator[Choice]:
    """By hand: the set without change, and with it, where that is right."""
    for has_change in (False, True):
        outputs = [*target.outputs_weights, *([target.change_weight] if has_change else [])]
        weight = 4 * (4 + 1 + 1 + 4) + 2 + sum(each.weight for each in chosen) + sum(outputs)
        vbytes = ceil(weight / 4)
        fee = -(-target.rate_sat_kvb * vbytes // 1000)
        if target.replaced_fee_sat:
            fee = max(fee, target.replaced_fee_sat + -(-target.incremental_rate * vbytes // 1000))
        over = held_sat(chosen) - target.outputs_sat - fee
        if chosen and outputs and over >= (target.useful_change_sat if has_change else 0):
            yield Choice(tuple(chosen), Sat(fee if has_change else fee + over), Sat(over if has_change else 0), weight)


def lost(choice: Choice, target: Target) -> int:
    """What the wallet is worth less, beyond what it pays: each coin by what is left of it at the long-term rate."""

    def worth(amount_sat: int, weight: int) -> int:
        return max(0, COST_PER_SAT * amount_sat - target.long_term_rate * weight)

    spent = sum(worth(each.amount_sat, each.weight) for each in choice.coins) - COST_PER_SAT * target.outputs_sat
    if not choice.change_sat:
        return spent
    return spent - COST_PER_SAT * choice.change_sat + target.long_term_rate * target.change_input_weight


def brute_force(pool: Sequence[Candidate], target: Target) -> Choice | None:
    free = [each for each in pool if each not in target.forced]
    room = max(0, target.max_inputs - len(target.forced))
    sets = (each for size in range(min(room, len(free)) + 1) for each in combinations(free, size))
    every = [choice for each in sets for choice in priced([*target.forced, *each], target)]
    return min(every, key=lambda choice: lost(choice, target), default=None)


def check(choice: Choice, pool: Sequence[Candidate], target: Target) -> None:
    """Every bound that a choice keeps."""
    assert held_sat(choice.coins) == target.outputs_sat + choice.fee_sat + choice.change_sat
    assert choice in [each for each in priced(choice.coins, target) if each.change_sat == choice.change_sat]
    assert choice.change_sat == 0 or choice.change_sat >= target.useful_change_sat
    assert len(set(choice.coins)) == len(choice.coins) <= max(target.max_inputs, len(target.forced))
    assert choice.coins[: len(target.forced)] == target.forced
    assert set(choice.coins) <= {*pool, *target.forced}
    assert cost(choice, target) == lost(choice, target)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_choice_of_few_coins_is_cheaper_and_none_is_missed(data: st.DataObject) -> None:
    pool = data.draw(pools(0, 8))
    target = data.draw(targets(pool))
    found, best = choose(pool, target), brute_force(pool, target)
    assert (found is None) == (best is None)
    if found is not None and best is not None:
        check(found, pool, target)
        assert cost(found, target) == lost(best, target)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_choice_of_many_coins_is_found_whenever_there_is_one(data: st.DataObject) -> None:
    """Of one kind of script: with several, rounding to whole virtual bytes may hide one."""
    pool = [coin(number, each) for number, each in enumerate(data.draw(st.lists(AMOUNTS, min_size=13, max_size=14)))]
    target = data.draw(targets(pool))
    found, best = choose(pool, target), brute_force(pool, target)
    assert (found is None) == (best is None)
    if found is not None:
        check(found, pool, target)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_choice_of_many_coins_of_many_kinds_keeps_its_bounds(data: st.DataObject) -> None:
    pool = data.draw(pools(13, 60))
    target = data.draw(targets(pool, outputs_least=1))
    found = choose(pool, target)
    assert found == choose(pool, target)
    if found is not None:
        check(found, pool, target)
