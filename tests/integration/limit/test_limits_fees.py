"""What may be paid beside an amount counts with it: routing cap and our fee, towards a level's limits and a key's cap.

Seen before: with a limit of 100 sat a day 50,000 sat left as a fee, and a key that might spend 10 sat let 60 go.
"""

import asyncio
import json
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from engine.contracts.payment import OpenedPayment
from engine.contracts.quote import RouteQuote
from engine.domain.money import Msat, msat_to_fiat_ceil, parse_fiat
from tests.fixtures.postgres import Database
from tests.helpers.api import is_problem
from tests.helpers.invoice.bolt11_encoder import Draft
from tests.helpers.limit import SAT, capped, pair, set_limits, set_price, set_rules, shown, used
from tests.helpers.payer import Payers, running_payers

pytestmark = pytest.mark.integration
OUR_FEES = {"internal": [{"flat_msat": 10_000}], "lightning_out": [{"flat_msat": 20_000}]}


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    async with running_payers(shared_ledger_db, tmp_path_factory.mktemp("api"), price_max_age_s=3600) as payers:
        yield payers


async def test_amount_and_routing_cap_count_from_the_hold_on_and_what_was_not_paid_comes_back(bank: Payers) -> None:
    await set_limits(bank, {"1": {"lightning": {"day_sat": 100}}})
    payer, _ = await pair(bank, 1)
    opened = await bank.pay(payer, None, 1 * SAT, max_fee_msat=99 * SAT + 1)
    assert opened.outcome.refusal is not None
    assert (opened.outcome.refusal.code, opened.outcome.refusal.fields) == (
        "limit_exceeded",
        {"kind": "lightning", "window": "day", "limit_msat": 100_000, "used_msat": 0, "asked_msat": 100_001},
    )
    held = await bank.pay(payer, None, 1 * SAT, max_fee_msat=99 * SAT)
    assert held.attempt is not None
    assert await used(payer) == 100 * SAT
    assert await bank.outcome(payer, None, 1, max_fee_msat=0) == "limit_exceeded"
    for _ in range(3):  # a repeat gives nothing back twice
        await bank.settle(held, fee_msat=30 * SAT)
    assert await used(payer) == 31 * SAT
    assert await bank.outcome(payer, None, 69 * SAT, max_fee_msat=1) == "limit_exceeded"
    assert await bank.outcome(payer, None, 69 * SAT, max_fee_msat=0) == "pending"


async def test_a_keys_cap_is_the_most_that_leaves_with_its_fees(bank: Payers) -> None:
    await set_limits(bank, {"0": {}})
    payer, _ = await pair(bank, 0)
    pocket = await capped(bank, payer, day=10)
    assert await bank.outcome(pocket, None, 5 * SAT, max_fee_msat=5 * SAT + 1) == "spend_limit_exceeded"
    held = await bank.pay(pocket, None, 5 * SAT)  # with the usual cap, 5 sat
    assert await used(pocket, "api_key") == 10 * SAT
    await bank.settle(held, fee_msat=5 * SAT)
    assert await used(pocket, "api_key") == 10 * SAT
    assert await bank.outcome(pocket, None, 1, max_fee_msat=0) == "spend_limit_exceeded"
    assert await used(pocket, "api_key") == 10 * SAT


async def test_our_own_fee_counts_inside_and_outside(bank: Payers) -> None:
    await set_limits(bank, {"1": {"internal": {"day_sat": 100}, "lightning": {"day_sat": 100}}})
    await set_rules(bank, "fees", OUR_FEES)
    try:
        payer, payee = await pair(bank, 1)
        pocket = await capped(bank, payer, day=150)
        assert await bank.outcome(pocket, payee, 90 * SAT + 1) == "limit_exceeded"
        assert await bank.outcome(pocket, payee, 90 * SAT) == "settled"
        assert await used(payer, "internal") == await used(pocket, "api_key") == 100 * SAT
        assert await bank.outcome(pocket, None, 25 * SAT + 1) == "spend_limit_exceeded"  # 5 sat of cap, 20 of ours
        held = await bank.pay(pocket, None, 25 * SAT)
        assert await used(pocket, "api_key") == 150 * SAT
        await bank.settle(held, fee_msat=1)
        assert await used(payer) == 45 * SAT + 1
        assert await used(pocket, "api_key") == 145 * SAT + 1
        for cap, outcome in ((25 * SAT, "limit_exceeded"), (24 * SAT, "pending")):
            caps = {"max_fee_msat": cap, "fee_cap_msat": cap}
            assert await bank.outcome(payer, None, 30 * SAT, **caps) == outcome
        assert await used(payer) == 99 * SAT + 1
    finally:
        await set_rules(bank, "fees", {})


