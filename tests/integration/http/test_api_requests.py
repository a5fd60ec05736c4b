"""Whatever is sent, the answer is what was asked for or a problem document; never a 500, nor a word of our insides."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.service.lookup import Lookups
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, User, is_problem, running_api

pytestmark = pytest.mark.integration

POSTS = [
    *("/v1/accounts", "/v1/payments", "/v1/invoices", "/v1/decode", "/v1/accounts/{id}/api-keys"),
    *("/v1/payments/quote", "/v1/withdraw-links", "/v1/admin/fees/preview"),
]
BATCH = "/v1/payments/batch"
"""Has a bound of its own for its body."""
GETS = [
    "/v1/wallets/{}",
    "/v1/wallets/{}/transactions",
    "/v1/wallets/{}/statement",
    "/v1/payments/{}",
    "/v1/payments/batch/{}",
    "/v1/invoices/{}",
    "/v1/withdraw-links/{}",
    "/v1/accounts/{}/api-keys",
]


@pytest_asyncio.fixture(scope="module")
async def api(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder: Path = tmp_path_factory.mktemp("api")
    async with running_api(
        shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn, folder, max_body_bytes=20_000, rate_limit_per_minute=0
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def user(api: Api) -> User:
    return await api.open_account(("read", "receive", "send", "admin"))


async def post_raw(user: User, path: str, body: bytes) -> Any:
    headers = {**user.headers, "Idempotency-Key": "k"}
    return await user.http.post(path.format(id=user.id), content=body, headers=headers)


@pytest.mark.parametrize("path", [*POSTS, BATCH])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"{'a': 1}", 400),
        (b"\xff\xfe{}", 400),
        (b'{"a": NaN}', 400),
        (b'{"a": Infinity}', 400),
        (b"null", 422),
        (b"[]", 422),
        (b'"x"', 422),
        (b"1", 422),
        (b'{"a": 1, "a": 2}', 422),
        (b'{"\\ud800": 1}', 422),
        (b'{"destination": "\\ud800"}', 422),
        (b"[" * 9_000 + b"]" * 9_000, 422),
        (b'{"a":' * 100 + b"1" + b"}" * 100, 422),
        (b'{"unknown": 1}', 422),
        (b'{"a": 1e999}', 422),
        (b"9" * 5_000, 400),
    ],
)
async def test_bodies_that_are_not_what_was_asked_for(user: User, path: str, body: bytes, status: int) -> None:
    is_problem(await post_raw(user, path, body), status, "invalid_request")


@pytest.mark.parametrize("path", POSTS)
async def test_a_body_above_the_limit_is_not_read(user: User, path: str) -> None:
    is_problem(await post_raw(user, path, b" " * 20_001), 413, "request_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 1_000

    headers = {**user.headers, "Idempotency-Key": "k"}
    answer = await user.http.post(path.format(id=user.id), content=chunks(), headers=headers)
    is_problem(answer, 413, "request_too_large")


@pytest.mark.parametrize(
    "amount",
    [0, -1, 2**53, 2**64, 10**400, 1.0, 1.5, 1e3, "1000", True, [1], {"a": 1}, "NaN"],
    ids=lambda a: str(a)[:20],
)
@pytest.mark.parametrize("path", ["/v1/payments", "/v1/invoices"])
async def test_amounts_are_whole_numbers_in_their_bounds(user: User, path: str, amount: object) -> None:
    body = {"wallet_id": user.wallet_id, "amount_msat": amount}
    if path == "/v1/payments":
        body["destination"] = "@nobody"
    problem = is_problem(await user.post(path, body, key="k"), 422, "invalid_request")
    assert "amount_msat" in problem["detail"]


@pytest.mark.parametrize(
    "memo", ["a\0b", "x" * 640, "é" * 320, 7, ["x"]], ids=["nul", "too long", "too many bytes", "number", "list"]
)
async def test_memos_fit(user: User, memo: object) -> None:
    for path in ("/v1/payments", "/v1/invoices"):
        body = {"wallet_id": user.wallet_id, "destination": "@nobody", "amount_msat": 1, "memo": memo}
        if path == "/v1/invoices":
            del body["destination"]
        is_problem(await user.post(path, body, key="k"), 422, "invalid_request")


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é", "a\tb"])
async def test_malformed_idempotency_keys(user: User, key: str) -> None:
    headers: Any = {**user.headers, "Idempotency-Key": key.encode()}
    for path in ("/v1/payments", "/v1/invoices"):
        is_problem(await user.http.post(path, json={}, headers=headers), 400, "invalid_request")


async def test_keys_are_asked_for_before_the_body_and_callers_before_both(user: User) -> None:
    is_problem(await user.http.post("/v1/payments", content=b"{"), 401, "unauthenticated")
    is_problem(
        await user.http.post("/v1/payments", content=b"{", headers=user.headers), 400, "idempotency_key_required"
    )
    twice = [*user.headers.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    is_problem(await user.http.post("/v1/payments", content=b"{", headers=twice), 400, "invalid_request")


async def test_equal_json_is_the_same_request_however_it_is_written(user: User) -> None:
    path = f"/v1/accounts/{user.id}/api-keys"
    headers = {**user.headers, "Idempotency-Key": "json"}
    first = await user.http.post(path, content=b'{"name":"\xc3\xa9","scopes":["read"]}', headers=headers)
    second = await user.http.post(path, content=b' {"scopes" : ["read"],\n"name":"\\u00e9"}', headers=headers)
    assert first.status_code == second.status_code == 201
    assert first.json()["id"] == second.json()["id"]
    is_problem(
        await user.http.post(path, content=b'{"name":"e","scopes":["read"]}', headers=headers),
        409,
        "idempotency_conflict",
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            *("wallet_id", "destination", "amount_msat", "memo", "max_fee_msat", "external_id", "username", "name"),
            *("scopes", "expires_at", "level", "expiry_s", "description_hash", "items"),
        ]
    ),
    JSON | st.sampled_from(["@bob", "wallet:x", "lnbcrt1", "2999-12-31T23:59:59-23:59", "read", ["read"]]),
    max_size=6,
)
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@given(path=st.sampled_from([*POSTS, BATCH]), body=FIELDS | JSON, own=st.booleans())
async def test_no_json_is_answered_with_a_500(user: User, path: str, body: Any, own: bool) -> None:  # noqa: FBT001
    if own and isinstance(body, dict):
        body["wallet_id"] = user.wallet_id
    answer = await post_raw(user, path, json.dumps(body).encode())
    assert answer.status_code < 500 or answer.json()["code"] in {"node_unavailable", "temporarily_unavailable"}
    assert answer.headers["content-type"].split(";")[0] in {"application/json", "application/problem+json"}


@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@given(path=st.sampled_from([*POSTS, BATCH]), body=st.binary(max_size=300), key=st.binary(min_size=1, max_size=30))
async def test_no_bytes_are_answered_with_a_500(user: User, path: str, body: bytes, key: bytes) -> None:
    key = key.translate(None, b"\r\n\0")
    headers: Any = {**user.headers, "Idempotency-Key": key, "Prefer": key}
    answer = await user.http.post(path.format(id=user.id), content=body, headers=headers)
    assert answer.status_code < 500 or answer.json()["code"] == "temporarily_unavailable"


@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@given(path=st.sampled_from(GETS), text=st.text(max_size=30), after=st.text(max_size=60), limit=st.text(max_size=5))
async def test_no_path_or_query_is_answered_with_a_500(
    user: User, path: str, text: str, after: str, limit: str
) -> None:
    text = text.encode("utf-8", "replace").decode()
    for place in (text, user.wallet_id, user.id):
        url = path.format(place.replace("?", "").replace("#", ""))
        try:
            request = user.http.build_request("GET", url, params={"after": after, "limit": limit}, headers=user.headers)
        except Exception:  # noqa: BLE001, S112 - no URL
            continue
        answer = await user.http.send(request)
        assert answer.status_code < 500 or answer.json()["code"] == "temporarily_unavailable"


async def test_an_unexpected_error_says_nothing_about_our_insides(api: Api, user: User) -> None:
    resources = api.resources
    api.app.state.resources = None
    try:
        problem = is_problem(await user.get("/v1/account"), 500, "internal_error")
    finally:
        api.app.state.resources = resources
    assert "NoneType" not in json.dumps(problem)


async def test_openapi_says_the_scope_the_codes_and_an_example_of_every_operation(api: Api) -> None:
    schema = (await api.http.get("/openapi.json")).json()
    assert (await api.http.get("/docs")).status_code == 200
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) == 99, sorted(operations)
    for name, operation in operations.items():
        assert operation["summary"], name
        assert operation["tags"], name
        if "/v1/" not in name:
            continue
        assert "Scope: `" in operation["description"] or "Role: `" in operation["description"], name
        assert operation["security"], name
        assert {"401", "429", "500", "503"} <= set(operation["responses"]), name
        if name.startswith("POST") and not name.endswith(("/cancel", "/reconciliation")):
            assert operation["requestBody"]["content"]["application/json"]["examples"], name
    assert "HTTPValidationError" not in json.dumps(schema)


async def test_health_needs_no_key_and_readiness_names_what_is_away(api: Api) -> None:
    assert (await api.http.get("/healthz")).json() == {"status": "alive"}
    api.nodes["lnd-2"].is_up = False
    problem = is_problem(await api.http.get("/readyz"), 503, "temporarily_unavailable")
    assert problem["up"] == ["postgres", "lnd-1"]
    assert problem["down"] == ["redis", "temporal", "lnd-2", "bitcoind"]
    api.nodes["lnd-2"].is_up = True


async def test_too_many_requests_are_told_when_to_come_back(api: Api, user: User) -> None:
    class Counter:
        async def count_requests(self, callers: Sequence[str]) -> list[tuple[int, int]]:
            return [(11, 42)] * len(callers)

    before = api.resources
    api.change(
        lookups=Lookups(before.pool, cast("Any", Counter())),
        settings=before.settings.model_copy(update={"rate_limit_per_minute": 10}),
    )
    try:
        answer = await user.get("/v1/account")
    finally:
        api.app.state.resources = before
    is_problem(answer, 429, "rate_limited")
    assert answer.headers["Retry-After"] == "42"
    assert (await api.http.get("/v1/account", headers=ADMIN)).status_code == 403
