"""Batches without Temporal: the API in this process, and the activity that a worker would run, called directly."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import TypeAdapter

from activities.batch import Batches
from api.service.batch import batch_run
from engine.bank import limit
from engine.bank.price import Price, read_prices
from engine.contracts.batch import MAX_BODY_BYTES, MAX_ITEMS, BatchItem, BatchOutcome, BatchRequest
from engine.contracts.converter import DATA_CONVERTER
from engine.domain.errors import InvariantBroken
from engine.ledger.chart import Chart
from engine.ledger.database import Connection, transaction
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Json, User, bearer, is_problem
from tests.helpers.limit import set_rules
from tests.helpers.payer import Payers, running_payers

pytestmark = pytest.mark.integration

PATH = "/v1/payments/batch"


class Worker:
    """Runs a batch when it is started, twice if told so, as a worker that was killed after its commit would."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.started: list[BatchRequest] = []
        self.tries = 1
        self.outcomes: list[BatchOutcome] = []

    async def start(self, _client: object, asked: BatchRequest) -> tuple["Worker", bool]:
        self.started.append(asked)
        self.outcomes = [await self._batches.open_batch(asked) for _ in range(self.tries)]
        return self, True

    async def wait_for_end(self, _handle: object, _deadline: object) -> BatchOutcome:
        return self.outcomes[-1]


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    async with running_payers(shared_ledger_db, tmp_path_factory.mktemp("api")) as payers:
        yield payers


@pytest.fixture
def worker(bank: Payers, monkeypatch: pytest.MonkeyPatch) -> Worker:
    made_up = Worker(Batches(bank.pool, Chart()))
    monkeypatch.setattr(batch_run, "start", made_up.start)
    monkeypatch.setattr(batch_run, "wait_for_end", made_up.wait_for_end)
    return made_up


async def payer_of(bank: Payers, funds_msat: int, **account: Any) -> User:
    payer = await bank.api.open_account(**account)
    await bank.fund(payer, funds_msat)
    return payer


async def send(payer: User, items: list[Json], key: str | None = None) -> httpx.Response:
    return await payer.post(PATH, {"wallet_id": payer.wallet_id, "items": items}, key=key or secrets.token_hex(8))


def to(payee: User, amount_msat: int, **more: Any) -> Json:
    return {"destination": f"wallet:{payee.wallet_id}", "amount_msat": amount_msat, **more}


async def nothing_was_paid(bank: Payers, payer: User, funds_msat: int) -> None:
    assert await payer.available() == funds_msat
    for table in ("payments", "batches"):
        assert await bank.pool.fetchval(f"SELECT count(*) FROM bank.{table} WHERE account_id = $1", payer.id) == 0


@pytest.mark.usefixtures("worker")
async def test_names_wallets_and_invoices_are_paid_in_one_batch_and_each_is_a_payment(bank: Payers) -> None:
    alice, bob = await payer_of(bank, 100_000), await bank.api.open_account(username="batch_bob")
    made = (await bob.post("/v1/invoices", {"wallet_id": bob.wallet_id, "amount_msat": 700, "memo": "tea"})).json()
    invoice = {"destination": made["bolt11"].upper()}
    answer = await send(alice, [{"destination": "@BATCH_bob", "amount_msat": 5, "memo": "May"}, invoice, to(bob, 20)])
    batch = answer.json()
    assert (answer.status_code, batch["status"], batch["total_msat"]) == (201, "settled", 725), answer.text
    assert [(item["status"], item["amount_msat"], item["memo"]) for item in batch["items"]] == [
        ("settled", 5, "May"),
        ("settled", 700, None),
        ("settled", 20, None),
    ]
    assert [item["destination"] for item in batch["items"]] == ["@BATCH_bob", made["bolt11"], f"wallet:{bob.wallet_id}"]
    assert (await alice.available(), await bob.available()) == (99_275, 725)
    assert (await alice.get(f"{PATH}/{batch['id']}")).json() == batch
    payments = (await alice.get("/v1/payments")).json()["items"]
    assert {each["id"] for each in payments} == {item["payment_id"] for item in batch["items"]}
    assert {(each["batch_id"], each["workflow_id"]) for each in payments} == {(batch["id"], batch["workflow_id"])}
    assert (await bob.get(f"/v1/invoices/{made['id']}")).json()["status"] == "settled"
    assert len((await bob.get(f"/v1/wallets/{bob.wallet_id}/transactions")).json()["items"]) == 3


