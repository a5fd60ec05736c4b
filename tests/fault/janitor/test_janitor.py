"""Workflows that are ended by hand, one of each kind, and what the janitor makes of the rows that they leave.

    accepted, not opened   the request is kept: the payment or the batch is opened by another workflow
    held and sent          the next workflow finds the hold and the payment at the node, and books its end
    proposed, a case       waits for its operator again, as long as it was open
    received               the sweep compares what was handed on with what is credited

What is terminated has no say: no cancellation reaches it, and nothing else would ever begin it again.
"""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio.service import RPCError

from engine.contracts import queues, workflow_ids
from engine.contracts.janitor import Round
from engine.domain.ids import AccountId, CaseId, NodeName
from infra.local.outside import HoldInvoice, Outside
from tests.fixtures.stack import Account, Bank, Json, eventually
from tests.helpers.held_payment import accepted, held_payment
from tests.helpers.lane import Answering, lightning_lane, locked_wallet, waiting_for
from tests.helpers.operator import FEES, operator

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

WORKERS = ["worker-1", "worker-2"]


async def terminate(bank: Bank, workflow_id: str) -> None:
    await (await bank.temporal()).get_workflow_handle(workflow_id).terminate("by hand, in a test")


async def tidied(bank: Bank, *awaited: str, by_schedule: bool = False) -> None:
    """Have the janitor come until these run again or have ended well.

    It comes for rows of any age; by its schedule only for those that have waited for half a minute.
    """
    temporal = await bank.temporal()
    looks = itertools.count()

    async def back() -> bool | None:
        if next(looks) % 20 == 0:
            if by_schedule:
                await temporal.get_schedule_handle(workflow_ids.JANITOR).trigger()
            else:
                janitor = f"{workflow_ids.JANITOR}-{secrets.token_hex(8)}"
                await temporal.execute_workflow(
                    "JanitorWorkflow", Round(older_than_s=0), id=janitor, task_queue=queues.PAYMENTS
                )
        for workflow_id in awaited:
            try:
                told = await temporal.get_workflow_handle(workflow_id).describe()
            except RPCError:
                return None
            if told.status is None or told.status.name not in {"RUNNING", "COMPLETED"}:
                return None
        return True

    await eventually(back, f"{awaited} to be begun again", limit_s=120)


async def watched_payment(bank: Bank, alice: Account, shop: Outside) -> tuple[str, HoldInvoice, str]:
    """A payment that the payee holds and whose workflow has left the process that opened it: its id, and that one's."""
    payment_id, held = await held_payment(alice, shop)
    workflow_id = str((await alice.payment(payment_id))["workflow_id"])
    workflow = (await bank.temporal()).get_workflow_handle(workflow_id)

    async def watched() -> bool | None:
        pending = (await workflow.describe()).raw_description.pending_activities
        return True if any(each.activity_type.name == "watch_payment" for each in pending) else None

    await eventually(watched, "the payment to be watched")
    return payment_id, held, workflow_id


@asynccontextmanager
async def workers_away(bank: Bank) -> AsyncIterator[None]:
    for name in WORKERS:
        await asyncio.to_thread(bank.stack.hold, name)
    try:
        yield
    finally:
        for name in WORKERS:
            await asyncio.to_thread(bank.stack.release, name)


async def is_known(payer: Account, path: str, body: Json, key: str, accepted_as: Json) -> None:
    """Its key and its place answer with what was accepted, whatever became of its workflow."""
    for again in (await payer.post(path, body, key=key, wait_s=0), await payer.get(f"{path}/{accepted_as['id']}")):
        assert (again.status_code, again.json()["status"]) in {(202, "pending"), (200, "pending")}, again.text
        assert again.json()["id"] == accepted_as["id"]


@pytest.mark.parametrize("end", ["settled", "failed"])
async def test_a_payment_in_flight(bank: Bank, shop: Outside, end: str) -> None:
    alice = await bank.open_account(funds_msat=10_000_000)
    payment_id, held, workflow_id = await watched_payment(bank, alice, shop)
    await terminate(bank, workflow_id)
    assert (await alice.payment(payment_id))["status"] == "pending"
    if end == "settled":
        await shop.settle(held)
    else:
        await shop.cancel(held.payment_hash)
    await tidied(bank, workflow_id)
    assert (await alice.final(payment_id))["status"] == end
    wallet = await alice.wallet()
    assert (wallet["held_msat"], wallet["available_msat"] == 10_000_000) == (0, end == "failed")


