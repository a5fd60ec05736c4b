"""Whoever comes without a good key is counted by address, at every door, and made to wait; who has one is not."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio

from api.service.lookup import Lookups
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, bearer, is_problem, running_api

pytestmark = pytest.mark.integration

LIMIT = 5
ME = "client:127.0.0.1"
DOORS = [
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/assets/swagger-ui.css"),
    ("GET", "/metrics"),
    ("GET", "/nowhere"),
    ("GET", "/v1/nowhere"),
    ("DELETE", "/docs"),
    ("OPTIONS", "/v1/payments"),
    ("GET", "/v1/account"),
    ("POST", "/v1/payments"),
    ("POST", "/v1/accounts"),
]


class Counter:
    """Redis, so far as it is asked here: over all processes, or away."""

    def __init__(self, *, away: bool = False) -> None:
        self.away, self.seen = away, list[str]()

    async def count_requests(self, callers: Sequence[str]) -> list[tuple[int, int]]:
        self.seen += callers
        return [(0 if self.away else self.seen.count(caller), 42) for caller in callers]


@pytest.fixture(autouse=True)
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test meets the end of a minute."""
    monkeypatch.setattr("api.http.stranger_limit._now_s", lambda: 1_000_000_020)


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    limits = {"public_rate_limit_per_minute": LIMIT, "public_rate_limit_per_second": 10_000}
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, **limits) as running:
        yield running


@pytest_asyncio.fixture
async def user(api: Api) -> User:
    return await api.open_account(("read", "receive", "send"), username="bob")


def counting(api: Api, *, away: bool = False) -> Counter:
    counter = Counter(away=away)
    api.change(lookups=Lookups(api.resources.pool, cast("Any", counter)))
    return counter


@pytest.mark.parametrize("away", [False, True], ids=["Redis counts", "Redis is away"])
@pytest.mark.parametrize(("method", "path"), DOORS)
async def test_every_door_that_is_open_counts(api: Api, user: User, method: str, path: str, *, away: bool) -> None:
    counter = counting(api, away=away)
    statuses = [(await api.http.request(method, path)).status_code for _ in range(LIMIT)]
    assert 429 not in statuses
    refused = await api.http.request(method, path)
    assert refused.headers["Retry-After"] == "60"
    is_problem(refused, 429, "rate_limited")
    assert counter.seen.count(ME) == LIMIT, "what is refused is not counted anywhere else"
    assert (await user.get("/v1/account")).status_code == 200


async def test_doors_of_lnurl_and_tip_pages_count_and_say_so_in_their_manner(api: Api, user: User) -> None:
    counting(api)
    for _ in range(LIMIT):
        assert (await api.http.get("/.well-known/lnurlp/bob")).status_code == 200
    for path in ("/.well-known/lnurlp/bob", "/lnurlp/bob/callback", "/lnurlp/bob/verify/00", "/lnurlw/x"):
        refused = await api.http.get(path)
        assert refused.json() == {"status": "ERROR", "reason": refused.json()["reason"]}
        assert "Too many requests" in refused.json()["reason"]
        assert refused.headers["Access-Control-Allow-Origin"] == "*"
    page = await api.http.post("/pay/bob", data={"amount_sat": "1"})
    assert page.status_code == 429
    assert page.headers["content-type"].startswith("text/html")
    assert "Too many requests" in page.text


async def test_wrong_keys_count_and_the_right_one_passes_the_same_address(api: Api, user: User) -> None:
    counter = counting(api)
    assert (await user.get("/v1/account")).status_code == 200
    for number in range(LIMIT):
        is_problem(await api.http.get("/v1/account", headers=bearer(f"mr_no_{number}")), 401, "unauthenticated")
    assert counter.seen.count("key:127.0.0.1") == LIMIT
    answers = [(await api.http.get("/v1/account", headers=bearer(f"mr_more_{n}"))).status_code for n in range(40)]
    assert answers.count(429) > 20, "wrong keys go on being looked up"
    assert answers.count(401) <= 20
    for _ in range(3 * LIMIT):
        assert (await user.get("/v1/account")).status_code == 200
    assert (await api.http.get("/docs")).status_code == 200, "wrong keys are counted apart"


async def test_a_good_key_that_was_never_seen_passes_a_refused_address(api: Api, user: User) -> None:
    counting(api)
    for number in range(LIMIT + 1):
        await api.http.get("/v1/account", headers=bearer(f"mr_no_{number}"))
    new = await api.make_key(user.id, ("read",))
    assert (await api.http.get("/v1/account", headers=bearer(new))).status_code == 200


