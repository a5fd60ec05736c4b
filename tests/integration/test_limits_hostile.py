"""Strangers' numbers against limits: whatever amount meets whatever price, there is an answer, and nothing waits."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.domain.money import MAX_AMOUNT_MSAT
from tests.fixtures.postgres import Database
from tests.integration.api_helpers import ADMIN, is_problem
from tests.integration.limits_helpers import pair, set_limits, set_price, used
from tests.integration.payer_helpers import NODE, Payers, running_payers

pytestmark = pytest.mark.integration
BIGGEST = 2**63 - 1


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
