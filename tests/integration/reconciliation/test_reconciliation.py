"""The books against the nodes: silence when they agree, and the very thing by its name when they do not.

What does harm happens on a stack of its own, because every test on the shared one ends with right books.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio
from temporalio.client import ScheduleOverlapPolicy, WorkflowExecutionStatus

from engine.bank import payment as payments
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.contracts import search_attributes, workflow_ids
from engine.domain.ids import CaseId, PaymentId
from engine.ledger.database import open_pool, transaction
from engine.ledger.postings.payment import released
from engine.ledger.store import post_in_tx
from infra.local.bitcoin_rpc import HOT
from infra.local.outside import HoldInvoice, Outside, outside, send_on_chain
from infra.local.stack import Stack
from tests.fixtures.stack import Account, Bank, Json, enter_bank, eventually
from tests.helpers.held_payment import accepted
from tests.helpers.operator import operator
from tests.helpers.reconciliation import PATH, cases, differences, reconcile, strand

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def other_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.start(tmp_path_factory.mktemp("wrong") / "home") as running:
        yield running


@pytest_asyncio.fixture
async def wrong(other_stack: Stack) -> AsyncIterator[Bank]:
    """A bank whose books may be wrong."""
    async with enter_bank(other_stack) as bank:
        yield bank


async def held_payment(bank: Bank, alice: Account, amount_msat: int) -> tuple[HoldInvoice, Json]:
    """A payment that outside-2 has and keeps in flight."""
    async with outside(bank.stack, "outside-2") as shop:
        held = await shop.hold_invoice(amount_msat)
        pending = (await alice.pay(held.bolt11, wait_s=0)).json()
        await accepted(shop, held.payment_hash)
    return held, pending


async def test_mixed_payments_leave_nothing_to_find(bank: Bank, shop: Outside) -> None:
    alice, bob = await bank.open_account(funds_msat=50_000_000), await bank.open_account()
    inside = await alice.pay(f"wallet:{bob.wallet_id}", amount_msat=1_234)
    ours = await alice.pay((await bob.invoice(2_345_678))["bolt11"])
    out = await alice.pay(await shop.invoice(3_456_789), wait_s=60)
    failed = await alice.pay(await shop.invoice(20_000_000), max_fee_msat=0, wait_s=60)
    assert [each.json()["status"] for each in (inside, ours, out, failed)] == ["settled"] * 3 + ["failed"]

    run = await reconcile(bank)
    assert (run["status"], run["findings"], run["broken_rules"], differences(run)) == ("clean", [], [], {}), run
    places = ["channels", "commit-escrow", "onchain"]
    assert [each["account"] for each in run["accounts"]] == [
        *(f"asset:lnd:{node}:{place}" for node in ("lnd-1", "lnd-2") for place in places),
        "asset:hot",
    ]
    listed = (await bank.http.get(PATH, headers=bank.admin)).json()["items"]
    assert listed[0] == run


async def test_a_payment_hanging_in_flight_is_no_difference(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=20_000_000)
    held, pending = await held_payment(bank, alice, 5_000_001)
    run = await reconcile(bank)
    assert (run["status"], run["findings"], differences(run)) == ("clean", [], {}), run
    named = {item["kind"] for account in run["accounts"] for item in account["in_flight"]}
    assert named <= {"commitment_fee"}, "what the HTLC costs in the commitment, if the sender opened that channel"
    await shop.settle(held)
    assert (await alice.final(pending["id"]))["status"] == "settled"
    assert (await reconcile(bank))["status"] == "clean"


async def test_traffic_is_never_taken_for_a_difference(bank: Bank, shop: Outside) -> None:
    """In and out at once, and runs in the midst of it: they may see too little, and never what is not there."""
    alice = await bank.open_account(funds_msat=60_000_000)
    paying = [asyncio.create_task(alice.pay(await shop.invoice(700_000 + n), wait_s=60)) for n in range(30)]
    invoices = [await alice.invoice(500_000 + n) for n in range(10)]
    receiving = [asyncio.create_task(shop.pay(invoice["bolt11"])) for invoice in invoices]
    runs = [await reconcile(bank) for _ in range(3)]
    for answer in await asyncio.gather(*paying):
        assert answer.json()["status"] == "settled", answer.text
    await asyncio.gather(*receiving)
    assert {run["status"] for run in runs} <= {"clean", "incomplete"}, runs
    for invoice in invoices:
        await bank.credited(alice, invoice["id"])
    assert (await reconcile(bank))["status"] == "clean"


async def test_reconciliation_runs_by_itself_once_an_hour(bank: Bank) -> None:
    schedule = (await bank.temporal()).get_schedule_handle(workflow_ids.RECONCILIATION)
    told = (await schedule.describe()).schedule
    assert [each.every for each in told.spec.intervals] == [timedelta(hours=1)]
    assert (told.policy.overlap, told.policy.catchup_window) == (ScheduleOverlapPolicy.SKIP, timedelta(hours=1))
    before = {run["id"] for run in (await bank.http.get(PATH, headers=bank.admin)).json()["items"]}
    await schedule.trigger()

    async def finished() -> Json | None:
        listed = (await bank.http.get(PATH, headers=bank.admin)).json()["items"]
        return next((run for run in listed if run["id"] not in before and run["status"] != "running"), None)

    run = await eventually(finished, "the schedule's run to end")
    assert (run["workflow_id"][:15], run["status"]) == ("reconciliation-", "clean")


async def test_only_administrators_reconcile(bank: Bank) -> None:
    alice = await bank.open_account()
    for answer in (await alice.post(PATH), await alice.get(PATH), await alice.get(f"{PATH}/cases")):
        assert answer.status_code == 403, answer.text
    for path in (f"{PATH}/runs/rec_none", f"{PATH}/cases/case_none"):
        assert (await bank.http.get(path, headers=bank.admin)).status_code == 404


async def test_a_run_asked_for_with_a_key_is_made_once(bank: Bank) -> None:
    headers = {**bank.admin, "Idempotency-Key": secrets.token_hex(8)}
    first, second = [await api.post(PATH, headers=headers) for api in bank.apis]
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"


async def test_a_payment_made_by_hand_is_found_by_hash_and_amount_and_waits_for_an_operator(wrong: Bank) -> None:
    alice = await wrong.open_account(funds_msat=30_000_000)
    async with outside(wrong.stack, "outside-2") as shop, outside(wrong.stack, "lnd-1") as by_hand:
        assert (await alice.pay(await shop.invoice(1_000_000), wait_s=60)).json()["status"] == "settled"
        assert (await reconcile(wrong))["status"] == "clean"
        paid = await by_hand.pay(await shop.invoice(7_654_321))
    total_msat = paid.value_msat + paid.fee_msat

    async def found() -> Json | None:
        newest: Json = (await wrong.http.get(PATH, headers=wrong.admin)).json()["items"][0]
        return newest if newest["status"] == "differs" else None

    run = await eventually(found, "the run that the node's pump starts by itself")
    assert run["workflow_id"] == workflow_ids.RECONCILIATION_NOW
    assert run["status"] == "differs", run
    assert differences(run) == {"asset:lnd:lnd-1:channels": total_msat}
    (finding,) = run["findings"]
    assert (finding["kind"], finding["amount_msat"]) == ("payment_not_in_books", total_msat)
    assert [(each["ref"], each["amount_msat"]) for each in finding["suspects"]] == [(paid.payment_hash, total_msat)]

    (case,) = await cases(wrong)
    assert (case["status"], case["account"], case["amount_msat"]) == ("open", finding["account"], total_msat)
    assert (await reconcile(wrong))["status"] == "differs"
    assert [each["id"] for each in await cases(wrong)] == [case["id"]]

    handle = (await wrong.temporal()).get_workflow_handle(workflow_ids.case(CaseId(case["id"])))
    described = await handle.describe()
    assert described.status is WorkflowExecutionStatus.RUNNING
    assert described.typed_search_attributes[search_attributes.NEEDS_OPERATOR] is True

    place = f"{PATH}/cases/{case['id']}"
    assert (await wrong.http.post(f"{place}/resolve", json={"reason": " "}, headers=wrong.admin)).status_code == 422
    resolved = await wrong.http.post(f"{place}/resolve", json={"reason": "paid by me"}, headers=wrong.admin)
    assert resolved.status_code == 200, resolved.text
    assert (resolved.json()["status"], resolved.json()["resolved_by"]) == ("explained", "admin")
    repeated = await wrong.http.post(f"{place}/resolve", json={"reason": "paid by me"}, headers=wrong.admin)
    assert (repeated.status_code, repeated.json()) == (200, resolved.json())
    again = await wrong.http.post(f"{place}/resolve", json={"reason": "no"}, headers=wrong.admin)
    assert (again.status_code, again.json()["code"]) == (409, "case_resolved")
    shown = (await wrong.http.get(place, headers=wrong.admin)).json()
    assert [(line["event"], line["actor"]) for line in shown["trail"]] == [
        ("opened", "reconciliation"),
        ("explained", "admin"),
    ]

    known = await reconcile(wrong)
    assert (known["status"], differences(known)) == ("explained", {"asset:lnd:lnd-1:channels": total_msat})
    assert [each["id"] for each in await cases(wrong)] == [case["id"]]


async def test_nobody_changes_a_trail(wrong: Bank) -> None:
    for statement in ("UPDATE bank.case_updates SET note = ''", "DELETE FROM bank.case_updates"):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await wrong.database.execute(statement)


async def test_a_hold_that_is_stuck_is_told_with_its_node_and_its_workflow(wrong: Bank) -> None:
    alice = await wrong.open_account(funds_msat=20_000_000)
    held, pending = await held_payment(wrong, alice, 2_000_000)
    await wrong.database.execute(
        "UPDATE bank.payments SET created_at = created_at - interval '2 hours' WHERE id = $1", pending["id"]
    )
    run = await reconcile(wrong)
    (told,) = [each for each in run["findings"] if each["kind"] == "payment_pending_long"]
    assert (told["subject"], told["suspects"][0]["ref"]) == (held.payment_hash.hex(), pending["id"])
    assert "in_flight; its workflow runs" in told["detail"]

    await strand(wrong, pending["workflow_id"])
    run = await reconcile(wrong)
    (told,) = [each for each in run["findings"] if each["kind"] == "payment_orphaned"]
    assert told["subject"] == held.payment_hash.hex()
    assert "payment_orphaned" in [each["kind"] for each in await cases(wrong)]

    await _release_by_hand(wrong, PaymentId(pending["id"]))
    async with outside(wrong.stack, "outside-2") as shop:
        await shop.settle(held)

    async def found() -> Json | None:
        run = await reconcile(wrong)
        paid = [each for each in run["findings"] if each["kind"] == "paid_after_release"]
        return paid[0] if paid else None

    late = await eventually(found, "the late payment to be found")
    assert late["subject"] == held.payment_hash.hex()
    assert 2_000_000 <= late["amount_msat"] <= 2_000_000 + pending["max_fee_msat"]
    (orphan,) = [each for each in await cases(wrong) if each["kind"] == "payment_orphaned"]
    assert (orphan["status"], orphan["vanished"]) == ("open", True)


async def test_coins_that_nobody_booked_are_a_difference_with_their_transaction_as_a_suspect(wrong: Bank) -> None:
    async with outside(wrong.stack, "lnd-2") as node:
        address = (await node.stubs.lightning.NewAddress(ln.NewAddressRequest())).address
    txid = await asyncio.to_thread(send_on_chain, wrong.stack.bitcoin(), address, 54_321)

    async def found() -> Json | None:
        run = await reconcile(wrong)
        return next((each for each in run["findings"] if each["kind"] == "difference"), None)

    rest = await eventually(found, "the coins to be found")
    assert (rest["account"], rest["amount_msat"]) == ("asset:lnd:lnd-2:onchain", -54_321_000)
    assert (txid, -54_321_000) in [(each["ref"], each["amount_msat"]) for each in rest["suspects"]]


async def test_a_coin_at_a_change_address_of_the_hot_wallet_is_found_until_two_operators_enter_it(wrong: Bank) -> None:
    bitcoin = wrong.stack.bitcoin()
    address = await asyncio.to_thread(bitcoin.call, "getrawchangeaddress", "bech32", wallet=HOT)
    txid = await asyncio.to_thread(send_on_chain, bitcoin, address, 54_322)
    await asyncio.to_thread(wrong.stack.mine, 1)

    async def found() -> Json | None:
        run = await reconcile(wrong)
        return next((each for each in run["findings"] if each["kind"] == "coin_not_in_books"), None)

    coin = await eventually(found, "the coin to be found")
    assert (coin["account"], coin["amount_msat"]) == ("asset:hot", -54_322_000)
    assert coin["subject"].startswith(f"{txid}:")
    (case,) = [each for each in await cases(wrong) if each["kind"] == "coin_not_in_books"]
    carol, dave = await operator(wrong, "treasury"), await operator(wrong, "treasury")
    entry = {"kind": "capital", "case_id": case["id"]}
    proposed = await carol.propose("asset:hot", "equity:capital", 54_322_000, **entry)
    assert (await dave.approve(proposed)).status_code == 200

    async def cured() -> bool | None:
        run = await reconcile(wrong)
        return True if "coin_not_in_books" not in {each["kind"] for each in run["findings"]} else None

    await eventually(cured, "the coin to be capital")
    assert "asset:hot" not in differences(await reconcile(wrong))


async def _release_by_hand(bank: Bank, payment_id: PaymentId) -> None:
    """What an operator must never do: give the money back while it is in flight."""
    pool = await open_pool(bank.stack.environment()["MILLRACE_POSTGRES_DSN"], min_size=0, max_size=1)
    try:
        async with transaction(pool) as conn:
            row = await payments.get_row_in_tx(conn, payment_id)
            await post_in_tx(conn, released(row))
            await payments.mark_failed_in_tx(conn, payment_id, code="cancelled", detail="by hand", payment_index=0)
    finally:
        await pool.close()
