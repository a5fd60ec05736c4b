"""Fees over the API: operators look, try and set; users are quoted what they will pay."""

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, bearer, is_problem, running_api
from tests.helpers.invoice.bolt11_encoder import Draft

pytestmark = pytest.mark.integration

CONTENT: dict[str, Any] = {
    "internal": [{"exempt": {"levels": [3]}}, {"flat_msat": 500}],
    "lightning_out": [{"flat_msat": 1_000}, {"proportional_ppm": 2_500}],
}


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as running:
        yield running


async def put(api: Api, content: Any, version: int = 2, headers: dict[str, str] = ADMIN, note: str = "why") -> Any:
    body = {"content": content, "note": note, "version": version}
    return await api.http.put("/v1/admin/fees", json=body, headers=headers)


async def audit(api: Api) -> list[dict[str, Any]]:
    rows = await api.database.fetch(
        "SELECT operator, action, subject, detail FROM bank.audit WHERE action LIKE 'fees.%' ORDER BY id"
    )
    return [{**row, "detail": json.loads(row["detail"])} for row in rows]


async def preview(api: Api, **body: Any) -> httpx.Response:
    return await api.http.post("/v1/admin/fees/preview", json=body, headers=ADMIN)


async def test_in_the_beginning_nothing_costs_anything(api: Api) -> None:
    shown = (await api.http.get("/v1/admin/fees", headers=ADMIN)).json()
    assert (shown["version"], shown["content"], shown["set_by"]) == (1, {}, "migration")
    tried = (await preview(api, kind="internal", amount_msat=5)).json()
    assert tried == {"version": 1, "fee_msat": 0, "steps": []}


async def test_finance_sets_the_next_version_and_the_trail_names_it(api: Api) -> None:
    clerk = await api.open_account()
    finance = bearer(await api.make_key(clerk.id, ("finance",)))
    made = await put(api, CONTENT, headers=finance, note="fees from May on")
    assert made.status_code == 200, made.text
    assert (made.json()["version"], made.json()["content"], made.json()["set_by"]) == (2, CONTENT, clerk.id)
    assert (await api.http.get("/v1/admin/fees", headers=finance)).json() == made.json()
    assert (await api.http.get("/v1/admin/fees/2", headers=finance)).json() == made.json()
    assert (await api.http.get("/v1/admin/fees/1", headers=finance)).json()["content"] == {}
    is_problem(await api.http.get("/v1/admin/fees/3", headers=finance), 404, "not_found")
    assert await audit(api) == [
        {"operator": clerk.id, "action": "fees.set", "subject": "version 2", "detail": {"note": "fees from May on"}}
    ]


async def test_a_repeat_gets_its_version_and_whoever_is_second_is_told(api: Api) -> None:
    first = await put(api, CONTENT)
    assert (await put(api, CONTENT)).json() == first.json()
    is_problem(await put(api, {}), 409, "version_conflict")
    is_problem(await put(api, CONTENT, note="another"), 409, "version_conflict")
    is_problem(await put(api, CONTENT, version=4), 409, "version_conflict")
    assert len(await audit(api)) == 1
    assert (await put(api, {}, version=3)).status_code == 200


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"lightning_out": [{"flat_msat": 1}, {"flat_msat": -1}]}, "lightning_out[1].flat_msat"),
        (
            {"internal": [{"tiered": [{"from_msat": 0, "to_msat": 10}, {"from_msat": 9}]}]},
            "internal[0].tiered[1]",
        ),
        ({"internal": [{"flat_msat": 1.5}]}, "internal[0].flat_msat"),
        ({"interest": []}, "'interest'"),
    ],
)
async def test_a_schedule_that_cannot_be_used_changes_nothing(api: Api, content: Any, place: str) -> None:
    for answer in (await put(api, content), await preview(api, kind="internal", amount_msat=1, content=content)):
        problem = is_problem(answer, 422, "invalid_request")
        assert problem["place"] == place
        assert place in problem["detail"]
    assert (await api.http.get("/v1/admin/fees", headers=ADMIN)).json()["version"] == 1
    assert await audit(api) == []


async def test_only_finance_and_admin_may(api: Api) -> None:
    user = await api.open_account(("read", "receive", "send"))
    support = bearer(await api.make_key(user.id, ("support", "treasury")))
    for headers in (user.headers, support):
        is_problem(await put(api, {}, headers=headers), 403, "forbidden")
        for path in ("/v1/admin/fees", "/v1/admin/fees/1"):
            is_problem(await api.http.get(path, headers=headers), 403, "forbidden")
        answer = await api.http.post("/v1/admin/fees/preview", json={}, headers=headers)
        is_problem(answer, 403, "forbidden")


async def test_a_preview_tells_the_fee_after_each_step(api: Api) -> None:
    tried = (await preview(api, kind="lightning_out", amount_msat=1_000_001, content=CONTENT)).json()
    assert tried == {
        "version": None,
        "fee_msat": 3_501,
        "steps": [{"step": "flat_msat", "fee_msat": 1_000}, {"step": "proportional_ppm", "fee_msat": 3_501}],
    }
    await put(api, CONTENT)
    tried = (await preview(api, kind="internal", amount_msat=1_000_001, level=3)).json()
    assert tried == {"version": 2, "fee_msat": 0, "steps": [{"step": "exempt", "fee_msat": 0}]}
    for wrong in ({"kind": "loan"}, {"amount_msat": 0}, {"level": 10}):
        is_problem(await preview(api, **{"kind": "internal", "amount_msat": 5} | wrong), 422, "invalid_request")


async def test_a_user_is_quoted_the_exact_fee_inside_and_an_estimate_outside(api: Api) -> None:
    await put(api, CONTENT)
    alice, bob, favoured = await api.open_account(), await api.open_account(), await api.open_account(level=3)
    told = await alice.quote(f"wallet:{bob.wallet_id}", amount_msat=7_000)
    assert (told["kind"], told["amount_msat"], told["fee_source"]) == ("internal", 7_000, "exact")
    assert told["fee_msat"] == told["max_fee_msat"] == 500
    assert 50 < (datetime.fromisoformat(told["expires_at"]) - datetime.now(UTC)).total_seconds() <= 60
    assert (await favoured.quote(f"wallet:{bob.wallet_id}", amount_msat=7_000))["fee_msat"] == 0
    invoice = Draft(amount="10u", timestamp=int(time.time()), expiry_s=20).text()
    told = await alice.quote(invoice)
    assert (told["kind"], told["amount_msat"], told["fee_source"]) == ("lightning", 1_000_000, "estimate")
    assert told["fee_msat"] == told["max_fee_msat"] == 1_000 + 2_500 + 10_000
    assert (datetime.fromisoformat(told["expires_at"]) - datetime.now(UTC)).total_seconds() <= 20


async def test_an_unpayable_destination_is_not_quoted(api: Api) -> None:
    alice, bob = await api.open_account(), await api.open_account()
    for destination, body, status, code in (
        (f"wallet:{alice.wallet_id}", {"amount_msat": 1}, 422, "self_payment"),
        (f"wallet:{bob.wallet_id}", {}, 422, "amount_required"),
        ("@nobody_here", {"amount_msat": 1}, 404, "not_found"),
        (f"wallet:{bob.wallet_id}", {"amount_msat": 1, "wallet_id": bob.wallet_id}, 404, "not_found"),
        (Draft(amount="10u", timestamp=1).text(), {}, 422, "invoice_expired"),
    ):
        sent = {"wallet_id": alice.wallet_id, "destination": destination, **body}
        is_problem(await alice.post("/v1/payments/quote", sent), status, code)