async def test_a_limit_in_another_currency_counts_what_left_and_never_less(bank: Payers) -> None:
    await set_price(bank, "CHF", "64250.10")
    await set_limits(bank, {"1": {"lightning": {"day": {"CHF": "10.00"}}}})
    payer, _ = await pair(bank, 1)
    chance = random.Random(7)
    left = 0
    for _ in range(12):
        amount, cap = Msat(chance.randrange(1, 10**6)), Msat(chance.randrange(100_000))
        held = await bank.pay(payer, None, amount, max_fee_msat=cap)
        fee = chance.randrange(cap + 1)
        await bank.settle(held, fee_msat=fee)
        left += msat_to_fiat_ceil(Msat(amount + fee), 64_250_100_000)
        counted = parse_fiat(await used(payer, "lightning:CHF"))
        assert counted is not None
        assert left <= counted <= left + 12


async def test_money_that_left_is_counted_when_many_are_opened_settled_and_released_at_once(bank: Payers) -> None:
    await set_limits(bank, {"1": {"lightning": {"day_sat": 10_000}}})
    payer, _ = await pair(bank, 1)
    pocket = await capped(bank, payer, day=8_000)

    async def end(number: int, opened: OpenedPayment) -> int:
        if number % 4 == 0:
            await asyncio.gather(*(bank.release(opened) for _ in range(2)))
            return 0
        await asyncio.gather(*(bank.settle(opened, fee_msat=number) for _ in range(3)))
        return 500 * SAT + number

    opened = await asyncio.gather(*(bank.pay(pocket, None, 500 * SAT, max_fee_msat=10 * SAT) for _ in range(40)))
    held = [each for each in opened if each.attempt]
    assert len(held) == 8_000 // 510
    assert {each.outcome.refusal.code for each in opened if each.outcome.refusal} == {"spend_limit_exceeded"}
    assert await used(payer) == await used(pocket, "api_key") == len(held) * 510 * SAT
    left = sum(await asyncio.gather(*(end(number, each) for number, each in enumerate(held))))
    assert await used(payer) == await used(pocket, "api_key") == left


# The most that may be paid beside an amount


def an_invoice(amount_msat: int) -> str:
    return Draft(amount=f"{amount_msat}0p", payment_hash=secrets.token_bytes(32), timestamp=2_000_000_000).text()


async def test_a_cap_above_the_banks_highest_is_refused_before_anything_is_held(bank: Payers) -> None:
    await set_limits(bank, {"0": {}})
    payer, _ = await pair(bank, 0)
    highest = 20 * 10 * SAT  # twenty times the usual cap, which is one per cent
    problem = is_problem(
        await payer.pay(an_invoice(1_000 * SAT), key="dear", max_fee_msat=highest + 1), 422, "max_fee_too_high"
    )
    assert (problem["max_fee_msat"], problem["highest_msat"]) == (highest + 1, highest)
    # Nothing was accepted, so the key is unused; what is away in this test is Temporal.
    within = await payer.pay(an_invoice(1_000 * SAT), key="dear", max_fee_msat=highest)
    is_problem(within, 503, "temporarily_unavailable")
    opened = await bank.pay(payer, None, 1_000 * SAT, max_fee_msat=highest + 1)
    assert opened.outcome.refusal is not None
    assert opened.outcome.refusal.code == "max_fee_too_high"
    assert opened.outcome.refusal.fields == {"max_fee_msat": highest + 1, "highest_msat": highest}
    assert await bank.outcome(payer, None, 1_000 * SAT, max_fee_msat=highest) == "pending"
    assert await bank.outcome(payer, None, 1, max_fee_msat=100 * SAT) == "pending"  # the usual cap is at least 5 sat
    assert await bank.outcome(payer, None, 1, max_fee_msat=100 * SAT + 1) == "max_fee_too_high"