@pytest.mark.usefixtures("worker")
async def test_an_address_of_our_own_domain_is_a_user_of_ours(bank: Payers) -> None:
    alice, carol = await payer_of(bank, 10), await bank.api.open_account(username="batch_carol")
    address = f"batch_carol@{bank.api.resources.settings.domain}"
    answer = await send(alice, [{"destination": address, "amount_msat": 4}])
    assert (answer.status_code, answer.json()["items"][0]["destination"]) == (201, address), answer.text
    assert await carol.available() == 4


async def test_a_repeat_gets_the_first_answer_and_moves_nothing(bank: Payers, worker: Worker) -> None:
    alice, bob = await payer_of(bank, 1_000), await bank.api.open_account()
    worker.tries = 2
    first = await send(alice, [to(bob, 1), to(bob, 2)], key="again")
    assert worker.outcomes[0] == worker.outcomes[1]
    again = await send(alice, [to(bob, 1), to(bob, 2)], key="again")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(worker.started) == 1
    is_problem(await send(alice, [to(bob, 1), to(bob, 3)], key="again"), 409, "idempotency_conflict")
    is_problem(await alice.pay(f"wallet:{bob.wallet_id}", amount_msat=1, key="again"), 409, "idempotency_conflict")
    assert (await alice.available(), await bob.available()) == (997, 3)


async def test_two_that_come_at_once_with_one_key_are_one(bank: Payers) -> None:
    alice, bob = await payer_of(bank, 1_000), await bank.api.open_account()
    batches = Batches(bank.pool, Chart())
    asked = request_for(alice, [BatchItem(destination="x", payee_wallet_id=bob.wallet_id, amount_msat=7)])  # type: ignore[arg-type]
    assert (
        await asyncio.gather(*(batches.open_batch(asked) for _ in range(4)))
        == [BatchOutcome(body_hash=asked.body_hash, count=1)] * 4
    )
    assert await bob.available() == 7


def request_for(payer: User, items: list[BatchItem]) -> BatchRequest:
    return TypeAdapter(BatchRequest).validate_python(
        {
            "batch_id": f"batch_{secrets.token_hex(8)}",
            "account_id": payer.id,
            "wallet_id": payer.wallet_id,
            "idempotency_key": secrets.token_hex(8),
            "body_hash": "ab" * 32,
            "api_key_id": "key_none",
            "items": [asdict(item) for item in items],
        }
    )


@pytest.mark.usefixtures("worker")
async def test_one_item_above_the_balance_and_nobody_is_paid(bank: Payers) -> None:
    alice, bob = await payer_of(bank, 100), await bank.api.open_account()
    items = [to(bob, 60), to(bob, 40), to(bob, 1), to(bob, 1)]
    first = await send(alice, items, key="much")
    problem = is_problem(first, 409, "insufficient_funds")
    assert (problem["item"], problem["needed_msat"], problem["available_msat"]) == (2, 1, 0)
    await bank.fund(alice, 100)
    again = await send(alice, items, key="much")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
    await nothing_was_paid(bank, alice, 200)


@pytest.mark.usefixtures("worker")
async def test_an_invoice_twice_in_one_batch_is_refused_with_the_second(bank: Payers) -> None:
    alice, bob = await payer_of(bank, 100), await bank.api.open_account()
    made = (await bob.post("/v1/invoices", {"wallet_id": bob.wallet_id, "amount_msat": 10})).json()
    invoice = {"destination": made["bolt11"], "amount_msat": 10}
    problem = is_problem(await send(alice, [to(bob, 1), invoice, to(bob, 1), invoice]), 409, "invoice_already_paid")
    assert problem["item"] == 3
    await nothing_was_paid(bank, alice, 100)
    assert (await bob.get(f"/v1/invoices/{made['id']}")).json()["status"] == "open"
    assert (await send(alice, [invoice])).status_code == 201


