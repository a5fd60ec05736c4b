"""Limits without a database: the rulebook, what counts, other currencies, and the words of a no."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.ids import ApiKeyId
from engine.domain.limit import WINDOWS, Count, exceeded, key_count, level_counts, parse_limits
from engine.domain.money import Msat, Sat, fiat_text, msat_to_fiat_ceil, parse_fiat
from engine.domain.routing_cap import default_routing_cap, highest_routing_cap, require_max_fee_in_bounds
from engine.ledger.book import MAX_LEG_MSAT

pytestmark = pytest.mark.unit
DAY, WEEK, MONTH = WINDOWS.values()


def entry(**lightning: Any) -> dict[str, Any]:
    return {"levels": {"0": {"lightning": lightning}}}


def test_a_level_without_an_entry_has_that_of_the_nearest_lower_one() -> None:
    book = parse_limits(
        {"levels": {"1": {"internal": {"day_sat": 10}}, "3": {"internal": {"day_sat": 30}}, "5": {"lightning": {}}}}
    )
    amounts = [[limit.amount for limit in book.of_level(level)] for level in range(7)]
    assert amounts == [[], [10_000], [10_000], [30_000], [30_000], [], []]


def test_no_rules_are_no_limits() -> None:
    contents: list[dict[str, Any]] = [{}, {"levels": {}}, {"levels": {"0": {}}}, {"levels": {"0": {"internal": {}}}}]
    for content in contents:
        assert parse_limits(content).of_level(9) == parse_limits(content).of_level(0)
        assert level_counts(parse_limits(content), 0, "internal", Msat(5), {}) == [Count("internal", 5, {})]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"level": {}}, "content.level"),
        ({"levels": []}, "levels"),
        ({"levels": {"10": {}}}, "levels.10"),
        ({"levels": {"01": {}}}, "levels.01"),
        ({"levels": {"-1": {}}}, "levels.-1"),
        ({"levels": {"0": {"onchain": {}}}}, "levels.0.onchain"),
        ({"levels": {"0": None}}, "levels.0"),
        (entry(hour_sat=1), "levels.0.lightning.hour_sat"),
        (entry(day_msat=1), "levels.0.lightning.day_msat"),
        (entry(day_sat=-1), "levels.0.lightning.day_sat"),
        (entry(day_sat=True), "levels.0.lightning.day_sat"),
        (entry(day_sat="1"), "levels.0.lightning.day_sat"),
        (entry(day_sat=1.0), "levels.0.lightning.day_sat"),
        (entry(day_sat=None), "levels.0.lightning.day_sat"),
        (entry(day_sat=2**53), "levels.0.lightning.day_sat"),
        (entry(day=5), "levels.0.lightning.day"),
        (entry(day={"usd": "1"}), "levels.0.lightning.day.usd"),
        (entry(day={"BTC": "1"}), "levels.0.lightning.day.BTC"),
        (entry(day={"DOLLAR": "1"}), "levels.0.lightning.day.DOLLAR"),
        (entry(day={"USD": 1000}), "levels.0.lightning.day.USD"),
        (entry(day={"USD": "-1"}), "levels.0.lightning.day.USD"),
        (entry(day={"USD": "1e3"}), "levels.0.lightning.day.USD"),
        (entry(day={"USD": "1.0000001"}), "levels.0.lightning.day.USD"),
        (entry(day={"USD": "NaN"}), "levels.0.lightning.day.USD"),
        *(({"max_fee_factor": factor}, "max_fee_factor") for factor in (0, -1, 1_001, 1.5, True, "20", None)),
        (entry(day_sat=2, week_sat=1), "levels.0.lightning"),
        (entry(day={"USD": "2"}, month={"USD": "1"}), "levels.0.lightning"),
    ],
    ids=str,
)
def test_an_error_in_a_rulebook_is_named_by_its_place(content: dict[str, Any], place: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_limits(content)
    assert refused.value.fields["field"] == place
    assert refused.value.detail.startswith(place)


def test_a_payment_counts_once_in_msat_and_once_per_currency() -> None:
    book = parse_limits(entry(day_sat=5, month_sat=90, day={"USD": "10"}, week={"EUR": "7.5", "USD": "20"}))
    assert book.currencies(0, "lightning") == {"EUR", "USD"}
    assert book.currencies(0, "internal") == set()
    prices = {"USD": 100_000 * 10**6, "EUR": 90_000 * 10**6, "CHF": 1}
    assert level_counts(book, 0, "lightning", Msat(1_000), prices) == [
        Count("lightning", 1_000, {DAY: 5_000, MONTH: 90_000}),
        Count("lightning:EUR", 900, {WEEK: 7_500_000}),
        Count("lightning:USD", 1_000, {DAY: 10_000_000, WEEK: 20_000_000}),
    ]
    assert level_counts(book, 0, "internal", Msat(1_000), {}) == [Count("internal", 1_000, {})]


def test_a_keys_cap_counts_all_that_a_payment_takes() -> None:
    assert key_count(ApiKeyId("key_1"), {"day": Sat(7)}, Msat(6_001)) == Count("api_key:key_1", 6_001, {DAY: 7_000})


@given(st.integers(1, 2**54), st.integers(1, 2**63 - 1))
def test_every_amount_at_every_price_is_a_count_that_the_ledger_takes(total: int, price: int) -> None:
    """And what is beyond every limit that can be set stays beyond it."""
    highest = parse_fiat("9" * 12 + ".999999")
    assert highest is not None
    book = parse_limits(entry(day={"KRW": fiat_text(highest)}))
    _msat, krw = level_counts(book, 0, "lightning", Msat(total), {"KRW": price})
    assert 0 < krw.amount <= MAX_LEG_MSAT
    assert (krw.amount > highest) == (msat_to_fiat_ceil(Msat(total), price) > highest)


@pytest.mark.parametrize("factor", [1, 20, 1_000])
@pytest.mark.parametrize(("amount", "usual"), [(1, 5_000), (500_000, 5_000), (10**9, 10**7), (2**53 - 1, 9 * 10**13)])
def test_a_cap_may_be_so_many_times_the_usual_one_and_our_fee_more(factor: int, amount: int, usual: int) -> None:
    book = parse_limits({"max_fee_factor": factor})
    highest = highest_routing_cap(Msat(amount), book.max_fee_factor)
    assert highest == factor * default_routing_cap(Msat(amount)) >= factor * usual
    require_max_fee_in_bounds(Msat(amount), highest, factor)
    require_max_fee_in_bounds(Msat(amount), Msat(highest + 7), factor, Msat(7))
    for cap, ours in ((highest + 1, 0), (highest + 8, 7)):
        with pytest.raises(Invalid) as refused:
            require_max_fee_in_bounds(Msat(amount), Msat(cap), factor, Msat(ours))
        assert refused.value.code == "max_fee_too_high"
        assert refused.value.fields == {"max_fee_msat": cap, "highest_msat": highest + ours}


def test_a_rulebook_that_names_no_factor_has_the_usual_one() -> None:
    assert parse_limits({}).max_fee_factor == 20


@given(st.integers(1, 2**53), st.decimals("0.000001", 10**9, places=6))
def test_an_amount_in_another_currency_is_rounded_up_to_the_next_millionth(amount_msat: int, price: Decimal) -> None:
    price_micro = parse_fiat(f"{price:f}")
    assert price_micro is not None
    assert msat_to_fiat_ceil(Msat(amount_msat), price_micro) == math.ceil(Fraction(amount_msat * price_micro, 10**11))


@given(st.integers(0, 10**18 - 1))
def test_amounts_in_other_currencies_are_written_as_they_are_read(micro: int) -> None:
    assert parse_fiat(fiat_text(micro)) == micro


@pytest.mark.parametrize(
    ("text", "micro"), [("0", 0), ("1000.00", 10**9), ("0.000001", 1), ("64250.1", 64_250_100_000)]
)
def test_amounts_in_other_currencies(text: str, micro: int) -> None:
    assert parse_fiat(text) == micro


@pytest.mark.parametrize("text", ["", ".5", "5.", "+1", "1,5", " 1", "1 ", "٣", "1" * 13, "0.0000001", "1_000"])
def test_an_impossible_amount_is_refused(text: str) -> None:
    assert parse_fiat(text) is None


def test_the_books_no_is_said_in_the_callers_words() -> None:
    facts = {"account_id": 7, "window_s": WEEK, "limit": 5_000_000, "used": 4_000_000, "asked": 1_000_001}
    code, _, fields = exceeded({**facts, "kind": "lightning"})
    in_msat = {"limit_msat": 5_000_000, "used_msat": 4_000_000, "asked_msat": 1_000_001}
    assert (code, fields) == ("limit_exceeded", {"kind": "lightning", "window": "week", **in_msat})
    code, _, fields = exceeded({**facts, "kind": "api_key:key_1"})
    assert (code, fields) == ("spend_limit_exceeded", {"kind": "api_key", "window": "week", **in_msat})
    code, detail, fields = exceeded({**facts, "kind": "internal:USD"})
    in_usd = {"limit": "5.00", "used": "4.00", "asked": "1.000001", "currency": "USD"}
    assert (code, fields) == ("limit_exceeded", {"kind": "internal", "window": "week", **in_usd})
    assert "5.00 USD" in detail
    code, detail, fields = exceeded({**facts, "kind": "deposit"})
    assert (code, fields) == ("limit_exceeded", {"kind": "deposit", "window": "week", **in_msat})
    assert detail == (
        "At most 5,000,000 msat of deposits a week; 4,000,000 have come in, and this deposit brings 1,000,001."
    )
    assert exceeded({**facts, "kind": "deposit:USD"})[1].startswith("At most 5.00 USD of deposits a week; 4.00 have")
    with pytest.raises(InvariantBroken):
        exceeded({**facts, "kind": "internal", "window_s": 60})