async def test_a_revoked_key_is_a_strangers_again(api: Api, user: User) -> None:
    counting(api)
    assert (await user.get("/v1/account")).status_code == 200
    await api.database.execute("UPDATE bank.api_keys SET revoked_at = now() WHERE account_id = $1", user.id)
    answers = [(await user.get("/v1/account")).status_code for _ in range(LIMIT + 30)]
    assert answers[:2] == [401, 401]
    assert 429 in answers


class AwayPool:
    """Postgres, which is away."""

    async def acquire(self, *, timeout: float) -> None:  # noqa: ASYNC109 - as asyncpg's
        raise ConnectionRefusedError(timeout)


@pytest.mark.parametrize("is_known", [True, False], ids=["known here", "not known here"])
async def test_keys_are_good_again_as_soon_as_the_books_are(api: Api, user: User, *, is_known: bool) -> None:
    """Before, an outage made a stranger of everybody who had a key: his 503 turned to 429 for the minute."""
    counter = counting(api)
    if is_known:
        assert (await user.get("/v1/account")).status_code == 200
    keys = [await api.make_key(user.id, ("read",)) for _ in range(30)]
    api.change(lookups=Lookups(cast("Any", AwayPool()), cast("Any", counter)))
    for _ in range(10 * LIMIT):
        is_problem(await user.get("/v1/account"), 503, "temporarily_unavailable")
    counting(api)
    for key in keys:
        assert (await api.http.get("/v1/account", headers=bearer(key))).status_code == 200
    assert (await user.get("/v1/account")).status_code == 200


async def test_good_keys_are_not_counted_by_address(api: Api, user: User) -> None:
    counter = counting(api)
    for _ in range(4 * LIMIT):
        assert (await user.get("/v1/account")).status_code == 200
        assert (await user.get("/v1/wallets/wal_nobody")).status_code == 404
    assert not [seen for seen in counter.seen if "127.0.0.1" in seen]


async def test_a_good_key_opens_no_uncounted_door(api: Api, user: User) -> None:
    counting(api)
    assert (await user.get("/v1/account")).status_code == 200
    answers = [(await user.get("/openapi.json")).status_code for _ in range(LIMIT + 1)]
    assert answers == [200] * LIMIT + [429]
    statuses = {(await user.get("/v1/nowhere")).status_code for _ in range(LIMIT + 30)}
    assert statuses == {404, 429}


async def test_health_is_told_whatever_an_address_does(api: Api) -> None:
    counting(api)
    for _ in range(2 * LIMIT):
        await api.http.get("/docs")
        assert (await api.http.get("/healthz")).status_code == 200
        assert (await api.http.get("/readyz")).status_code == 503


async def test_clients_are_told_apart_by_address_and_a_network_is_one(api: Api) -> None:
    counting(api)

    async def ask(address: str) -> int:
        transport = httpx.ASGITransport(api.app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
            return (await http.get("/docs")).status_code

    same = [f"2001:db8:1:2::{n:x}" for n in range(LIMIT + 1)]
    assert [await ask(address) for address in same] == [200] * LIMIT + [429]
    assert await ask("2001:db8:1:3::1") == 200
    assert await ask("192.0.2.1") == 200
    assert [await ask(each) for each in ("192.0.2.2", "::ffff:192.0.2.2") * 3] == [200] * LIMIT + [429]


async def test_requests_sent_at_once_wait_for_their_turn(ledger_db: Database, tmp_path: Path) -> None:
    limits = {"public_rate_limit_per_minute": 10_000, "public_rate_limit_per_second": 20}
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, **limits) as api:
        counting(api)
        loop = asyncio.get_running_loop()
        began = loop.time()
        answers = await asyncio.gather(*(api.http.get("/docs") for _ in range(100)))
        taken_s = loop.time() - began
        statuses = [answer.status_code for answer in answers]
        assert statuses.count(200) in range(58, 75), "a second's worth at once, two seconds' worth in turn"
        assert statuses.count(200) + statuses.count(429) == 100
        assert taken_s >= 1.9


async def test_readiness_is_looked_for_once_a_second_for_all(api: Api) -> None:
    asked = 0
    node = api.nodes["lnd-1"]
    is_active = node.is_active

    async def counted() -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return await is_active()

    node.is_active = counted  # type: ignore[method-assign]
    await asyncio.gather(*(api.http.get("/readyz") for _ in range(50)))
    assert asked == 1
