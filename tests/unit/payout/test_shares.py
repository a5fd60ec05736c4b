"""A miner fee is shared to the satoshi, and weighs what its transaction weighs."""

import pytest

from engine.domain.errors import InvariantBroken
from engine.domain.money import Sat
from engine.domain.withdrawal.share import split
from engine.domain.withdrawal.weight import fee_sat, rate_paid, transaction_weight, virtual_bytes

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (100, [124, 124, 172], [30, 29, 41]),
        (10, [1, 1, 1], [4, 3, 3]),
        (2, [172, 124, 172], [1, 0, 1]),
        (0, [124, 172], [0, 0]),
        (0, [], []),
        (7, [0, 5], [0, 7]),
        (1, [124], [1]),
    ],
)
def test_a_fee_is_shared_by_weight_and_largest_remainder(total: int, weights: list[int], parts: list[int]) -> None:
    assert split(Sat(total), weights) == parts


@pytest.mark.parametrize(("total", "weights"), [(1, []), (1, [0]), (-1, [1]), (5, [3, -1])])
def test_a_fee_without_anybody_to_share_it_is_an_error_of_ours(total: int, weights: list[int]) -> None:
    with pytest.raises(InvariantBroken):
        split(Sat(total), weights)


def test_a_lone_payment_weighs_what_everybody_knows() -> None:
    """One p2wpkh input, two p2wpkh outputs: 141 virtual bytes, with a signature of 72 bytes."""
    weight = transaction_weight([272], [124, 124])
    assert weight == 562
    assert virtual_bytes(weight) == 141
    assert fee_sat(weight, 3_000) == 423
    assert fee_sat(weight, 1_001) == 142
    assert rate_paid(Sat(423), weight) == 3_000


def test_counts_above_252_take_two_bytes_more() -> None:
    inputs = [272] * 253
    assert transaction_weight(inputs, [124]) - transaction_weight(inputs[1:], [124]) == 272 + 4 * 2