@pytest.mark.usefixtures("worker")
async def test_a_closed_payee_and_a_locked_payer_stop_all_of_it(bank: Payers) -> None:
    alice, bob, gone = await payer_of(bank, 100), await bank.api.open_account(), await bank.api.open_account()
    for user, status in ((gone, "closed"), (alice, "locked")):
        if user is alice:
            assert is_problem(await send(alice, [to(bob, 1), to(gone, 1)]), 409, "payee_closed")["item"] == 1
        changed = await bank.api.http.patch(
            f"/v1/admin/accounts/{user.id}", json={"status": status, "note": "test"}, headers=ADMIN
        )
        assert changed.status_code == 200, changed.text
    assert is_problem(await send(alice, [to(bob, 1)]), 409, "account_locked")["item"] == 0
    await nothing_was_paid(bank, alice, 100)


@pytest.mark.usefixtures("worker")
async def test_a_keys_cap_counts_each_item(bank: Payers) -> None:
    alice, bob = await payer_of(bank, 10_000_000), await bank.api.open_account()
    key = await bank.api.make_key(alice.id, ("read", "send"), spend_limit_sat={"day": 10})
    capped = User(alice.http, alice.id, alice.wallet_id, bearer(key))
    problem = is_problem(await send(capped, [to(bob, 5_000), to(bob, 5_000), to(bob, 1)]), 409, "spend_limit_exceeded")
    assert problem["item"] == 2
    assert (await send(capped, [to(bob, 5_000), to(bob, 5_000)])).status_code == 201
    problem = is_problem(await send(capped, [to(bob, 1)]), 409, "spend_limit_exceeded")
    assert problem["item"] == 0


async def test_an_item_that_is_not_clearly_ours_is_named_and_leaves_the_key_unused(
    bank: Payers, worker: Worker
) -> None:
    alice, bob = await payer_of(bank, 100), await bank.api.open_account()
    mine = (await alice.post("/v1/invoices", {"wallet_id": alice.wallet_id, "amount_msat": 10})).json()["bolt11"]
    his = (await bob.post("/v1/invoices", {"wallet_id": bob.wallet_id, "amount_msat": 10})).json()["bolt11"]
    for bad, code in (
        ({"destination": "@batch_nobody", "amount_msat": 1}, "invalid_destination"),
        ({"destination": "wallet:wal_nothing", "amount_msat": 1}, "invalid_destination"),
        ({"destination": "lnbcrt1nonsense", "amount_msat": 1}, "invalid_destination"),
        ({"destination": "bob@elsewhere.example", "amount_msat": 1}, "invalid_destination"),
        ({"destination": his[:-1] + ("q" if his[-1] != "q" else "p")}, "invalid_destination"),
        ({"destination": "L" + his[1:]}, "invalid_destination"),
        ({"destination": "bcrt1qs758ursh4q9z627kt3pp5yysm78ddny6txaqgw", "amount_msat": 1}, "use_withdrawals"),
        ({"destination": f"wallet:{bob.wallet_id}"}, "amount_required"),
        ({"destination": his, "amount_msat": 11}, "amount_mismatch"),
        ({"destination": mine}, "self_payment"),
        (to(alice, 1), "self_payment"),
    ):
        problem = is_problem(await send(alice, [to(bob, 1), bad], key="unused"), 422, code)
        assert problem["item"] == 1, bad
    most = 2**53 - 1
    is_problem(await send(alice, [to(bob, most), to(bob, 1)], key="unused"), 422, "invalid_request")
    assert worker.started == []
    assert (await send(alice, [to(bob, 1)], key="unused")).status_code == 201


async def test_bounds_of_a_batch(bank: Payers, worker: Worker) -> None:
    alice, bob = await payer_of(bank, 10_000), await bank.api.open_account()
    is_problem(await send(alice, []), 422, "invalid_request")
    is_problem(await send(alice, [to(bob, 1)] * (MAX_ITEMS + 1)), 422, "invalid_request")
    is_problem(await alice.post(PATH, {"x": "y" * MAX_BODY_BYTES}, key="k"), 413, "request_too_large")
    is_problem(await alice.post(PATH, {"wallet_id": bob.wallet_id, "items": [to(bob, 1)]}, key="k"), 404, "not_found")
    is_problem(await alice.post(PATH, {}), 400, "idempotency_key_required")
    answer = await send(alice, [to(bob, 1, memo="\x01" * 150)] * MAX_ITEMS)
    assert answer.status_code == 201, answer.text
    assert (await bob.available(), len(answer.json()["items"])) == (MAX_ITEMS, MAX_ITEMS)
    (payload,) = await DATA_CONVERTER.encode([worker.started[-1]])
    assert len(payload.data) <= MAX_BODY_BYTES + 250 * MAX_ITEMS