async def test_a_payment_in_flight_is_not_sent_again(bank: Bank, shop: Outside) -> None:
    """Begun again twice, while the payee keeps it: it is found at the node each time."""
    alice = await bank.open_account(funds_msat=10_000_000)
    payment_id, held, workflow_id = await watched_payment(bank, alice, shop)
    for _ in range(2):
        await terminate(bank, workflow_id)
        await tidied(bank, workflow_id)
    await shop.settle(held)
    paid = await alice.final(payment_id)
    assert paid["status"] == "settled"
    assert (await alice.wallet())["available_msat"] == 10_000_000 - paid["amount_msat"] - paid["fee_msat"]


async def test_a_payment_that_nobody_has_opened(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    key = secrets.token_hex(8)
    body: Json = {"wallet_id": alice.wallet_id, "destination": f"wallet:{bob.wallet_id}", "amount_msat": 1_000}
    async with workers_away(bank):
        answer = await alice.post("/v1/payments", body, key=key, wait_s=0)
        assert answer.status_code == 202, answer.text
        await terminate(bank, answer.json()["workflow_id"])
        await is_known(alice, "/v1/payments", body, key, answer.json())
        other = await alice.post("/v1/payments", {**body, "amount_msat": 2_000}, key=key, wait_s=0)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    await tidied(bank, answer.json()["workflow_id"])
    assert (await alice.final(answer.json()["id"]))["status"] == "settled"
    assert (await bob.wallet())["available_msat"] == 1_000


async def test_a_payment_whose_caller_was_told_nothing_is_begun_by_its_repeat(bank: Bank) -> None:
    """No answer ever reached the caller, so nothing was accepted; the key is not lost."""
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    key = secrets.token_hex(8)
    body: Json = {"wallet_id": alice.wallet_id, "destination": f"wallet:{bob.wallet_id}", "amount_msat": 1_000}
    workflow_id = workflow_ids.payment(AccountId(alice.id), key)
    async with workers_away(bank):
        asking = asyncio.create_task(alice.post("/v1/payments", body, key=key, wait_s=60))

        async def begun() -> bool | None:
            try:
                return bool(await (await bank.temporal()).get_workflow_handle(workflow_id).describe())
            except RPCError:
                return None

        await eventually(begun, "the workflow to be started")
        asking.cancel()
        await terminate(bank, workflow_id)
    answer = await alice.post("/v1/payments", body, key=key, wait_s=30)
    assert (answer.status_code, answer.json()["status"]) == (201, "settled"), answer.text
    assert (await bob.wallet())["available_msat"] == 1_000


async def test_a_batch_that_nobody_has_opened(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    item = {"destination": f"wallet:{bob.wallet_id}", "amount_msat": 1_000}
    key, body = secrets.token_hex(8), {"wallet_id": alice.wallet_id, "items": [item] * 3}
    async with workers_away(bank):
        answer = await alice.post("/v1/payments/batch", body, key=key, wait_s=0)
        assert answer.status_code == 202, answer.text
        await terminate(bank, answer.json()["workflow_id"])
        shown = await alice.get(f"/v1/payments/batch/{answer.json()['id']}")
        assert (shown.status_code, shown.json()) == (200, answer.json())
    await tidied(bank, answer.json()["workflow_id"])

    async def settled() -> bool | None:
        again = await alice.post("/v1/payments/batch", body, key=key, wait_s=5)
        assert again.status_code in {201, 202}, again.text
        return True if again.status_code == 201 else None

    await eventually(settled, "the batch to be settled")
    assert (await bob.wallet())["available_msat"] == 3_000


async def test_a_lane_with_payments_in_flight(bank: Bank, shop: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminated while its activity sends: what it has opened names a workflow that is gone."""
    alice = await bank.open_account(funds_msat=50_000_000)
    held = [await shop.hold_invoice(1_000_000 + number) for number in range(3)]
    async with lightning_lane(bank, shop, monkeypatch) as together:
        asked: list[Answering] = await together(alice, [each.bolt11 for each in held])
        for each in held:
            await accepted(shop, each.payment_hash)
        rows = await bank.database.fetch("SELECT id, workflow_id FROM bank.payments WHERE account_id = $1", alice.id)
        for lane in {row["workflow_id"] for row in rows if row["workflow_id"].startswith("lane-")}:
            await terminate(bank, lane)
        own = [f"payment-{alice.id}-{row['id'].partition('_')[2]}" for row in rows]
        for asking in asked:
            asking.cancel()
        await tidied(bank, *own)
    await shop.settle(held[0])
    await shop.cancel(held[1].payment_hash)
    await shop.settle(held[2])
    ends = {(await alice.final(row["id"]))["status"] for row in rows}
    assert ends == {"settled", "failed"}
    assert (await alice.wallet())["held_msat"] == 0


async def test_a_receipt_that_was_handed_on(bank: Bank, shop: Outside) -> None:
    """Terminated within its transaction, and its worker killed: nobody else would look before the invoice expires."""
    alice = await bank.open_account()
    invoice = await alice.invoice(1_500_000)
    async with locked_wallet(bank, alice) as holder:
        await shop.pay(invoice["bolt11"])
        await waiting_for(bank, holder)
        temporal = await bank.temporal()
        query = 'ExecutionStatus = "Running" AND WorkflowType IN ("ReceiveWorkflow", "ReceiptPageWorkflow")'

        async def listed() -> list[str] | None:
            return [found.id async for found in temporal.list_workflows(query)] or None

        for workflow_id in await eventually(listed, "the receipt's workflow"):
            await terminate(bank, workflow_id)
        await bank.kill(*WORKERS)
    nodes = [row["name"] for row in await bank.database.fetch("SELECT name FROM bank.nodes")]

    async def credited() -> bool | None:
        for node in nodes:
            await temporal.get_schedule_handle(workflow_ids.invoice_sweep(NodeName(node))).trigger()
        found = await alice.get(f"/v1/invoices/{invoice['id']}")
        return True if found.json()["status"] == "settled" else None

    await eventually(credited, "the sweep to find the receipt", limit_s=90)
    assert (await alice.wallet())["available_msat"] == 1_500_000


async def test_a_correction_that_waits_for_its_second_operator(bank: Bank) -> None:
    carol, dave = await operator(bank), await operator(bank)
    proposed = await carol.propose(FEES, "suspense:in", 1_000)
    await terminate(bank, proposed["workflow_id"])
    early = await dave.approve(proposed)
    assert early.status_code in {200, 503}, early.text
    await tidied(bank, proposed["workflow_id"])

    async def posted() -> bool | None:
        answer = await dave.approve(proposed)
        assert answer.status_code in {200, 503}, answer.text
        return True if answer.status_code == 200 and answer.json()["status"] == "posted" else None

    await eventually(posted, "the correction to be posted")
    back = await carol.propose("suspense:in", FEES, 1_000)
    assert (await dave.approve(back)).json()["status"] == "posted"


async def test_a_case_that_waits_for_an_operator_and_a_run_that_is_gone(bank: Bank) -> None:
    carol = await operator(bank)
    case = CaseId(f"case_{secrets.token_hex(12)}")
    run = f"rec_{secrets.token_hex(16)}"
    await bank.database.execute(
        "INSERT INTO bank.reconciliations(id, workflow_id, created_at) VALUES ($1, 'gone', now() - interval '1 hour')",
        run,
    )
    await bank.database.execute(
        """INSERT INTO bank.cases(id, kind, account, subject, amount_msat, detail, suspects, run, last_seen, created_at)
           VALUES ($1, 'broken_rule', 'books', $1, 0, 'made up', '[]', $2, $2, now() - interval '1 hour')""",
        case,
        run,
    )
    await tidied(bank, workflow_ids.case(case), by_schedule=True)
    answer = await bank.http.post(
        f"/v1/admin/reconciliation/cases/{case}/resolve", json={"reason": "made up"}, headers=carol.headers
    )
    assert (answer.status_code, answer.json()["status"]) == (200, "explained"), answer.text
    shown = await bank.http.get(f"/v1/admin/reconciliation/runs/{run}", headers=carol.headers)
    assert (shown.status_code, shown.json()["status"]) == (200, "incomplete"), shown.text
