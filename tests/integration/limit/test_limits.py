"""Limits and caps as users and operators meet them: set, shown, kept to the millisatoshi, given back."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, User, bearer, is_problem
from tests.helpers.limit import SAT, capped, pair, rulebook, set_limits, set_price, shown, used
from tests.helpers.payer import Payers, running_payers

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    async with running_payers(shared_ledger_db, tmp_path_factory.mktemp("api"), price_max_age_s=3600) as payers:
        yield payers


async def test_the_first_limits_are_wide_and_shown(bank: Payers) -> None:
    payer = await bank.api.open_account()
    items = await shown(payer)
    assert list(items) == [(kind, window) for kind in ("internal", "lightning") for window in ("day", "week", "month")]
    assert items["lightning", "week"] == {
        "kind": "lightning",
        "window": "week",
        "window_s": 604_800,
        "limit_msat": 3_000_000_000_000,
        "used_msat": 0,
        "remaining_msat": 3_000_000_000_000,
    }


async def test_exactly_at_the_limit_passes_and_one_msat_more_is_refused(bank: Payers) -> None:
    await set_limits(bank, {"1": {"internal": {"day_sat": 1_000}, "lightning": {"week_sat": 500}}})
    payer, payee = await pair(bank, 1)
    assert await bank.outcome(payer, payee, 400 * SAT) == "settled"
    opened = await bank.pay(payer, payee, 600 * SAT + 1, key="greedy")
    assert opened.outcome.refusal is not None
    assert opened.outcome.refusal.code == "limit_exceeded"
    assert opened.outcome.refusal.fields == {
        "kind": "internal",
        "window": "day",
        "limit_msat": 1_000_000,
        "used_msat": 400_000,
        "asked_msat": 600_001,
    }
    assert await bank.outcome(payer, payee, 600 * SAT) == "settled"
    assert await bank.outcome(payer, payee, 1) == "limit_exceeded"
    again = await bank.pay(payer, payee, 600 * SAT + 1, key="greedy")
    assert again.outcome.refusal == opened.outcome.refusal  # the key's answer for ever
    assert await bank.outcome(payer, None, 495 * SAT) == "pending"  # its own kind, with the usual 5 sat for routing
    assert await bank.outcome(payer, None, 1, max_fee_msat=0) == "limit_exceeded"
    items = await shown(payer)
    assert set(items) == {("internal", "day"), ("lightning", "week")}
    assert (items["internal", "day"]["used_msat"], items["internal", "day"]["remaining_msat"]) == (1_000_000, 0)


async def test_a_failed_payment_gives_back_and_a_settled_one_stays_counted(bank: Payers) -> None:
    await set_limits(bank, {"1": {"lightning": {"day_sat": 1_000}}})
    payer, _ = await pair(bank, 1)
    first, second = await bank.pay(payer, None, 595 * SAT), await bank.pay(payer, None, 395 * SAT)
    assert await bank.outcome(payer, None, 1, max_fee_msat=0) == "limit_exceeded"
    await bank.release(first)
    await bank.release(first)  # a repeat gives nothing back twice
    await bank.settle(second, fee_msat=77)
    assert await used(payer) == 395_077
    assert await bank.outcome(payer, None, 604_924, max_fee_msat=0) == "limit_exceeded"
    assert await bank.outcome(payer, None, 604_923, max_fee_msat=0) == "pending"


async def test_a_limit_lowered_below_what_is_used_refuses_and_shows_no_less_than_nothing(bank: Payers) -> None:
    await set_limits(bank, {"1": {"internal": {"day_sat": 1_000}}})
    payer, payee = await pair(bank, 1)
    assert await bank.outcome(payer, payee, 900 * SAT) == "settled"
    await set_limits(bank, {"1": {"internal": {"day_sat": 500, "month_sat": 700}}})
    items = await shown(payer)
    assert [items["internal", window]["remaining_msat"] for window in ("day", "month")] == [0, 0]
    assert items["internal", "month"]["used_msat"] == 900_000  # counted before it was limited
    assert await bank.outcome(payer, payee, 1) == "limit_exceeded"
    await set_limits(bank, {"1": {}})
    assert await bank.outcome(payer, payee, 10_000 * SAT) == "settled"
    assert await shown(payer) == {}


async def test_levels_have_their_own_limits_or_those_of_the_nearest_lower_one(bank: Payers) -> None:
    await set_limits(bank, {"1": {"internal": {"day_sat": 10}}, "4": {"internal": {"day_sat": 40}}})
    for level, passes, fails in ((2, 10, 11), (4, 40, 41), (9, 40, 41)):
        payer, payee = await pair(bank, level)
        assert await bank.outcome(payer, payee, fails * SAT) == "limit_exceeded"
        assert await bank.outcome(payer, payee, passes * SAT) == "settled"


async def test_as_many_of_those_at_once_pass_as_fit(bank: Payers) -> None:
    await set_limits(bank, {"1": {"internal": {"day_sat": 1_000}, "lightning": {"day_sat": 1_000}}})
    payer, payee = await pair(bank, 1)
    answers = await asyncio.gather(*(bank.outcome(payer, payee, 150 * SAT) for _ in range(24)))
    assert sorted(answers) == ["limit_exceeded"] * 18 + ["settled"] * 6
    opened = await asyncio.gather(*(bank.pay(payer, None, 150 * SAT) for _ in range(24)))
    held = [each for each in opened if each.attempt]
    assert len(held) == 6
    await asyncio.gather(*(bank.release(each) for each in held))
    assert (await shown(payer))["lightning", "day"]["used_msat"] == 0


async def test_a_limit_in_another_currency_counts_at_the_price_of_each_moment(bank: Payers) -> None:
    await set_price(bank, "USD", "100000")
    await set_limits(bank, {"1": {"internal": {"day": {"USD": "10.00"}, "day_sat": 100_000}}})
    payer, payee = await pair(bank, 1)
    assert await bank.outcome(payer, payee, 5_000 * SAT) == "settled"  # 5 dollars
    await set_price(bank, "USD", "50000.00")
    opened = await bank.pay(payer, payee, 10_000 * SAT + 1)
    assert opened.outcome.refusal is not None
    assert opened.outcome.refusal.fields == {
        "kind": "internal",
        "window": "day",
        "limit": "10.00",
        "used": "5.00",
        "asked": "5.000001",
        "currency": "USD",
    }
    assert await bank.outcome(payer, payee, 10_000 * SAT) == "settled"
    assert await bank.outcome(payer, payee, 1) == "limit_exceeded"  # a part of a millionth is a millionth
    fiat = (await shown(payer))["internal:USD", "day"]
    assert (fiat["limit"], fiat["used"], fiat["remaining"], fiat["currency"]) == ("10.00", "10.00", "0.00", "USD")
    assert (await shown(payer))["internal", "day"]["used_msat"] == 15_000_000


async def test_without_a_fresh_price_no_payment_is_let_in_and_the_key_stays_unused(bank: Payers) -> None:
    await set_price(bank, "EUR", "90000")
    await set_limits(bank, {"1": {"internal": {"day": {"EUR": "10.00"}}}})
    payer, payee = await pair(bank, 1)
    await bank.api.database.execute(
        "INSERT INTO bank.prices(currency, price_micro, source, at) "
        "VALUES ('EUR', 90000000000, 'feed', clock_timestamp() - interval '3601 seconds')"
    )
    problem = is_problem(
        await payer.pay(f"wallet:{payee.wallet_id}", key="fiat", amount_msat=1_000), 503, "price_unavailable"
    )
    assert "fresh price" in problem["detail"]
    assert await bank.pool.fetchval("SELECT count(*) FROM bank.idempotency_keys WHERE account_id = $1", payer.id) == 0
    # What had been let in before the price grew old is paid at the last one.
    assert await bank.outcome(payer, payee, 1_000) == "settled"
    await set_price(bank, "EUR", "90000")
    # Now the price is no obstacle; what is away in this test is Temporal.
    is_problem(
        await payer.pay(f"wallet:{payee.wallet_id}", key="fiat", amount_msat=1_000), 503, "temporarily_unavailable"
    )


async def test_a_key_spends_no_more_than_its_cap_over_all_kinds(bank: Payers) -> None:
    await set_limits(bank, {"0": {}})
    payer, payee = await pair(bank, 1)
    pocket = await capped(bank, payer, day=1_000, month=1_500)
    assert await bank.outcome(pocket, payee, 700 * SAT) == "settled"
    opened = await bank.pay(pocket, None, 300 * SAT + 1)
    assert opened.outcome.refusal is not None
    assert opened.outcome.refusal.code == "spend_limit_exceeded"
    in_msat = {"limit_msat": 1_000_000, "used_msat": 700_000, "asked_msat": 305_001}
    assert opened.outcome.refusal.fields == {"kind": "api_key", "window": "day", **in_msat}
    assert await bank.outcome(pocket, None, 200 * SAT, max_fee_msat=100 * SAT + 1) == "max_fee_too_high"
    held = await bank.pay(pocket, None, 200 * SAT, max_fee_msat=100 * SAT)
    assert held.attempt is not None
    assert await bank.outcome(payer, payee, 5_000 * SAT) == "settled"  # another key of the same account
    items = await shown(pocket)
    assert {place: (item["used_msat"], item["remaining_msat"]) for place, item in items.items()} == {
        ("api_key", "day"): (1_000_000, 0),
        ("api_key", "month"): (1_000_000, 500_000),
    }
    assert await shown(payer) == {}
    await bank.release(held)
    assert (await shown(pocket))["api_key", "day"]["used_msat"] == 700_000


async def test_one_idempotency_key_sent_by_two_api_keys_counts_once(bank: Payers) -> None:
    await set_limits(bank, {"1": {"internal": {"day_sat": 1_000}}})
    payer, payee = await pair(bank, 1)
    pocket = await capped(bank, payer, day=100)
    answers = [await bank.outcome(who, payee, 600 * SAT, key="shared") for who in (payer, pocket, payer)]
    assert answers == ["settled"] * 3
    assert (await shown(payer))["internal", "day"]["used_msat"] == 600_000


async def test_a_key_with_a_cap_hands_on_no_spending(bank: Payers) -> None:
    owner = await bank.api.open_account(("read", "send"))
    path = f"/v1/accounts/{owner.id}/api-keys"
    made = await owner.post(path, {"name": "pocket", "scopes": ["read", "send"], "spend_limit_sat": {"week": 5}})
    assert made.json()["spend_limit_sat"] == {"week": 5}
    pocket = User(owner.http, owner.id, owner.wallet_id, bearer(made.json()["key"]))
    more = {"name": "more", "scopes": ["send"], "spend_limit_sat": {"day": 1}}
    is_problem(await pocket.post(path, more), 403, "forbidden")
    assert (await pocket.post(path, {"name": "reader", "scopes": ["read"]})).status_code == 201
    listed = (await owner.get(path)).json()["items"]
    assert [key["spend_limit_sat"] for key in listed] == [None, {"week": 5}, None]
    for wrong in ({}, {"hour": 1}, {"day": -1}, {"day": True}, {"day": 1.5}, {"day": 2**53}, 5):
        body = {"name": "wrong", "scopes": ["send"], "spend_limit_sat": wrong}
        is_problem(await owner.post(path, body), 422, "invalid_request")


async def test_the_rulebook_is_set_by_finance_checked_and_kept(bank: Payers) -> None:
    clerk = await bank.api.open_account()
    finance = bearer(await bank.api.make_key(clerk.id, ("finance",)))
    current = (await rulebook(bank))["version"]
    good = {"content": {"levels": {"0": {"internal": {"day_sat": 5}}}}, "note": "audit me", "version": current + 1}
    put = bank.api.http.put
    is_problem(await put("/v1/admin/limits", json=good, headers=clerk.headers), 403, "forbidden")
    for version in (current, current + 2):
        wrong = {**good, "version": version}
        is_problem(await put("/v1/admin/limits", json=wrong, headers=finance), 409, "version_conflict")
    wrong = {**good, "content": {"levels": {"0": {"internal": {"day_sat": -5}}}}}
    problem = is_problem(await put("/v1/admin/limits", json=wrong, headers=finance), 422, "invalid_request")
    assert problem["field"] == "levels.0.internal.day_sat"
    no_price = {**good, "content": {"levels": {"0": {"internal": {"day": {"XXX": "1"}}}}}}
    is_problem(await put("/v1/admin/limits", json=no_price, headers=finance), 422, "invalid_request")
    answers = await asyncio.gather(*(put("/v1/admin/limits", json=good, headers=finance) for _ in range(4)))
    assert [answer.json() for answer in answers] == [await rulebook(bank)] * 4
    for other in ({**good, "note": "audit me, too"}, {**good, "content": {"levels": {}}}):
        is_problem(await put("/v1/admin/limits", json=other, headers=finance), 409, "version_conflict")
    is_problem(await put("/v1/admin/limits", json={**good, "note": " "}, headers=finance), 422, "invalid_request")
    is_problem(await put("/v1/admin/limits", json=good, headers=ADMIN), 409, "version_conflict")
    assert (await rulebook(bank))["set_by"] == clerk.id
    lines = await bank.pool.fetch("SELECT * FROM bank.audit WHERE action = 'limits.set' AND operator = $1", clerk.id)
    assert [(line["subject"], line["detail"]) for line in lines] == [(f"version {current + 1}", {"note": "audit me"})]


async def test_prices_are_set_by_the_treasury_and_kept(bank: Payers) -> None:
    clerk = await bank.api.open_account()
    treasury = bearer(await bank.api.make_key(clerk.id, ("treasury",)))
    put = bank.api.http.put
    is_problem(await put("/v1/admin/prices/USD", json={"price": "1"}, headers=clerk.headers), 403, "forbidden")
    for price in ("0", "-1", "1e5", "1.0000001", "", "NaN", 5, None):
        is_problem(await put("/v1/admin/prices/USD", json={"price": price}, headers=treasury), 422, "invalid_request")
    for currency in ("usd", "BTC", "DOLLAR", "12"):
        is_problem(
            await put(f"/v1/admin/prices/{currency}", json={"price": "1"}, headers=treasury), 422, "invalid_request"
        )
    answer = await put("/v1/admin/prices/CHF", json={"price": "64250.10"}, headers=treasury)
    assert (answer.json()["currency"], answer.json()["price"], answer.json()["source"]) == ("CHF", "64250.10", clerk.id)
    line = await bank.pool.fetchrow("SELECT * FROM bank.audit WHERE action = 'price.set' AND operator = $1", clerk.id)
    assert line is not None
    assert (line["subject"], line["detail"]) == ("CHF", {"price": "64250.10"})


async def test_the_bootstrap_key_has_no_limits_to_show(bank: Payers) -> None:
    is_problem(await bank.api.http.get("/v1/limits", headers=ADMIN), 403, "forbidden")
