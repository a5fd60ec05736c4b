"""What the janitor finds in the books, and what it tells Temporal: real Postgres, and a Temporal that only listens."""

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities import janitor as janitors
from activities.janitor import Janitor
from activities.janitor_kind import KINDS
from engine.bank.accepted import note_accepted
from engine.contracts.batch import BatchItem, BatchRequest
from engine.contracts.deposit import DepositRef
from engine.contracts.janitor import Round, Tidied
from engine.contracts.payment import PaymentRequest
from engine.domain.ids import AccountId, ApiKeyId, BatchId, PaymentId, WalletId, id_for_key
from engine.domain.money import Msat
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, running_api
from tests.helpers.ledger.deposit import Depositor
from tests.helpers.payer import Payers

pytestmark = pytest.mark.integration


@dataclass
class FakeTemporal:
    """Says that these run, and remembers what it was told to start."""

    running: set[str] = field(default_factory=set)
    started: dict[str, tuple[str, Any]] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    lists: int = 0

    async def list_workflows(self, query: str, **_: object) -> AsyncIterator["FakeTemporal.Found"]:
        self.lists += 1
        for each in sorted(self.running):
            if f'"{each}"' in query:
                yield FakeTemporal.Found(each)

    async def start_workflow(self, name: str, asked: object, *, id: str, **_: object) -> None:  # noqa: A002 - the SDK's name
        if id in self.refuses:
            raise RPCError("no", RPCStatusCode.INVALID_ARGUMENT, b"")
        if id not in self.running:
            self.started[id] = (name, asked)

    @dataclass
    class Found:
        """A workflow that runs."""

        id: str


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        yield api


@pytest_asyncio.fixture
async def payers(api: Api) -> Payers:
    payers = Payers(api, api.resources.pool)
    await payers.prepare()
    return payers


async def tidy(payers: Payers, temporal: FakeTemporal, *, older_than_s: int = 0) -> Tidied:
    janitor = Janitor(payers.pool, cast("Client", temporal))
    tidied: Tidied = await ActivityEnvironment().run(janitor.tidy_up, Round(older_than_s=older_than_s))
    return tidied


async def held(payers: Payers, alice: User, count: int) -> dict[str, PaymentRequest]:
    """Payments whose money is held, by the id of their workflow."""
    asked = [payers.request(alice, None, 1_000 + number) for number in range(count)]
    for each in asked:
        assert (await payers.payments.open_payment(each)).attempt is not None
    rows = await payers.pool.fetch("SELECT id, workflow_id FROM bank.payments WHERE status = 'pending'")
    ids = {row["id"]: row["workflow_id"] for row in rows}
    return {ids[each.payment_id]: each for each in asked}


async def funded(api: Api, payers: Payers) -> User:
    alice = await api.open_account()
    await payers.fund(alice, 50_000_000)
    return alice


async def test_running_workflows_are_left_alone_and_the_others_are_told_all_they_need(api: Api, payers: Payers) -> None:
    waiting = await held(payers, await funded(api, payers), 5)
    lost = dict(list(waiting.items())[:2])
    temporal = FakeTemporal(running={*waiting} - {*lost})
    assert (await tidy(payers, temporal)).begun["payments"] == 2
    assert {*temporal.started} == {*lost}
    for workflow_id, (name, request) in temporal.started.items():
        known = lost[workflow_id]
        assert (name, request.payment_id, request.idempotency_key) == (
            "PaymentWorkflow",
            known.payment_id,
            known.idempotency_key,
        )
        again = await payers.payments.open_payment(request)  # what the workflow does first
        assert again.attempt is not None
        assert again.attempt.payment_id == known.payment_id
    assert await payers.pool.fetchval("SELECT count(*) FROM ledger.transfers WHERE phase = 'hold'") == 5


async def test_a_payment_that_a_lane_opened_is_given_to_a_workflow_of_its_own(api: Api, payers: Payers) -> None:
    (own,) = await held(payers, await funded(api, payers), 1)
    await api.database.execute("UPDATE bank.payments SET workflow_id = 'lane-gone'")
    temporal = FakeTemporal(running={"lane-gone"})
    assert (await tidy(payers, temporal)).begun["payments"] == 0, "its lane hands it over"
    temporal.running.clear()
    assert (await tidy(payers, temporal)).begun["payments"] == 1
    assert {*temporal.started} == {own}
    assert await payers.pool.fetchval("SELECT workflow_id FROM bank.payments") == own


