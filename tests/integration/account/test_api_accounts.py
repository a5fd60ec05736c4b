"""Accounts, keys and wallets over HTTP: who is let in, and what a key may hand on."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, bearer, is_problem, running_api

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path) as running:
        yield running


async def test_an_account_is_opened_with_an_empty_wallet(api: Api) -> None:
    opened = await api.http.post(
        "/v1/accounts", json={"username": "Bob", "external_id": "u-1", "level": 2}, headers=ADMIN
    )

    assert opened.status_code == 201
    account = opened.json()
    assert (account["username"], account["external_id"], account["level"]) == ("Bob", "u-1", 2)
    assert account["status"] == "active"
    assert account["created_at"].endswith("Z")
    (wallet,) = account["wallets"]
    assert wallet | {"id": ""} == {
        "id": "",
        "account_id": account["id"],
        "currency": "BTC",
        "available_msat": 0,
        "held_msat": 0,
        "incoming_msat": 0,
        "balance_msat": 0,
    }


async def test_a_username_is_unique_whatever_the_case(api: Api) -> None:
    await api.open_account(username="Bob")
    is_problem(await api.http.post("/v1/accounts", json={"username": "bOB"}, headers=ADMIN), 409, "username_taken")
    await api.open_account(external_id="x")
    is_problem(await api.http.post("/v1/accounts", json={"external_id": "x"}, headers=ADMIN), 409, "external_id_taken")


async def test_bad_accounts_are_refused(api: Api) -> None:
    for body in (
        {"username": "1bob"},
        {"username": "a b"},
        {"level": 10},
        {"level": True},
        {"name": "x"},
        {"external_id": ""},
    ):
        is_problem(await api.http.post("/v1/accounts", json=body, headers=ADMIN), 422, "invalid_request")


async def test_the_same_key_opens_one_account_however_often_it_is_sent(api: Api) -> None:
    headers = {**ADMIN, "Idempotency-Key": "open-1"}
    answers = await asyncio.gather(
        *(api.http.post("/v1/accounts", json={"username": "carol"}, headers=headers) for _ in range(8))
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert await api.database.fetchval("SELECT count(*) FROM bank.accounts") == 1
    other = await api.http.post("/v1/accounts", json={"username": "dave"}, headers=headers)
    is_problem(other, 409, "idempotency_conflict")


async def test_a_refused_key_gives_the_same_refusal_for_ever(api: Api) -> None:
    await api.open_account(username="taken")
    headers = {**ADMIN, "Idempotency-Key": "k"}
    first = await api.http.post("/v1/accounts", json={"username": "taken"}, headers=headers)
    is_problem(first, 409, "username_taken")
    await api.database.execute("UPDATE bank.accounts SET username = NULL")

    second = await api.http.post("/v1/accounts", json={"username": "taken"}, headers=headers)
    assert second.json() == first.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    third = await api.http.post("/v1/accounts", json={"username": "other"}, headers=headers)
    is_problem(third, 409, "idempotency_conflict")


async def test_nobody_is_let_in_without_a_good_key(api: Api) -> None:
    user = await api.open_account()
    good = user.headers["Authorization"].removeprefix("Bearer ")
    wrong: list[Any] = [{}, bearer(""), bearer("x"), bearer(good[:-1]), bearer(good + "x"), {"X-Api-Key": "é".encode()}]
    wrong += [{"Authorization": f"Basic {good}"}, bearer("mr_" + "0" * 25 + "_" + "A" * 43)]
    for headers in wrong:
        answer = await api.http.get("/v1/account", headers=headers)
        is_problem(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (await api.http.get("/v1/account", headers={"X-Api-Key": good})).status_code == 200


async def test_scopes_are_kept_apart(api: Api) -> None:
    reader = await api.open_account(("read",))
    for path in ("/v1/payments", "/v1/invoices", "/v1/accounts"):
        is_problem(await reader.post(path, {}), 403, "forbidden")
    sender = await api.open_account(("send",))
    for path in ("/v1/account", "/v1/wallets", "/v1/payments", "/v1/invoices"):
        is_problem(await sender.get(path), 403, "forbidden")
    is_problem(await api.http.get("/v1/account", headers=ADMIN), 403, "forbidden")


async def test_a_revoked_or_expired_key_opens_nothing_from_then_on(api: Api) -> None:
    user = await api.open_account()
    (key,) = (await user.get(f"/v1/accounts/{user.id}/api-keys")).json()["items"]
    assert "key" not in key
    revoked = await api.http.delete(f"/v1/accounts/{user.id}/api-keys/{key['id']}", headers=ADMIN)
    assert revoked.json()["revoked_at"]
    is_problem(await user.get("/v1/account"), 401, "unauthenticated")
    again = await api.http.delete(f"/v1/accounts/{user.id}/api-keys/{key['id']}", headers=ADMIN)
    assert again.json()["revoked_at"] == revoked.json()["revoked_at"]

    soon = (datetime.now(UTC) + timedelta(milliseconds=400)).isoformat()
    short = bearer(await api.make_key(user.id, ("read",), expires_at=soon))
    assert (await api.http.get("/v1/account", headers=short)).status_code == 200
    await asyncio.sleep(0.5)
    is_problem(await api.http.get("/v1/account", headers=short), 401, "unauthenticated")


async def test_a_key_hands_on_what_it_has_and_no_more(api: Api) -> None:
    user = await api.open_account(("read", "receive"))
    path = f"/v1/accounts/{user.id}/api-keys"
    made = await user.post(path, {"name": "till", "scopes": ["receive"]})
    assert made.json()["key"].startswith("mr_")
    is_problem(await user.post(path, {"name": "x", "scopes": ["receive", "send"]}), 403, "forbidden")

    till = bearer(made.json()["key"])
    (_, first) = (await user.get(path)).json()["items"]
    is_problem(await api.http.delete(f"{path}/{first['id']}", headers=till), 403, "forbidden")
    is_problem(await api.http.get(path, headers=till), 403, "forbidden")
    assert (await user.http.delete(f"{path}/{made.json()['id']}", headers=user.headers)).status_code == 200


async def test_a_key_makes_no_key_that_outlives_it(api: Api) -> None:
    user = await api.open_account()
    path = f"/v1/accounts/{user.id}/api-keys"
    end = datetime.now(UTC) + timedelta(hours=1)
    user.headers = bearer(await api.make_key(user.id, ("read",), expires_at=end.isoformat()))
    is_problem(await user.post(path, {"name": "x", "scopes": ["read"]}), 403, "forbidden")
    later = (end + timedelta(seconds=1)).isoformat()
    is_problem(await user.post(path, {"name": "x", "scopes": ["read"], "expires_at": later}), 403, "forbidden")
    made = await user.post(path, {"name": "x", "scopes": ["read"], "expires_at": end.isoformat()})
    assert made.status_code == 201
    past = {"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}
    is_problem(await user.post(path, past), 422, "invalid_request")


async def test_a_key_is_shown_once(api: Api) -> None:
    user = await api.open_account()
    path, body = f"/v1/accounts/{user.id}/api-keys", {"name": "x", "scopes": ["read"]}
    first, second = await user.post(path, body, key="k"), await user.post(path, body, key="k")
    assert first.json()["key"]
    assert second.status_code == 201
    assert second.json() == {**first.json(), "key": None}
    stored = await api.database.fetchval("SELECT string_agg(k::text, '') FROM bank.api_keys k")
    assert first.json()["key"].split("_", 2)[2] not in stored


async def test_other_peoples_things_are_not_there(api: Api) -> None:
    alice, bob = await api.open_account(), await api.open_account()
    for path in (
        f"/v1/wallets/{bob.wallet_id}",
        f"/v1/wallets/{bob.wallet_id}/transactions",
        f"/v1/accounts/{bob.id}/api-keys",
        "/v1/wallets/%00",
        "/v1/invoices/inv_nothing",
        "/v1/invoices/a%2Fb",
        "/nowhere",
        "/v1/wallets/",
    ):
        is_problem(await alice.get(path), 404, "not_found")
    is_problem(await alice.post("/v1/wallets"), 405, "method_not_allowed")
    assert (await alice.get("/v1/wallets")).json()["items"][0]["id"] == alice.wallet_id


async def test_lists_are_paged_newest_first_and_refuse_made_up_cursors(api: Api) -> None:
    user = await api.open_account()
    path = f"/v1/accounts/{user.id}/api-keys"
    for number in range(4):
        await user.post(path, {"name": f"key {number}", "scopes": ["read"]})
    names, cursor = [], None
    while True:
        page = (await user.get(path, limit=2, **({"after": cursor} if cursor else {}))).json()
        names += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == ["key 3", "key 2", "key 1", "key 0", "test"]

    good = (await user.get(path, limit=1)).json()["next_cursor"]
    for params in (
        {"after": "x"},
        {"after": good[:-4] + "AAAA"},
        {"limit": 0},
        {"limit": 101},
        {"limit": "x"},
        {"page": 1},
    ):
        is_problem(await user.get(path, **params), 422, "invalid_request")
    is_problem(await user.get("/v1/payments", after=good), 422, "invalid_request")
