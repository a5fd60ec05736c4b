"""Payments over the public API on the real stack: each kind, each way it can end, and many at once."""

import asyncio
import secrets

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.service import RPCError

from infra.local.outside import Outside, PaymentFailed, outside
from tests.fixtures.stack import Bank, eventually

pytestmark = pytest.mark.integration


async def test_a_payment_to_a_username_is_settled_at_once_and_without_a_fee(bank: Bank) -> None:
    name = f"bob_{secrets.token_hex(4)}"
    alice, bob = await bank.open_account(funds_msat=50_000_000), await bank.open_account(username=name)
    answer = await alice.pay(f"@{name.upper()}", amount_msat=12_345_678, memo="coffee ☕")
    paid = answer.json()
    assert answer.status_code == 201, answer.text
    assert (paid["kind"], paid["status"], paid["fee_msat"]) == ("internal", "settled", 0)
    assert (await alice.wallet())["available_msat"] == 50_000_000 - 12_345_678
    assert (await bob.wallet())["available_msat"] == 12_345_678
    seen = (await bob.get(f"/v1/wallets/{bob.wallet_id}/transactions")).json()["items"]
    assert [(item["direction"], item["amount_msat"], item["memo"]) for item in seen] == [
        ("in", 12_345_678, "coffee ☕")
    ]


async def test_an_invoice_of_another_user_is_settled_in_the_ledger_and_closed_at_the_node(
    bank: Bank, shop: Outside
) -> None:
    alice, bob = await bank.open_account(funds_msat=30_000_000), await bank.open_account()
    invoice = await bob.invoice(20_000_000, memo="shoes")
    answer = await alice.pay(invoice["bolt11"])
    assert (answer.status_code, answer.json()["kind"], answer.json()["status"]) == (201, "internal", "settled"), (
        answer.text
    )
    assert (await bob.get(f"/v1/invoices/{invoice['id']}")).json()["status"] == "settled"
    again = await alice.pay(invoice["bolt11"])
    assert (again.status_code, again.json()["code"]) == (409, "invoice_already_paid")
    await bank.closed_at_node(invoice["payment_hash"])
    with pytest.raises(PaymentFailed, match="INCORRECT_PAYMENT_DETAILS"):
        await shop.pay(invoice["bolt11"])
    assert (await bob.wallet())["available_msat"] == 20_000_000


async def test_an_outside_invoice_costs_the_actual_fee_and_the_rest_comes_back(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=50_000_000)
    answer = await alice.pay(await shop.invoice(21_000_777), max_fee_msat=100_000)
    paid = answer.json()
    assert (answer.status_code, paid["status"], paid["kind"]) == (201, "settled", "lightning"), answer.text
    assert 0 < paid["fee_msat"] <= 100_000
    wallet = await alice.wallet()
    assert wallet["held_msat"] == 0
    assert wallet["available_msat"] == 50_000_000 - 21_000_777 - paid["fee_msat"]
    assert len(bytes.fromhex(paid["preimage"])) == 32


async def test_an_invoice_without_an_amount_takes_the_payers(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=50_000_000)
    open_invoice = await shop.invoice(0)
    missing = await alice.pay(open_invoice)
    assert (missing.status_code, missing.json()["code"]) == (422, "amount_required")
    paid = await alice.pay(open_invoice, amount_msat=7_654_321)
    assert (paid.status_code, paid.json()["status"], paid.json()["amount_msat"]) == (201, "settled", 7_654_321)


async def test_an_unpayable_invoice_fails_and_gives_everything_back(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=50_000_000)
    invoice = await shop.invoice(1_000_000)
    await shop.cancel(bytes.fromhex((await alice.post("/v1/decode", {"destination": invoice})).json()["payment_hash"]))
    answer = await alice.pay(invoice)
    assert (answer.status_code, answer.json()["status"]) == (201, "failed"), answer.text
    assert answer.json()["failure"]["code"] == "incorrect_payment_details"
    assert (await alice.wallet())["available_msat"] == 50_000_000


async def test_a_fee_above_the_cap_is_not_paid_and_says_so(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=50_000_000)
    answer = await alice.pay(await shop.invoice(10_000_000), max_fee_msat=0)
    assert answer.json()["status"] == "failed", answer.text
    assert answer.json()["failure"]["code"] == "fee_limit_exceeded"


async def test_a_failed_invoice_can_be_tried_again_with_a_new_key(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=50_000_000)
    invoice = await shop.invoice(10_000_000)
    assert (await alice.pay(invoice, max_fee_msat=0)).json()["status"] == "failed"
    assert (await alice.pay(invoice, max_fee_msat=50_000)).json()["status"] == "settled"
    assert (await alice.pay(invoice, max_fee_msat=50_000)).json()["code"] == "invoice_already_paid"


