"""Strangers' numbers against limits: whatever amount meets whatever price, there is an answer, and nothing waits."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activities.internal import InternalPayments
from engine.domain.money import MAX_AMOUNT_MSAT, fiat_text
from engine.ledger.chart import Chart
from engine.ledger.database import transaction
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, is_problem
from tests.helpers.limit import pair, set_limits, set_price, set_rules, used
from tests.helpers.payer import NODE, Payers, running_payers

pytestmark = pytest.mark.integration
BIGGEST = 2**63 - 1
numbers = st.one_of(st.integers(1, 10**6), st.sampled_from([1, 2**31, MAX_AMOUNT_MSAT - 1, MAX_AMOUNT_MSAT]))
prices = st.one_of(st.integers(1, BIGGEST), st.sampled_from([1, 10**18 - 1, BIGGEST]))
millionths = st.one_of(st.integers(0, 10**18 - 1), st.sampled_from([0, 10**18 - 1]))


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    async with running_payers(shared_ledger_db, tmp_path_factory.mktemp("api"), price_max_age_s=3600) as payers:
        yield payers


async def set_any_price(bank: Payers, currency: str, price_micro: int) -> None:
    """As a feed may, which writes to the table."""
    await bank.api.database.execute(
        "INSERT INTO bank.prices(currency, price_micro, source) VALUES ($1, $2, 'feed')", currency, price_micro
    )


@pytest.mark.parametrize("price", ["1600000000", "999999999999.999999", "0.000001"])
async def test_currencies_of_small_units_count_and_refuse_like_any_other(bank: Payers, price: str) -> None:
    await set_price(bank, "VND", price)
    most = {"day": {"VND": "999999999999.999999"}}
    await set_limits(bank, {"1": {"lightning": most, "internal": most}})
    payer, payee = await pair(bank, 1)
    for to in (payee, None):
        for amount in (MAX_AMOUNT_MSAT, MAX_AMOUNT_MSAT - 1, 10**15):
            assert await bank.outcome(payer, to, amount) == "insufficient_funds"
    assert await bank.outcome(payer, payee, 1) == "settled"
    opening = "SELECT count(*) FROM bank.idempotency_keys WHERE account_id = $1 AND refusal IS NULL"
    assert await bank.pool.fetchval(opening, payer.id) == 1


async def test_a_count_beyond_bigint_is_a_limit_exceeded_whoever_has_the_money(bank: Payers) -> None:
    await set_price(bank, "KRW", "140000000")
    most = {"month": {"KRW": "999999999999.999999"}}
    await set_limits(bank, {"2": {"lightning": most, "internal": most}})
    payer, payee = await pair(bank, 2, funds_msat=3 * MAX_AMOUNT_MSAT)
    await bank.api.database.execute("UPDATE bank.nodes SET outbound_msat = $2 WHERE name = $1", NODE, BIGGEST)
    for price in (140_000_000 * 10**6, BIGGEST):
        await set_any_price(bank, "KRW", price)
        for to in (payee, None):
            opened = await bank.pay(payer, to, MAX_AMOUNT_MSAT)
            assert opened.outcome.refusal is not None
            assert (opened.outcome.refusal.code, opened.outcome.refusal.fields["currency"]) == ("limit_exceeded", "KRW")
            assert opened.outcome.refusal.fields["used"] == "0.00"
    assert await used(payer, "lightning:KRW", "month") == "0.00"
    await set_any_price(bank, "KRW", 1)
    assert await bank.outcome(payer, payee, MAX_AMOUNT_MSAT) == "settled"


async def test_amounts_that_go_round_until_no_bigint_holds_them_are_refused_and_shown(bank: Payers) -> None:
    """As if 1,023 payments of 90,071 bitcoin each had gone there and back: with the next, more than 2^63 msat."""
    await set_limits(bank, {"3": {}})
    payer, payee = await pair(bank, 3, funds_msat=MAX_AMOUNT_MSAT)
    await bank.api.database.execute("SELECT set_config('ledger.posting', 'on', false)")
    account = await bank.pool.fetchval("SELECT ledger_account_id FROM bank.wallets WHERE id = $1", payer.wallet_id)
    counted = BIGGEST - MAX_AMOUNT_MSAT + 1
    await bank.api.database.execute(
        "INSERT INTO ledger.counters SELECT $1, 'internal', w, ledger.counter_bucket(w, clock_timestamp()), $2 "
        "FROM unnest(ledger.counted_windows()) w",
        account,
        counted,
    )
    try:
        opened = await bank.pay(payer, payee, MAX_AMOUNT_MSAT)
        assert opened.outcome.refusal is not None
        assert opened.outcome.refusal.code == "limit_exceeded"
        assert opened.outcome.refusal.fields["used_msat"] == counted
        assert await bank.outcome(payer, payee, MAX_AMOUNT_MSAT - 1) == "settled"
        await set_limits(bank, {"3": {"internal": {"day_sat": 1}}})
        assert await used(payer, "internal") == BIGGEST
        assert await bank.outcome(payer, payee, 1) == "limit_exceeded"
    finally:
        await bank.api.database.execute(
            "UPDATE ledger.counters SET amount = amount - $2 WHERE account_id = $1 AND amount >= $2", account, counted
        )
        await bank.api.database.execute("SELECT set_config('ledger.posting', 'off', false)")


@pytest.mark.parametrize("price", ["1000000000000", "1e20", "9" * 20, "0.0000000000001", "-1", "Infinity", "２"])
async def test_prices_and_limits_beyond_all_bounds_are_refused_where_they_enter(bank: Payers, price: str) -> None:
    put = bank.api.http.put
    is_problem(await put("/v1/admin/prices/IDR", json={"price": price}, headers=ADMIN), 422, "invalid_request")
    await set_price(bank, "IDR", "999999999999.999999")
    version = (await bank.api.http.get("/v1/admin/limits", headers=ADMIN)).json()["version"] + 1
    body = {"content": {"levels": {"0": {"internal": {"day": {"IDR": price}}}}}, "note": "x", "version": version}
    is_problem(await put("/v1/admin/limits", json=body, headers=ADMIN), 422, "invalid_request")


async def test_fees_that_no_bigint_holds_together_are_too_little_money(bank: Payers) -> None:
    """Ten steps of the most that a step may be, for each of many payments at once."""
    most = [{"flat_msat": MAX_AMOUNT_MSAT}] * 10
    await set_limits(bank, {"4": {"internal": {"day_sat": 10**9}}})
    await set_rules(bank, "fees", {"internal": most, "lightning_out": most})
    try:
        payer, payee = await pair(bank, 4)
        asked = [bank.request(payer, payee, MAX_AMOUNT_MSAT, key=f"dear-{n}") for n in range(200)]
        async with transaction(bank.pool) as conn:
            verdicts = await InternalPayments(Chart()).settle_in_tx(conn, asked, ["workflow"] * len(asked))
        assert {verdict.code for verdict in verdicts if verdict} == {"insufficient_funds"}
        assert None not in verdicts
        assert await bank.outcome(payer, None, MAX_AMOUNT_MSAT) == "insufficient_funds"
        told = await payer.post(
            "/v1/payments/quote",
            {"wallet_id": payer.wallet_id, "destination": f"wallet:{payee.wallet_id}", "amount_msat": MAX_AMOUNT_MSAT},
        )
        assert (told.status_code, told.json()["warning"]["code"]) == (200, "limit_exceeded"), told.text
    finally:
        await set_rules(bank, "fees", {})


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
async def test_any_amount_cap_and_price_gets_an_answer_and_what_is_held_is_within_the_limits(
    bank: Payers, data: st.DataObject
) -> None:
    level, currency = 5, data.draw(st.sampled_from(["KRW", "VND"]))
    await set_any_price(bank, currency, data.draw(prices))
    day_sat = data.draw(st.integers(0, 10**6))
    limit = {"day_sat": day_sat, "week": {currency: fiat_text(data.draw(millionths))}}
    await set_limits(bank, {str(level): {"lightning": limit, "internal": limit}})
    payer, payee = await pair(bank, level, funds_msat=MAX_AMOUNT_MSAT)
    total = 0
    for _ in range(data.draw(st.integers(1, 4))):
        amount, cap = data.draw(numbers), data.draw(numbers)
        to = data.draw(st.sampled_from([payee, None]))
        outcome = await bank.outcome(payer, to, amount, **({"max_fee_msat": cap} if to is None else {}))
        assert outcome in {"settled", "pending", "insufficient_funds", "limit_exceeded", "max_fee_too_high"}
        total += amount + cap if outcome == "pending" else amount if outcome == "settled" else 0
    assert await used(payer, "lightning") + await used(payer, "internal") == total
    assert await used(payer, "lightning") <= day_sat * 1_000
