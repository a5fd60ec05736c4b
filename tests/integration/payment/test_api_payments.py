"""What the API decides about a payment by itself: checks, replays from the books, and Temporal being away."""

import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.domain.ids import AccountId, id_for_key
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, is_problem, running_api
from tests.helpers.invoice.bolt11_encoder import Draft

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def api(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder: Path = tmp_path_factory.mktemp("api")
    async with running_api(shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn, folder) as running:
        await running.database.execute("INSERT INTO bank.nodes(name, pubkey) VALUES ('lnd-1', $1)", "02" + "ab" * 32)
        yield running


@pytest_asyncio.fixture
async def user(api: Api) -> User:
    await api.database.execute("UPDATE bank.nodes SET reported_at = clock_timestamp()")
    return await api.open_account()


def invoice(**changed: object) -> str:
    return Draft(**{"amount": "10u", "timestamp": int(time.time()), **changed}).text()  # type: ignore[arg-type]


async def remember(
    api: Api, user: User, body: dict[str, object], key: str, *, refusal: object = None, **row: object
) -> str:
    """Write what a workflow would have left: a payment, or a refusal."""
    sent = {"wallet_id": user.wallet_id, **body}
    canonical = json.dumps(sent, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(f"POST\n/v1/payments\n{canonical}".encode()).digest()
    payment_id = id_for_key("pay", AccountId(user.id), key)
    if refusal is None:
        columns = {
            "id": payment_id,
            "account_id": user.id,
            "wallet_id": user.wallet_id,
            "kind": "lightning",
            "status": "pending",
            "destination": body["destination"],
            "amount_msat": 1_000_000,
            "max_fee_msat": 10_000,
            "payment_hash": hashlib.sha256(key.encode()).hexdigest(),
            "bolt11": "x",
            "node": "lnd-1",
            "attempt": 1,
            "workflow_id": f"payment-{user.id}-{payment_id[4:]}",
            **row,
        }
        places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        await api.database.execute(
            f"INSERT INTO bank.payments({', '.join(columns)}) VALUES ({places})", *columns.values()
        )
    await api.database.execute(
        """INSERT INTO bank.idempotency_keys(account_id, key, body_hash, resource_id, refusal)
           VALUES ($1, $2, $3, $4, $5)""",
        user.id,
        key,
        digest,
        None if refusal else payment_id,
        json.dumps(refusal) if refusal else None,
    )
    return payment_id


async def test_destinations_that_cannot_be_paid(api: Api, user: User) -> None:
    bob = await api.open_account(username="pay_bob")
    for destination, amount_msat, status, code in (
        ("@pay_nobody", 1, 404, "not_found"),
        ("wallet:nothing", 1, 404, "not_found"),
        ("@pay_bob", None, 422, "amount_required"),
        (f"wallet:{bob.wallet_id}", None, 422, "amount_required"),
        (f"wallet:{user.wallet_id}", 1, 422, "self_payment"),
        (invoice(amount=""), None, 422, "amount_required"),
        (invoice(), 999_999, 422, "amount_mismatch"),
        (invoice(timestamp=1), None, 422, "invoice_expired"),
        (invoice(prefix="lntb"), None, 422, "wrong_network"),
        (invoice().translate(str.maketrans("qp", "pq")), None, 422, "invalid_destination"),
        ("bcrt1qs758ursh4q9z627kt3pp5yysm78ddny6txaqgw", 1, 422, "use_withdrawals"),
    ):
        is_problem(await user.pay(destination, amount_msat=amount_msat), status, code)
    is_problem(await user.pay("@pay_bob", wallet_id=bob.wallet_id, amount_msat=1), 404, "not_found")
    is_problem(await user.pay("@pay_bob", amount_msat=1, spend_limit_sat=1), 422, "invalid_request")


async def test_the_payers_own_invoice_is_refused(user: User) -> None:
    made = await user.post("/v1/invoices", {"wallet_id": user.wallet_id, "amount_msat": 5})
    is_problem(await user.pay(made.json()["bolt11"]), 422, "self_payment")


async def test_without_a_node_that_has_reported_no_lightning_payment_is_begun(api: Api, user: User) -> None:
    await api.database.execute("UPDATE bank.nodes SET reported_at = clock_timestamp() - interval '31 s'")
    answer = await user.pay(invoice())
    is_problem(answer, 503, "node_unavailable")
    assert answer.headers["Retry-After"]


async def test_while_temporal_is_away_nothing_is_begun_and_the_key_stays_unused(api: Api, user: User) -> None:
    bob = await api.open_account()
    answer = await user.pay(f"wallet:{bob.wallet_id}", amount_msat=1, key="away", prefer="wait=0")
    problem = is_problem(answer, 503, "temporarily_unavailable")
    assert answer.headers["Retry-After"]
    assert "127.0.0.1" not in json.dumps(problem)
    assert await api.database.fetchval("SELECT count(*) FROM bank.idempotency_keys WHERE key = 'away'") == 0


async def test_a_final_payment_is_answered_from_the_books_alone(api: Api, user: User) -> None:
    failed = {"status": "failed", "failure_code": "no_route", "failure_detail": "no route now"}
    body: dict[str, object] = {"destination": invoice(), "memo": "x"}
    payment_id = await remember(api, user, body, "final", **failed)
    answer = await user.pay(str(body["destination"]), memo="x", key="final", prefer="wait=0")
    assert answer.status_code == 201
    assert answer.headers["Idempotency-Replayed"] == "true"
    payment = answer.json()
    assert (payment["id"], payment["status"]) == (payment_id, "failed")
    assert payment["failure"] == {"code": "no_route", "detail": "no route now"}
    assert (await user.get(f"/v1/payments/{payment_id}")).json() == payment
    assert (await user.get("/v1/payments")).json()["items"] == [payment]
    is_problem(await user.pay(str(body["destination"]), memo="y", key="final"), 409, "idempotency_conflict")


async def test_a_recorded_refusal_is_the_keys_answer_for_ever(api: Api, user: User) -> None:
    for code, status in (("insufficient_funds", 409), ("payment_in_progress", 409), ("invoice_expired", 422)):
        refusal = {"code": code, "detail": "no", "fields": {"available_msat": 7}}
        await remember(api, user, {"destination": "@gone"}, code, refusal=refusal)
        answer = await user.pay("@gone", key=code)
        assert is_problem(answer, status, code)["available_msat"] == 7
        assert answer.headers["Idempotency-Replayed"] == "true"


async def test_a_pending_payment_that_temporal_cannot_tell_about_is_followed_in_the_books(api: Api, user: User) -> None:
    body: dict[str, object] = {"destination": invoice()}
    payment_id = await remember(api, user, body, "pending")
    answer = await user.pay(str(body["destination"]), key="pending", prefer="wait=0")
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert answer.headers["Location"] == f"/v1/payments/{payment_id}"
    assert answer.headers["Retry-After"]
    held = (await user.get(f"/v1/wallets/{user.wallet_id}/transactions")).json()["items"]
    assert [row["status"] for row in held] == ["pending"]
    await api.database.execute(
        "UPDATE bank.payments SET status = 'settled', settled_at = now(), fee_msat = 12, preimage = $2 WHERE id = $1",
        payment_id,
        "cd" * 32,
    )
    settled = await user.pay(str(body["destination"]), key="pending", prefer="wait=1")
    assert (settled.status_code, settled.json()["fee_msat"]) == (201, 12)


async def test_other_accounts_payments_are_not_there(api: Api, user: User) -> None:
    payment_id = await remember(api, user, {"destination": invoice()}, "mine")
    other = await api.open_account()
    answer = await other.get(f"/v1/payments/{payment_id}")
    is_problem(answer, 404, "not_found")
    is_problem(await user.get("/v1/payments/nonsense"), 404, "not_found")
    # Temporal is away here, and only it could know of a payment that has been accepted and not booked.
    is_problem(await user.get(f"/v1/payments/pay_{'0' * 25}"), 503, "temporarily_unavailable")