async def test_more_than_there_is_is_refused_for_ever_under_its_key(bank: Bank) -> None:
    name = f"rich_{secrets.token_hex(4)}"
    alice = await bank.open_account(funds_msat=10_000_000)
    await bank.open_account(username=name)
    first = await alice.pay(f"@{name}", key="greedy", amount_msat=10_000_001)
    assert (first.status_code, first.json()["code"]) == (409, "insufficient_funds"), first.text
    await bank.fund(alice, 10_000_000)
    repeat = await alice.pay(f"@{name}", key="greedy", amount_msat=10_000_001)
    assert (repeat.status_code, repeat.json()["code"]) == (409, "insufficient_funds")
    assert repeat.headers["Idempotency-Replayed"] == "true"
    assert (await alice.pay(f"@{name}", amount_msat=10_000_001)).status_code == 201


async def test_the_same_key_gives_the_same_payment_and_another_body_is_a_conflict(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=50_000_000)
    invoice = await shop.invoice(5_000_000)
    answers = await asyncio.gather(*(alice.pay(invoice, key="same", max_fee_msat=50_000) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await alice.pay(invoice, key="same", max_fee_msat=50_001)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert (await alice.wallet())["available_msat"] == 45_000_000 - answers[0].json()["fee_msat"]


async def test_a_held_payment_is_pending_until_the_payee_decides(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=50_000_000)
    good, bad = await shop.hold_invoice(3_000_000), await shop.hold_invoice(4_000_000)
    first, second = await asyncio.gather(alice.pay(good.bolt11, wait_s=2), alice.pay(bad.bolt11, wait_s=2))
    for answer in (first, second):
        assert (answer.status_code, answer.json()["status"]) == (202, "pending"), answer.text
        assert answer.headers["Location"] == f"/v1/payments/{answer.json()['id']}"
        assert "Retry-After" in answer.headers
    wallet = await alice.wallet()
    assert wallet["held_msat"] > 7_000_000
    assert wallet["balance_msat"] == wallet["available_msat"] + wallet["held_msat"] == 50_000_000
    same_invoice = await alice.pay(good.bolt11)
    assert (same_invoice.status_code, same_invoice.json()["code"]) == (409, "payment_in_progress")
    await shop.settle(good)
    await shop.cancel(bad.payment_hash)
    settled, failed = await alice.final(first.json()["id"]), await alice.final(second.json()["id"])
    assert (settled["status"], settled["preimage"]) == ("settled", good.preimage.hex())
    assert failed["status"] == "failed"
    assert (await alice.wallet())["available_msat"] == 50_000_000 - 3_000_000 - settled["fee_msat"]


async def test_sixty_four_payments_at_once_never_take_a_balance_below_zero(bank: Bank, shop: Outside) -> None:
    """Half inside, half over Lightning, over two APIs and two workers, for twice the money that there is."""
    name = f"till_{secrets.token_hex(4)}"
    alice, till = await bank.open_account(funds_msat=32_000_000), await bank.open_account(username=name)
    invoices = [await shop.invoice(1_000_000) for _ in range(32)]
    answers = await asyncio.gather(
        *(alice.pay(invoice, max_fee_msat=10_000, wait_s=60) for invoice in invoices),
        *(alice.pay(f"@{name}", amount_msat=1_000_000, wait_s=60) for _ in range(32)),
    )
    ended = [answer.json() for answer in answers]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {body["code"] for body in ended if "code" in body} <= {"insufficient_funds"}
    settled = [body for body in ended if body.get("status") == "settled"]
    spent = sum(body["amount_msat"] + body["fee_msat"] for body in settled)
    wallet = await alice.wallet()
    assert wallet["available_msat"] == 32_000_000 - spent >= 0
    assert wallet["held_msat"] == 0
    inside = [body for body in settled if body["kind"] == "internal"]
    assert (await till.wallet())["available_msat"] == 1_000_000 * len(inside)
    assert len(settled) >= 30


async def test_an_invoice_of_our_own_node_that_belongs_to_no_user_is_refused(bank: Bank) -> None:
    alice = await bank.open_account()
    async with outside(bank.stack, "lnd-2") as by_hand:
        answer = await alice.pay(await by_hand.invoice(1_000_000))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_destination"), answer.text


async def test_two_users_pay_one_invoice_at_the_same_moment_and_one_is_told_no(bank: Bank, shop: Outside) -> None:
    alice, bob = await bank.open_account(funds_msat=9_000_000), await bank.open_account(funds_msat=9_000_000)
    invoice = await shop.invoice(2_000_000)
    first, second = await asyncio.gather(alice.pay(invoice), bob.pay(invoice))
    assert sorted([first.status_code, second.status_code]) == [201, 409]
    refused = first if first.status_code == 409 else second
    assert refused.json()["code"] in {"payment_in_progress", "invoice_already_paid"}


async def test_the_first_answer_outlives_temporals_memory(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    invoice = await shop.invoice(2_000_000)
    first = await alice.pay(invoice, key="remember")
    temporal = await bank.temporal()
    workflow_id = first.json()["workflow_id"]
    await temporal.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=temporal.namespace, workflow_execution=WorkflowExecution(workflow_id=workflow_id)
        )
    )

    async def forgotten() -> bool | None:
        try:
            await temporal.get_workflow_handle(workflow_id).describe()
        except RPCError:
            return True
        return None

    await eventually(forgotten, "Temporal to forget the payment")
    again = await alice.pay(invoice, key="remember")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
