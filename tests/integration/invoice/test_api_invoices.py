"""Invoices over HTTP, with nodes that are up or down as the story needs."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from engine.clients import bolt11
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, Json, User, is_problem, running_api
from tests.helpers.invoice.bolt11_encoder import Draft

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def api(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder: Path = tmp_path_factory.mktemp("api")
    async with running_api(shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn, folder) as running:
        yield running


@pytest_asyncio.fixture
async def user(api: Api) -> User:
    for node in api.nodes.values():
        node.is_up, node.asked, node.cancelled = True, [], []
    return await api.open_account()


async def make(user: User, *, key: str | None = None, **body: object) -> Json:
    answer = await user.post("/v1/invoices", {"wallet_id": user.wallet_id, **body}, key=key)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


async def test_an_invoice_asks_for_what_was_wanted(user: User) -> None:
    made = await make(user, amount_msat=1_001, memo="1 cup ☕", expiry_s=120, external_id="order-1")

    invoice = bolt11.decode(made["bolt11"], network="regtest")
    assert (invoice.amount_msat, invoice.description) == (1_001, "1 cup ☕")
    assert (invoice.expires_at - invoice.created_at).total_seconds() == 120
    assert (made["status"], made["received_msat"], made["settled_at"]) == ("open", 0, None)
    assert made["payment_hash"] == invoice.payment_hash
    assert (await user.get(f"/v1/invoices/{made['id']}")).json() == made
    assert (await user.get("/v1/invoices")).json()["items"] == [made]


async def test_an_invoice_without_amount_and_one_with_a_hashed_description(user: User) -> None:
    assert (await make(user))["amount_msat"] is None
    made = await make(user, description_hash="ab" * 32, memo="kept for ourselves")
    invoice = bolt11.decode(made["bolt11"], network="regtest")
    assert (invoice.description, invoice.description_hash) == (None, "ab" * 32)
    assert made["memo"] == "kept for ourselves"


async def test_one_key_makes_one_invoice_at_one_node(api: Api, user: User) -> None:
    answers = await asyncio.gather(*(make(user, key="k", amount_msat=5) for _ in range(6)))
    assert len({answer["id"] for answer in answers}) == 1
    assert len({preimage for node in api.nodes.values() for preimage in node.asked}) == 1
    other = await user.post("/v1/invoices", {"wallet_id": user.wallet_id, "amount_msat": 6}, key="k")
    is_problem(other, 409, "idempotency_conflict")
    assert (await make(user, amount_msat=5))["id"] != answers[0]["id"]


async def test_a_key_belongs_to_one_account(api: Api, user: User) -> None:
    other = await api.open_account()
    assert (await make(user, key="same"))["id"] != (await make(other, key="same"))["id"]


async def test_a_repeat_after_a_crash_finds_the_nodes_invoice_again(api: Api, user: User) -> None:
    made = await make(user, key="crash", amount_msat=7)
    await api.database.execute("DELETE FROM bank.idempotency_keys WHERE key = 'crash'")
    await api.database.execute("DELETE FROM bank.invoices WHERE id = $1", made["id"])
    again = await make(user, key="crash", amount_msat=7)
    assert (again["id"], again["bolt11"]) == (made["id"], made["bolt11"])


async def test_the_preimage_is_told_to_nobody(api: Api, user: User) -> None:
    made = await make(user, amount_msat=7)
    (preimage,) = [preimage for node in api.nodes.values() for preimage in node.asked]
    assert hashlib.sha256(preimage).hexdigest() == made["payment_hash"]
    stored = await api.database.fetchval("SELECT string_agg(i::text, '') FROM bank.invoices i")
    assert preimage.hex() not in stored


async def test_a_node_that_is_down_is_passed_over(api: Api, user: User) -> None:
    api.nodes["lnd-1"].is_up = False
    for _ in range(4):
        await make(user)
    assert len(api.nodes["lnd-2"].asked) == 4
    api.nodes["lnd-2"].is_up = False
    answer = await user.post("/v1/invoices", {"wallet_id": user.wallet_id}, key="down")
    is_problem(answer, 503, "node_unavailable")
    assert answer.headers["Retry-After"]
    api.nodes["lnd-1"].is_up = True
    await make(user, key="down")


async def test_nodes_that_have_reported_lately_come_first(api: Api, user: User) -> None:
    await api.database.execute(
        "INSERT INTO bank.nodes(name, pubkey) VALUES ('lnd-2', $1) ON CONFLICT DO NOTHING", "02" + "ab" * 32
    )
    for _ in range(5):
        await make(user)
    assert len(api.nodes["lnd-2"].asked) == 5
    await api.database.execute("DELETE FROM bank.nodes")


async def test_an_external_id_is_used_once_per_account(api: Api, user: User) -> None:
    await make(user, external_id="a")
    answer = await user.post("/v1/invoices", {"wallet_id": user.wallet_id, "external_id": "a"})
    is_problem(answer, 409, "external_id_taken")
    await make(await api.open_account(), external_id="a")


async def test_a_malformed_invoice_is_refused(api: Api, user: User) -> None:
    other = await api.open_account()
    is_problem(await user.post("/v1/invoices", {"wallet_id": other.wallet_id}), 404, "not_found")
    for body in (
        {"expiry_s": 0},
        {"expiry_s": 604_801},
        {"description_hash": "AB" * 32},
        {"description_hash": "ab" * 32 + "\n"},
        {"external_id": ""},
        {"private": True},
    ):
        is_problem(await user.post("/v1/invoices", {"wallet_id": user.wallet_id, **body}), 422, "invalid_request")
    await api.database.execute("UPDATE bank.accounts SET status = 'closed' WHERE id = $1", user.id)
    is_problem(await user.post("/v1/invoices", {"wallet_id": user.wallet_id}), 409, "account_locked")
    await api.database.execute("UPDATE bank.accounts SET status = 'locked' WHERE id = $1", user.id)
    await make(user)


async def test_cancelling_is_told_to_the_node_first_and_can_be_repeated(api: Api, user: User) -> None:
    made = await make(user, amount_msat=9)
    path = f"/v1/invoices/{made['id']}/cancel"
    for node in api.nodes.values():
        node.is_up = False
    is_problem(await user.post(path, key="c"), 503, "node_unavailable")
    assert (await user.get(f"/v1/invoices/{made['id']}")).json()["status"] == "open"
    for node in api.nodes.values():
        node.is_up = True

    first, second, third = await user.post(path, key="c"), await user.post(path, key="c"), await user.post(path)
    assert first.json() == second.json() == third.json() == {**made, "status": "cancelled"}
    assert {first.status_code, second.status_code, third.status_code} == {200}
    assert second.headers["Idempotency-Replayed"] == "true"
    assert [made["payment_hash"]] == [asked for node in api.nodes.values() for asked in node.cancelled]
    other = await api.open_account()
    is_problem(await other.post(path), 404, "not_found")


async def test_a_paid_invoice_cannot_be_cancelled(api: Api, user: User) -> None:
    made = await make(user, amount_msat=9)
    for node in api.nodes.values():
        node.paid.add(made["payment_hash"])
    is_problem(await user.post(f"/v1/invoices/{made['id']}/cancel"), 409, "invoice_already_paid")
    await api.database.execute(
        """UPDATE bank.invoices SET status = 'settled', settled_at = now(), received_msat = 9, outside_msat = 9,
           outside_at = now() WHERE id = $1""",
        made["id"],
    )
    is_problem(await user.post(f"/v1/invoices/{made['id']}/cancel", key="x"), 409, "invoice_already_paid")
    (row,) = (await user.get(f"/v1/wallets/{user.wallet_id}/transactions")).json()["items"]
    assert (row["kind"], row["direction"], row["amount_msat"], row["reference"]) == ("invoice", "in", 9, made["id"])


async def test_an_open_invoice_past_its_expiry_is_shown_as_expired(api: Api, user: User) -> None:
    made = await make(user)
    past = datetime.now(UTC) - timedelta(seconds=1)
    await api.database.execute("UPDATE bank.invoices SET expires_at = $1 WHERE id = $2", past, made["id"])
    assert (await user.get(f"/v1/invoices/{made['id']}")).json()["status"] == "expired"
    cancelled = await user.post(f"/v1/invoices/{made['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "expired")


async def test_decode_tells_what_a_destination_is(api: Api, user: User) -> None:
    bob = await api.open_account(username="decode_bob")
    made = await make(bob, amount_msat=1_500, memo="tea")
    ours = (await user.post("/v1/decode", {"destination": "LIGHTNING:" + made["bolt11"].upper()})).json()
    assert (ours["kind"], ours["own"], ours["amount_msat"], ours["description"]) == ("bolt11", True, 1_500, "tea")
    old = (await user.post("/v1/decode", {"destination": Draft(timestamp=1).text()})).json()
    assert (old["own"], old["expired"], old["amount_msat"]) == (False, True, None)
    name = (await user.post("/v1/decode", {"destination": "@DECODE_bob"})).json()
    assert (name["kind"], name["own"], name["username"]) == ("internal", True, "DECODE_bob")
    for destination, status, code in (
        ("@nobody_here", 404, "not_found"),
        ("wallet:nothing", 404, "not_found"),
        ("bcrt1qs758ursh4q9z627kt3pp5yysm78ddny6txaqgw", 422, "use_withdrawals"),
        (Draft(prefix="lnbc").text(), 422, "wrong_network"),
        ("bob@nowhere.invalid", 503, "destination_unavailable"),
    ):
        is_problem(await user.post("/v1/decode", {"destination": destination}), status, code)
    is_problem(await api.http.post("/v1/decode", json={"destination": "@x"}, headers=ADMIN), 403, "forbidden")


async def test_nobody_can_put_another_invoice_around_a_hash_of_ours(user: User) -> None:
    made = await make(user, amount_msat=5_000)
    forged = Draft(amount="10p", payment_hash=bytes.fromhex(made["payment_hash"])).text()
    is_problem(await user.post("/v1/decode", {"destination": forged}), 422, "invalid_destination")


async def test_each_of_many_made_at_once_gets_its_own_answer(api: Api, user: User) -> None:
    other = await api.open_account()
    closed = await api.open_account()
    await api.database.execute("UPDATE bank.accounts SET status = 'closed' WHERE id = $1", closed.id)

    def make(payee: User, key: str | None = None, **body: Any) -> Awaitable[httpx.Response]:
        return payee.post("/v1/invoices", {"wallet_id": payee.wallet_id, "amount_msat": 1_000, **body}, key=key)

    taken = (await make(user, external_id="taken")).json()
    answers = await asyncio.gather(
        make(user),
        make(other, memo="x"),
        make(user, external_id="taken"),
        make(user, "same", memo="a"),
        make(user, "same", memo="a"),
        make(user, "same", memo="b"),
        make(other, "same", memo="b"),
        make(closed),
        make(user, wallet_id=other.wallet_id),
    )
    statuses = [answer.status_code for answer in answers]
    assert statuses[:3] == [201, 201, 409]
    assert statuses[6:] == [201, 409, 404]
    assert [answers[2].json()["code"], answers[7].json()["code"]] == ["external_id_taken", "account_locked"]
    same = answers[3:6]
    assert sorted(statuses[3:6]) in ([201, 201, 409], [201, 409, 409])
    assert len({answer.json()["id"] for answer in same if answer.status_code == 201}) == 1
    made = [answer.json() for answer in answers if answer.status_code == 201]
    for payee in (user, other):
        listed = (await payee.get("/v1/invoices")).json()["items"]
        expected = {each["id"] for each in [taken, *made] if each["wallet_id"] == payee.wallet_id}
        assert {each["id"] for each in listed} == expected