async def test_the_young_are_left_alone(api: Api, payers: Payers) -> None:
    await held(payers, await funded(api, payers), 2)
    temporal = FakeTemporal()
    assert (await tidy(payers, temporal, older_than_s=3600)).begun["payments"] == 0
    assert temporal.started == {}


async def test_one_that_cannot_be_begun_holds_no_other_up_and_is_told(api: Api, payers: Payers) -> None:
    waiting = await held(payers, await funded(api, payers), 3)
    refused = min(waiting)
    temporal = FakeTemporal(refuses={refused})
    tidied = await tidy(payers, temporal)
    assert tidied.begun["payments"] == 2
    assert waiting[refused].payment_id in tidied.failed["payments"]
    assert (await tidy(payers, FakeTemporal())).begun["payments"] == 3, "the next round tries again"


async def test_rows_that_cannot_be_begun_starve_no_younger_one(
    api: Api, payers: Payers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitors, "_BEGUN_AT_ONCE", 2)
    waiting = await held(payers, await funded(api, payers), 4)
    rows = await payers.pool.fetch("SELECT workflow_id, created_at FROM bank.payments")
    created = {row["workflow_id"]: row["created_at"] for row in rows}
    oldest = sorted(waiting, key=lambda each: created[each])
    temporal = FakeTemporal(refuses={*oldest[:2]})
    janitor = Janitor(payers.pool, cast("Client", temporal))
    first: Tidied = await ActivityEnvironment().run(janitor.tidy_up, Round(older_than_s=0))
    second: Tidied = await ActivityEnvironment().run(janitor.tidy_up, Round(older_than_s=0))
    assert (first.begun["payments"], second.begun["payments"]) == (0, 2)
    assert {*temporal.started} == {*oldest[2:]}
    assert "payments" in second.failed, "and operators are told all the while"


async def test_many_are_walked_through_in_pages(api: Api, payers: Payers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitors, "_PAGE", 3)
    monkeypatch.setattr(janitors, "_ASKED_AT_ONCE", 2)
    waiting = await held(payers, await funded(api, payers), 10)
    lost = max(waiting)
    temporal = FakeTemporal(running={*waiting} - {lost})
    assert (await tidy(payers, temporal)).begun["payments"] == 1
    assert {*temporal.started} == {lost}
    monkeypatch.setattr(janitors, "_BEGUN_AT_ONCE", 4)
    assert (await tidy(payers, FakeTemporal())).begun["payments"] == 4, "of one kind in one round"


async def board(payers: Payers, asked: PaymentRequest | BatchRequest, resource_id: PaymentId | BatchId) -> None:
    async with payers.pool.acquire() as conn:
        now = await conn.fetchval("SELECT clock_timestamp() - interval '1 minute'")
        await note_accepted(
            conn,
            resource_id,
            "lane-gone",
            now,
            bytes.fromhex(asked.body_hash),
            request=asdict(asked),
            kind="payment" if isinstance(asked, PaymentRequest) else "batch",
        )


async def test_an_accepted_request_is_begun_as_it_was_asked_for(api: Api, payers: Payers) -> None:
    alice, bob = await funded(api, payers), await api.open_account()
    action = {"tag": "message", "message": "danke"}
    asked = replace(payers.request(alice, bob, 1_000), success_action=action, memo="ümläut \u2028")
    await board(payers, asked, asked.payment_id)
    account = AccountId(alice.id)
    item = BatchItem(
        destination=f"wallet:{bob.wallet_id}", payee_wallet_id=WalletId(bob.wallet_id), amount_msat=Msat(7)
    )
    batch = BatchRequest(
        batch_id=BatchId(id_for_key("batch", account, "b")),
        account_id=account,
        wallet_id=WalletId(alice.wallet_id),
        idempotency_key="b",
        body_hash="ab" * 32,
        api_key_id=ApiKeyId("key_1"),
        items=[item, item],
    )
    await board(payers, batch, batch.batch_id)
    temporal = FakeTemporal()
    assert (await tidy(payers, temporal)).begun["accepted"] == 2
    assert [*temporal.started.values()] == [("PaymentWorkflow", asked), ("BatchWorkflow", batch)]