async def test_the_database_takes_no_part_of_a_batch(bank: Payers) -> None:
    alice = await bank.api.open_account()
    with pytest.raises(InvariantBroken, match="not whole"):
        async with transaction(bank.pool) as conn:
            await conn.execute(
                """INSERT INTO bank.batches(id, account_id, wallet_id, count, total_msat, workflow_id)
                   VALUES ('batch_part', $1, $2, 2, 7, 'w')""",
                alice.id,
                alice.wallet_id,
            )


async def test_while_temporal_is_away_nothing_is_begun(bank: Payers) -> None:
    alice, bob = await payer_of(bank, 10), await bank.api.open_account()
    is_problem(await send(alice, [to(bob, 1)], key="away"), 503, "temporarily_unavailable")
    await nothing_was_paid(bank, alice, 10)


@pytest.mark.usefixtures("worker")
async def test_each_item_costs_its_own_fee(bank: Payers) -> None:
    alice, bob = await payer_of(bank, 10_000), await bank.api.open_account()
    await set_rules(bank, "fees", {"internal": [{"flat_msat": 10}, {"proportional_ppm": 1_000}]})
    try:
        answer = await send(alice, [to(bob, 1_000), to(bob, 2_500), to(bob, 1)])
        assert answer.status_code == 201, answer.text
        assert [item["fee_msat"] for item in answer.json()["items"]] == [11, 13, 11]
        assert (await alice.available(), await bob.available()) == (10_000 - 3_501 - 35, 3_501)
        problem = is_problem(await send(alice, [to(bob, 6_000), to(bob, 440)]), 409, "insufficient_funds")
        assert (problem["item"], problem["needed_msat"], problem["available_msat"]) == (1, 451, 448)
        assert await alice.available() == 6_464
    finally:
        await set_rules(bank, "fees", {})


@pytest.mark.usefixtures("worker")
async def test_the_item_that_breaks_the_days_limit_stops_all_and_nothing_of_it_counts(bank: Payers) -> None:
    await set_rules(bank, "limits", {"levels": {"7": {"internal": {"day_sat": 1_000}}}})
    alice, bob = await payer_of(bank, 10_000_000, level=7), await bank.api.open_account()
    problem = is_problem(
        await send(alice, [to(bob, 400_000), to(bob, 500_000), to(bob, 100_001), to(bob, 1)]), 409, "limit_exceeded"
    )
    assert (problem["item"], problem["used_msat"], problem["asked_msat"]) == (2, 900_000, 100_001)
    await nothing_was_paid(bank, alice, 10_000_000)
    (used,) = [item["used_msat"] for item in (await alice.get("/v1/limits")).json()["items"]]
    assert used == 0
    assert (await send(alice, [to(bob, 400_000), to(bob, 600_000)])).status_code == 201
    assert is_problem(await send(alice, [to(bob, 1)]), 409, "limit_exceeded")["item"] == 0


@pytest.mark.usefixtures("worker")
async def test_the_price_is_read_once_for_all_items_of_a_batch(bank: Payers, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []

    async def counting(conn: Connection, currencies: set[str]) -> dict[str, Price]:
        asked.append(currencies)
        return await read_prices(conn, currencies)

    answer = await bank.api.http.put("/v1/admin/prices/USD", json={"price": "100000"}, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    await set_rules(bank, "limits", {"levels": {"8": {"internal": {"day": {"USD": "10.00"}}}}})
    alice, bob = await payer_of(bank, 10**9, level=8), await bank.api.open_account()
    monkeypatch.setattr(limit, "read_prices", counting)
    answer = await send(alice, [to(bob, 4_000_000), to(bob, 4_000_000), to(bob, 2_000_001)])
    problem = is_problem(answer, 409, "limit_exceeded")
    assert (problem["item"], problem["used"], problem["asked"]) == (2, "8.00", "2.000001")
    assert asked == [{"USD"}]
