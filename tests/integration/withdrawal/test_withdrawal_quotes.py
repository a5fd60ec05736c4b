"""Quotes of withdrawals: by the rates that the pump has reported, the queue and the coins of the moment."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.api import User, bearer, is_problem
from tests.helpers.limit import set_limits, set_rules
from tests.helpers.withdrawal.teller import outside
from tests.helpers.withdrawal.window import Window, open_window

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def window(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Window]:
    async with open_window(ledger_db, tmp_path) as window:
        yield window


@pytest_asyncio.fixture
async def alice(window: Window) -> User:
    return await window.bank.user(10**9)


async def report(window: Window, fees: Any) -> None:
    await window.bank.payers.api.database.execute(
        "UPDATE bank.chains SET report = report || jsonb_build_object('fees', $1::text::jsonb)", json.dumps(fees)
    )


def estimates(rate: int, *, age: timedelta = timedelta(0), source: str = "bitcoind") -> dict[str, Any]:
    told = {"rate_sat_kvb": rate, "source": source, "at": (datetime.now(UTC) - age).isoformat()}
    return {"estimates": {"2": told, "6": told}, "floor": 1_000, "incremental": 1_000}


async def test_a_quote_has_each_speed_by_the_rate_that_was_reported(window: Window, alice: User) -> None:
    await set_rules(window.bank.payers, "fees", {"withdrawal": [{"flat_msat": 300_000}]})
    await report(window, estimates(12_000))
    told = await window.quote(alice)
    assert (told["address"], told["amount_sat"], told["service_fee_sat"]) == (outside(), 100_000, 300)
    assert (told["minimum_sat"], told["maximum_sat"], told["needs_approval"]) == (1_000, 1_000_000, False)
    assert told["warning"] is None
    standard, slow = told["speeds"]["standard"], told["speeds"]["slow"]
    assert standard == standard | {
        "rate_sat_kvb": 12_000,
        "rate_source": "bitcoind",
        "rate_bounded_by": None,
        "waiting": 0,
        "target_blocks": 6,
        "window_s": 600,
        "expected_s": 4_200,
    }
    # One p2wpkh input, the output, change to a taproot output: 154 vB at most.
    assert standard["miner_fee_sat"] == 1_836
    assert standard["fee_sat"] == standard["alone_fee_sat"] == 1_836 + 300
    assert standard["max_fee_sat"] == 2 * 1_836 + 300
    assert (slow["rate_sat_kvb"], slow["rate_at"]) == (10_000, None)
    assert slow["rate_source"].startswith("fallback")


async def test_the_share_falls_with_the_queue_and_the_cap_holds_what_was_quoted(window: Window, alice: User) -> None:
    await report(window, estimates(12_000))
    alone = (await window.quote(alice))["speeds"]["standard"]
    for number in range(5):
        await window.asked(alice, amount_sat=5_000, address=outside(number))
    told = (await window.quote(alice))["speeds"]["standard"]
    assert told["waiting"] == 5
    assert told["miner_fee_sat"] < alone["miner_fee_sat"] / 2
    assert told["alone_fee_sat"] == alone["alone_fee_sat"]
    made = await window.asked(alice)
    assert made["max_fee_sat"] == told["max_fee_sat"]
    chosen = await window.asked(alice, max_fee_sat=900)
    assert chosen["max_fee_sat"] == 900


async def test_many_small_coins_cost_more(window: Window, alice: User) -> None:
    await report(window, estimates(12_000))
    few = (await window.quote(alice))["speeds"]["fast"]["alone_fee_sat"]
    for _ in range(4):
        await window.bank.coin(30_000)
    many = (await window.quote(alice))["speeds"]["fast"]["alone_fee_sat"]
    assert many == few + 3 * 816
    await window.bank.coin(1_000_000)
    assert (await window.quote(alice))["speeds"]["fast"]["alone_fee_sat"] == few


@pytest.mark.parametrize(
    ("fees", "rate", "source", "bounded_by"),
    [
        (None, 10_000, "fallback", None),
        ({}, 10_000, "fallback", None),
        ([], 10_000, "fallback", None),
        ({"estimates": {"2": "x"}}, 10_000, "fallback", None),
        ({"estimates": {"2": {"rate_sat_kvb": "many"}}}, 10_000, "fallback", None),
        ({"estimates": {"2": {"rate_sat_kvb": -5}}}, 10_000, "fallback", None),
        ({"estimates": {"2": {"rate_sat_kvb": 7_000, "source": "fixed", "at": None}}}, 7_000, "fixed", None),
        ({"estimates": {"2": {"rate_sat_kvb": 7_000, "at": "yesterday"}}}, 10_000, "fallback", None),
        ({"estimates": {"2": {"rate_sat_kvb": 7_000, "at": "2026-01-01T00:00:00"}}}, 10_000, "fallback", None),
        (estimates(20_000, age=timedelta(hours=2)), 10_000, "fallback", None),
        (estimates(5), 1_000, "bitcoind", "floor"),
        (estimates(10**9), 500_000, "bitcoind", "ceiling"),
        ({**estimates(5_000), "floor": 30_000}, 30_000, "bitcoind", "node"),
    ],
)
async def test_a_rate_is_bounded_and_says_where_it_comes_from(
    window: Window, alice: User, fees: Any, rate: int, source: str, bounded_by: str | None
) -> None:
    await report(window, fees)
    fast = (await window.quote(alice))["speeds"]["fast"]
    assert (fast["rate_sat_kvb"], fast["rate_bounded_by"]) == (rate, bounded_by)
    assert fast["rate_source"].startswith(source)


async def test_a_quote_warns_of_what_would_be_refused(window: Window, alice: User) -> None:
    assert (await window.quote(alice, amount_sat=1_000_000))["warning"]["code"] == "insufficient_funds"
    assert (await window.quote(alice, amount_sat=1_000_000, fee_from="amount"))["warning"] is None
    everything = await window.quote(alice, amount_sat=None, send_all=True)
    assert (everything["amount_sat"], everything["warning"]) == (1_000_000, None)
    await set_limits(window.bank.payers, {"0": {"withdrawal": {"day_sat": 50_000}}})
    assert (await window.quote(alice))["warning"]["code"] == "limit_exceeded"
    rich = await window.bank.user(10**12)
    assert (await window.quote(rich, amount_sat=20_000_000))["needs_approval"] is True


async def test_a_quote_refuses_what_the_withdrawal_would(window: Window, alice: User) -> None:
    path, sent = "/v1/withdrawals/quote", {"wallet_id": alice.wallet_id, "address": outside(), "amount_sat": 5_000}
    for change, code in (
        ({"address": "x"}, "invalid_destination"),
        ({"amount_sat": 100}, "dust_amount"),
        ({"amount_sat": 999}, "amount_too_small"),
        ({"send_all": True}, "invalid_request"),
        ({"speed": "fast"}, "invalid_request"),
    ):
        is_problem(await alice.post(path, sent | change), 422, code)
    is_problem(await alice.post(path, sent | {"wallet_id": "wal_of_another"}), 404, "not_found")
    poor = await window.bank.user(0)
    nothing = {"wallet_id": poor.wallet_id, "address": outside(), "send_all": True}
    is_problem(await poor.post(path, nothing), 422, "dust_amount")
    sender = bearer(await window.bank.payers.api.make_key(alice.id, ("send",)))
    is_problem(await alice.http.post(path, json=sent, headers=sender), 403, "forbidden")
    assert (await alice.balance())[1] == 0
