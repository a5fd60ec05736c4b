"""When a payout pays more, and how much: BIP 125, and a child for both."""

import pytest

from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.bump import bump_fee, child_fee, conflicts_with_all, more_is_due
from engine.domain.withdrawal.coin_choice import Target, choose
from engine.domain.withdrawal.rules import BumpRules
from tests.helpers.withdrawal.candidate import coin, coins

pytestmark = pytest.mark.unit

RULES = BumpRules(after_blocks=3, after_s=3600, most=10)
A, B, C = (Outpoint(txid=Txid(letter * 64), vout=0) for letter in "abc")


@pytest.mark.parametrize(
    ("blocks", "waited_s", "now", "due"),
    [
        (3, 0, 12_000, True),
        (2, 3599, 12_000, False),
        (0, 3600, 12_000, True),
        (9, 9999, 10_999, False),
        (9, 9999, 11_000, True),
        (9, 9999, 1_000, False),
    ],
)
def test_more_is_due_by_time_and_rate(blocks: int, waited_s: int, now: int, due: bool) -> None:  # noqa: FBT001
    found = more_is_due(
        RULES, blocks=blocks, waited_s=waited_s, paid_sat_kvb=10_000, now_sat_kvb=now, incremental=1_000
    )
    assert found is due


def test_a_bump_pays_its_rate_and_never_less_than_a_replacement_must() -> None:
    assert bump_fee(Sat(423), 564, 12_000, 1_000) == 1_692
    assert bump_fee(Sat(423), 564, 3_000, 1_000) == 423 + 141
    assert bump_fee(Sat(423), 1_000, 100, 0) == 423


def test_a_child_pays_for_both_and_at_least_for_itself() -> None:
    """141 virtual bytes at 1 sat, and 110 more, lifted to 20 sat."""
    assert child_fee(Sat(141), 564, 438, 20_000) == 251 * 20 - 141
    assert child_fee(Sat(100_000), 564, 438, 20_000) == 110 * 20


def test_a_version_conflicts_with_every_earlier_one_or_not() -> None:
    assert conflicts_with_all([A, B], [[A], [B, C]])
    assert not conflicts_with_all([A, B], [[A], [C]])
    assert not conflicts_with_all([A], [[]])
    assert conflicts_with_all([A], [])


def bump_target(replaced_sat: int, rate: int, useful_sat: int = 10_000) -> Target:
    """The payment of 50,000 sat from one coin, again."""
    return Target(
        outputs_sat=50_000,
        outputs_weights=(124,),
        change_weight=124,
        change_input_weight=272,
        rate_sat_kvb=rate,
        long_term_rate=min(rate, 10_000),
        useful_change_sat=useful_sat,
        max_inputs=1,
        forced=coins(80_000),
        replaced_fee_sat=replaced_sat,
        incremental_rate=1_000,
    )


def test_a_new_version_keeps_its_inputs_and_takes_the_fee_from_the_change() -> None:
    found = choose([coin(7, 500_000)], bump_target(423, 12_000))
    assert found is not None
    assert found.coins == tuple(coins(80_000))
    assert (found.fee_sat, found.change_sat) == (1_692, 28_308)


def test_a_new_version_pays_what_it_replaces_and_its_own_relay() -> None:
    found = choose([], bump_target(5_000, 3_000))
    assert found is not None
    assert found.fee_sat == 5_000 + 141


def test_a_new_version_that_its_coins_cannot_pay_is_none() -> None:
    assert choose([coin(7, 500_000)], bump_target(30_000, 3_000)) is None
