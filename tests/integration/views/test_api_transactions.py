"""Finding transactions: conditions, and pages that stay right while others pay."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, is_problem, running_api
from tests.helpers.teller import Teller, open_teller

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def api(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    async with running_api(shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn, folder, rate_limit_per_minute=0) as it:
        yield it


@pytest_asyncio.fixture(scope="module")
async def teller(api: Api) -> Teller:
    return await open_teller(api)


@pytest_asyncio.fixture
async def user(api: Api, teller: Teller) -> User:
    user = await api.open_account()
    await teller.receive(user, 1_000_000, "first")
    return user


async def find(user: User, **query: Any) -> list[str]:
    answer = await user.get(f"/v1/wallets/{user.wallet_id}/transactions", **query)
    assert answer.status_code == 200, answer.text
    return [item["memo"] for item in answer.json()["items"]]


async def test_each_condition_finds_its_own(api: Api, teller: Teller, user: User) -> None:
    other = await api.open_account(username="Filter_Friend")
    await teller.receive(other, 500_000)
    await teller.pay_user(user, other, 1_000, "50% off_all\\day")
    await teller.pay_user(other, user, 2_000, "back")
    held = await teller.hold(user, 3_000, 30, "held")
    failed = await teller.hold(user, 4_000, 40, "failed")
    await teller.release(failed)
    assert await find(user) == ["failed", "held", "back", "50% off_all\\day", "first"]
    assert await find(user, kind="invoice") == ["first"]
    assert await find(user, kind="withdrawal") == []
    assert await find(user, direction="in") == ["back", "first"]
    assert await find(user, status="pending") == ["held"]
    assert await find(user, status="failed", direction="out") == ["failed"]
    assert await find(user, text="OFF_all\\") == ["50% off_all\\day"]
    assert await find(user, text="filter_FRIEND") == ["back"]
    assert await find(user, text=held.id) == ["held"]
    assert await find(user, text="%") == ["50% off_all\\day"]
    for nothing in ("50_", "\\\\", "o%f", "'; --"):
        assert await find(user, text=nothing) == []


async def test_a_period_has_its_beginning_and_not_its_end(teller: Teller, user: User) -> None:
    await teller.receive(user, 1, "second")
    rows = (await user.get(f"/v1/wallets/{user.wallet_id}/transactions")).json()["items"]
    second, first = (row["created_at"] for row in rows)
    assert await find(user, **{"from": first}) == ["second", "first"]
    assert await find(user, **{"from": first, "to": second}) == ["first"]
    assert await find(user, **{"from": second, "to": second}) == []
    assert await find(user, to=first) == []


@pytest.mark.parametrize("path", ["transactions", "statement"])
@pytest.mark.parametrize(
    "query",
    [
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"from": "2026-01-01T00:00:00"},
        {"from": "2026-01-01"},
        {"from": "1700000000"},
        {"from": "1999-12-31T23:59:59Z"},
        {"to": "3000-01-01T00:00:00Z"},
        {"to": "9999-12-31T23:59:59-23:59"},
        {"to": "0001-01-01T00:00:00+23:59"},
        {"to": "2026-02-30T00:00:00Z"},
        {"to": "2026-01-01T25:00:00Z"},
        {"to": "now"},
        {"to": ""},
        {"begins_at": "2026-01-01T00:00:00Z"},
        {"after": "x"},
        {"limit": 0},
        {"limit": 1_001},
        {"limit": "9" * 40},
        {"unknown": "1"},
    ],
)
async def test_absurd_questions_are_refused(user: User, path: str, query: dict[str, Any]) -> None:
    is_problem(await user.get(f"/v1/wallets/{user.wallet_id}/{path}", **query), 422, "invalid_request")


@pytest.mark.parametrize(
    "query",
    [{"kind": "loan"}, {"status": "x"}, {"direction": "up"}, {"text": ""}, {"text": "x" * 101}, {"text": "a\0b"}],
)
async def test_conditions_that_cannot_be(user: User, query: dict[str, Any]) -> None:
    is_problem(await user.get(f"/v1/wallets/{user.wallet_id}/transactions", **query), 422, "invalid_request")


async def test_a_cursor_belongs_to_its_list_its_conditions_and_nobody_else(
    api: Api, teller: Teller, user: User
) -> None:
    other = await api.open_account()
    for each in (user, other):
        for amount in (1, 2):
            await teller.receive(each, amount, "some")
    mine, theirs = (f"/v1/wallets/{each.wallet_id}/transactions" for each in (user, other))
    cursor = (await user.get(mine, limit=1, text="some")).json()["next_cursor"]
    assert (await user.get(mine, limit=1, text="some", after=cursor)).status_code == 200
    raw = base64.urlsafe_b64decode(cursor)
    forged = [
        base64.urlsafe_b64encode(raw[:6] + raw[6:].replace(b"202", b"203")).decode(),
        cursor[:-8],
        cursor + "AAAA",
    ]
    for after in forged:
        is_problem(await user.get(mine, text="some", after=after), 422, "invalid_request")
    for conditions in ({}, {"text": "som"}, {"text": "some", "direction": "in"}):
        is_problem(await user.get(mine, after=cursor, **conditions), 422, "invalid_request")
    is_problem(await other.get(theirs, text="some", after=cursor), 422, "invalid_request")
    is_problem(await other.get(mine, text="some", after=cursor), 404, "not_found")
    is_problem(await user.get(f"/v1/wallets/{user.wallet_id}/statement", after=cursor, limit=1), 422, "invalid_request")


async def test_pages_show_each_transaction_once_while_others_are_made(teller: Teller, user: User) -> None:
    there = {await teller.receive(user, amount, "page") for amount in range(1, 24)}
    seen: list[str] = []

    async def receive_on() -> None:
        for amount in range(1, 12):
            await teller.receive(user, amount, "page")

    async def read_on() -> None:
        after: dict[str, str] = {}
        while True:
            answer = await user.get(f"/v1/wallets/{user.wallet_id}/transactions", limit=3, text="page", **after)
            page = answer.json()
            seen.extend(item["reference"] for item in page["items"])
            if page["next_cursor"] is None:
                return
            after = {"after": page["next_cursor"]}

    await asyncio.gather(receive_on(), read_on())
    assert len(seen) == len(set(seen))
    assert there <= set(seen)
