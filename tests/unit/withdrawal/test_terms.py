"""What a withdrawal holds and may cost: the worked examples."""

from typing import Any

import pytest

from engine.domain.errors import EngineError
from engine.domain.money import MAX_AMOUNT_MSAT, Msat, Sat
from engine.domain.withdrawal.terms import (
    OnChain,
    Terms,
    Wish,
    in_the_books,
    least_coins_sat,
    on_chain,
    require_bounds,
    require_size,
)

pytestmark = pytest.mark.unit

OUTPUT = OnChain(dust_sat=Sat(294), least_share_sat=Sat(31), fee_cap_sat=Sat(5_000))


def wish(amount_sat: int = 100_000, **changed: Any) -> Wish:
    known: dict[str, Any] = {
        "amount_sat": Sat(amount_sat),
        "balance_msat": None,
        "fee_from": "balance",
        "max_fee_sat": None,
        "fee_msat": Msat(200_000),
    }
    return Wish(**known | changed)


def code_of(asked: Wish, output: OnChain | None = OUTPUT) -> str:
    try:
        in_the_books(asked) if output is None else on_chain(asked, output)
    except EngineError as refused:
        return refused.code
    return "accepted"


def test_fees_on_top_are_held_beside_the_amount() -> None:
    by_estimate = Terms(max_fee_sat=Sat(5_200), held_msat=Msat(105_200_000), service_fee_msat=Msat(200_000))
    assert on_chain(wish(), OUTPUT) == by_estimate
    by_cap = Terms(max_fee_sat=Sat(231), held_msat=Msat(100_231_000), service_fee_msat=Msat(200_000))
    assert on_chain(wish(max_fee_sat=Sat(231)), OUTPUT) == by_cap


def test_fees_out_of_the_amount_hold_the_amount() -> None:
    expected = Terms(max_fee_sat=Sat(5_200), held_msat=Msat(100_000_000), service_fee_msat=Msat(200_000))
    assert on_chain(wish(fee_from="amount"), OUTPUT) == expected


@pytest.mark.parametrize("fee_from", ["balance", "amount"])
def test_the_part_below_one_satoshi_of_all_there_is_is_our_fee_too(fee_from: str) -> None:
    asked = wish(balance_msat=Msat(100_000_999), fee_from=fee_from)
    expected = Terms(max_fee_sat=Sat(5_200), held_msat=Msat(100_000_999), service_fee_msat=Msat(200_999))
    assert on_chain(asked, OUTPUT) == expected


def test_a_cap_below_our_fee_and_the_least_share_is_refused() -> None:
    assert code_of(wish(max_fee_sat=Sat(230))) == "fee_limit_exceeded"
    assert code_of(wish(max_fee_sat=Sat(0), fee_from="amount")) == "fee_limit_exceeded"


def test_an_amount_that_the_fees_eat_is_refused() -> None:
    assert code_of(wish(200 + 31 + 293, fee_from="amount")) == "amount_too_small"
    assert on_chain(wish(200 + 31 + 294, fee_from="amount"), OUTPUT).held_msat == 525_000


def test_the_bounds_of_the_amount() -> None:
    require_size(Sat(1_000), minimum_sat=Sat(1_000), dust_sat=Sat(294))
    for amount, code in ((293, "dust_amount"), (294, "amount_too_small"), (999, "amount_too_small")):
        with pytest.raises(EngineError) as refused:
            require_size(Sat(amount), minimum_sat=Sat(1_000), dust_sat=Sat(294))
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("amount", "max_fee", "cap"),
    [(0, None, 0), (-1, None, 0), (2**63, None, 0), (MAX_AMOUNT_MSAT, None, 0), (1, -1, 0), (1, 2**63, 0), (1, 1, -1)],
)
def test_an_amount_that_no_wallet_can_hold_is_refused(amount: int, max_fee: int | None, cap: int) -> None:
    with pytest.raises(EngineError) as refused:
        require_bounds(
            amount_sat=Sat(amount), max_fee_sat=None if max_fee is None else Sat(max_fee), fee_cap_sat=Sat(cap)
        )
    assert refused.value.code == "invalid_request"


def test_a_user_of_ours_is_paid_without_a_share() -> None:
    on_top = in_the_books(wish(fee_msat=Msat(1_500)))
    assert (on_top.held_msat, on_top.paid_sat, on_top.service_fee_msat) == (100_001_500, 100_000, 1_500)
    out_of_it = in_the_books(wish(fee_msat=Msat(1_500), fee_from="amount"))
    assert (out_of_it.held_msat, out_of_it.paid_sat, out_of_it.service_fee_msat) == (100_000_000, 99_998, 2_000)
    everything = in_the_books(wish(fee_msat=Msat(1_500), balance_msat=Msat(100_000_999)))
    assert (everything.held_msat, everything.paid_sat, everything.service_fee_msat) == (100_000_999, 99_999, 1_999)
    assert code_of(wish(fee_msat=Msat(1_500), max_fee_sat=Sat(1)), None) == "fee_limit_exceeded"
    assert code_of(wish(1, fee_msat=Msat(1_000), fee_from="amount"), None) == "amount_too_small"


def test_a_payout_needs_coins_for_output_and_least_share() -> None:
    assert least_coins_sat(wish(), OUTPUT) == 100_031
    assert least_coins_sat(wish(fee_from="amount"), OUTPUT) == 99_800