async def test_our_own_fee_comes_on_top_of_the_highest_cap(bank: Payers) -> None:
    await set_limits(bank, {"0": {}}, max_fee_factor=2)
    await set_rules(bank, "fees", OUR_FEES)
    try:
        payer, payee = await pair(bank, 0)
        highest = 2 * 10 * SAT + 20 * SAT
        for cap, status, code, outcome in (
            (highest + 1, 422, "max_fee_too_high", "max_fee_too_high"),
            (highest, 503, "temporarily_unavailable", "pending"),
        ):
            is_problem(await payer.pay(an_invoice(1_000 * SAT), max_fee_msat=cap), status, code)
            caps = {"max_fee_msat": cap, "fee_cap_msat": cap}
            assert await bank.outcome(payer, None, 1_000 * SAT, **caps) == outcome
        # Within the bank nothing is routed, and no more than our fee is held whatever the cap.
        answer = await payer.pay(f"wallet:{payee.wallet_id}", amount_msat=1, max_fee_msat=10**15)
        is_problem(answer, 503, "temporarily_unavailable")
    finally:
        await set_rules(bank, "fees", {})


# What a quote says of it


async def test_a_quote_says_what_counts_and_whether_it_still_fits(bank: Payers) -> None:
    await set_limits(bank, {"1": {"lightning": {"day_sat": 1_000}, "internal": {"day_sat": 1_000}}})
    payer, payee = await pair(bank, 1)
    fits = an_invoice(990 * SAT)
    told = await payer.quote(fits)
    assert (told["max_fee_msat"], told["counted_msat"]) == (9_900, 999_900)
    told = await payer.quote(an_invoice(1_000 * SAT))  # at exactly the limit, and its cap comes on top
    assert told["counted_msat"] == 1_010_000
    assert told["warning"]["code"] == "limit_exceeded"
    assert "1,000,000 msat" in told["warning"]["detail"]
    assert await bank.outcome(payer, None, 1_000 * SAT, max_fee_msat=0) == "pending"
    told = await payer.quote(f"wallet:{payee.wallet_id}", amount_msat=1_000 * SAT)
    assert (told["counted_msat"], told["warning"]) == (1_000_000, None)
    pocket = await capped(bank, payer, week=500)
    told = await pocket.quote(f"wallet:{payee.wallet_id}", amount_msat=500 * SAT + 1)
    assert told["warning"]["code"] == "spend_limit_exceeded"


class Remembering:
    """In place of Redis: whatever is asked for, a probe has just said that the way costs so much."""

    def __init__(self, fee_msat: int) -> None:
        self._told = RouteQuote(fee_msat=Msat(fee_msat), is_probed=True)

    async def find(self, _key: str) -> str:
        return json.dumps({**asdict(self._told), "expires_at": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()})


async def test_a_way_above_the_highest_cap_is_quoted_with_a_cap_that_may_be_sent_and_a_warning(bank: Payers) -> None:
    await set_limits(bank, {"0": {}}, max_fee_factor=3)
    payer, _ = await pair(bank, 0)
    redis = bank.api.resources.cache
    try:
        for fee, cap, warning in ((30 * SAT, 30 * SAT, None), (30 * SAT + 1, 30 * SAT, "fee_limit_exceeded")):
            bank.api.change(cache=Remembering(fee))
            told = await payer.quote(an_invoice(1_000 * SAT))
            assert (told["fee_msat"], told["max_fee_msat"], told["fee_source"]) == (fee, cap, "probe")
            assert (told["warning"] or {}).get("code") == warning
    finally:
        bank.api.change(cache=redis)


async def test_the_limits_shown_say_how_high_a_cap_may_be(bank: Payers) -> None:
    payer, _ = await pair(bank, 1)
    for content, factor in (({}, 20), ({"max_fee_factor": 3}, 3), ({"max_fee_factor": 1_000}, 1_000)):
        await set_limits(bank, {"1": {}}, **content)
        assert (await payer.get("/v1/limits")).json()["max_fee_factor"] == factor
    assert await shown(payer) == {}