async def test_a_request_is_forgotten_once_it_is_opened(api: Api, payers: Payers) -> None:
    alice, bob = await funded(api, payers), await api.open_account()
    asked = payers.request(alice, bob, 1_000)
    await board(payers, asked, asked.payment_id)
    await payers.payments.open_payment(asked)
    temporal = FakeTemporal()
    assert (await tidy(payers, temporal)).begun["accepted"] == 0
    assert await payers.pool.fetchval("SELECT count(*) FROM bank.boarded_payments WHERE request IS NULL") == 1


async def test_deposits_that_a_workflow_follows_or_operators_decide_are_begun_again(api: Api, payers: Payers) -> None:
    alice, depositor = await api.open_account(), Depositor(payers.pool)
    incoming, credited, gone, deep, shared = [await depositor.see(alice, 50_000) for _ in range(5)]
    held, shared_held = [await depositor.see(alice, 60_000, over_limit=True) for _ in range(2)]
    spent, nobodys = await depositor.see(alice, 70_000), await depositor.see(None, 80_000)
    await api.database.execute(
        "UPDATE bank.deposits SET alone = false WHERE id = ANY($1)", [shared, shared_held, nobodys]
    )
    for each in (credited, deep, held, shared_held, spent, nobodys):
        await depositor.book(each, 100)
    await depositor.drop(gone)
    await payers.pay(alice, await api.open_account(), 150_000_000)
    assert await depositor.take_back(spent) > 0
    await api.database.execute("UPDATE bank.deposits SET final_at = now() WHERE id = ANY($1)", [deep, held])
    rows = await payers.pool.fetch("SELECT id, workflow_id FROM bank.deposits")
    workflow_ids = {row["id"]: row["workflow_id"] for row in rows}
    temporal = FakeTemporal()
    lost = [incoming, credited, held, shared_held, spent, nobodys]
    assert (await tidy(payers, temporal)).begun["deposits"] == len(lost)
    assert temporal.started == {workflow_ids[each]: ("DepositWorkflow", DepositRef(deposit=each)) for each in lost}
    running = FakeTemporal(running={*workflow_ids.values()})
    assert (await tidy(payers, running)).begun["deposits"] == 0


async def test_ten_thousand_deposits_that_are_followed_cost_a_hundred_questions(api: Api, payers: Payers) -> None:
    await Depositor(payers.pool).see(await api.open_account(), 50_000)
    await api.database.execute(
        """INSERT INTO bank.deposits(id, txid, vout, address, wallet_id, account_id, amount_sat, sight, required, deep,
                  hold_ref, workflow_id, created_at)
           SELECT format('dep_%s', n), lpad(n::text, 64, '0'), vout, address, wallet_id, account_id, amount_sat, sight,
                  required, deep, format('hold %s', n), format('deposit-of-many-%s', n),
                  created_at - make_interval(secs => n) FROM bank.deposits, generate_series(1, 9999) n"""
    )
    rows = await payers.pool.fetch("SELECT workflow_id FROM bank.deposits")
    temporal = FakeTemporal(running={row["workflow_id"] for row in rows})
    janitor = Janitor(payers.pool, cast("Client", temporal))
    found = await janitor._find_lost(KINDS["deposits"], timedelta(0))
    assert (found, temporal.lists, temporal.started) == ([], 100, {})


async def test_ten_thousand_that_run_cost_a_hundred_questions_and_no_start(api: Api, payers: Payers) -> None:
    """What a payee keeps for days waits by right: a round costs a list for each hundred of ids, and nothing else."""
    await held(payers, await funded(api, payers), 1)
    await api.database.execute(
        """INSERT INTO bank.payments(id, account_id, wallet_id, kind, status, destination, amount_msat, max_fee_msat,
                  payment_hash, bolt11, amount_in_invoice, node, attempt, known_payment_index, workflow_id, created_at)
           SELECT format('pay_%s', n), account_id, wallet_id, kind, status, destination, amount_msat, max_fee_msat,
                  lpad(n::text, 64, '0'), bolt11, amount_in_invoice, node, attempt, known_payment_index,
                  format('payment-%s-%s', account_id, n), created_at - make_interval(secs => n)
             FROM bank.payments, generate_series(1, 9999) n"""
    )
    rows = await payers.pool.fetch("SELECT workflow_id FROM bank.payments")
    temporal = FakeTemporal(running={row["workflow_id"] for row in rows})
    janitor = Janitor(payers.pool, cast("Client", temporal))
    found = await janitor._find_lost(KINDS["payments"], timedelta(0))
    assert (found, temporal.lists, temporal.started) == ([], 100, {})
