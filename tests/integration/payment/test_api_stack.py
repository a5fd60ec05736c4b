"""Payments on the whole stack: one user is paid from outside, pays another, pays a shop, and repeats itself."""

import asyncio
import secrets

import pytest

from infra.local.outside import Outside
from tests.fixtures.stack import Bank, eventually

pytestmark = pytest.mark.e2e


async def test_everything_the_process_needs_is_there(bank: Bank) -> None:
    for api in bank.apis:
        answer = await api.get("/readyz")
        assert answer.status_code == 200, answer.text
        assert answer.json()["up"] == ["postgres", "redis", "temporal", "lnd-1", "lnd-2", "bitcoind"]


async def test_money_comes_in_moves_inside_and_goes_out(bank: Bank, shop: Outside) -> None:
    name = f"u{secrets.token_hex(6)}"
    alice = await bank.open_account(funds_msat=50_000_000)
    bob = await bank.open_account(username=name)

    inside = await alice.pay(f"@{name.upper()}", amount_msat=1_234_567, memo="lunch")
    assert inside.status_code == 201, inside.text
    assert (inside.json()["kind"], inside.json()["status"], inside.json()["fee_msat"]) == ("internal", "settled", 0)

    invoice = await bob.invoice(2_000_000, memo="coffee")
    ours = await alice.pay(f"lightning:{invoice['bolt11'].upper()}")
    assert (ours.status_code, ours.json()["kind"]) == (201, "internal")
    assert ours.json()["payment_hash"] == invoice["payment_hash"]
    again = await alice.pay(invoice["bolt11"])
    assert (again.status_code, again.json()["code"]) == (409, "invoice_already_paid")
    assert (await bob.wallet())["available_msat"] == 3_234_567

    bolt11 = await shop.invoice(10_000_000)
    outside = await alice.pay(bolt11, wait_s=60)
    assert (outside.status_code, outside.json()["status"]) == (201, "settled"), outside.text
    paid = outside.json()
    assert paid["preimage"]
    assert paid["fee_msat"] <= paid["max_fee_msat"] == 100_000
    left_msat = 50_000_000 - 1_234_567 - 2_000_000 - 10_000_000 - paid["fee_msat"]
    assert await alice.wallet() == (await alice.wallet()) | {"available_msat": left_msat, "held_msat": 0}

    moved = (await alice.get(f"/v1/wallets/{alice.wallet_id}/transactions")).json()["items"]
    assert [(row["kind"], row["direction"]) for row in moved] == [("payment", "out")] * 3 + [("invoice", "in")]


async def test_a_burst_of_the_same_payment_pays_once(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=10_000_000)
    bob = await bank.open_account()
    answers = await asyncio.gather(
        *(alice.pay(f"wallet:{bob.wallet_id}", key="k", amount_msat=1_000) for _ in range(12))
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert (await bob.wallet())["available_msat"] == 1_000
    other = await alice.pay(f"wallet:{bob.wallet_id}", key="k", amount_msat=1_001)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_different_requests_with_one_key_at_once_pay_once(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=10_000_000)
    bob = await bank.open_account()
    answers = await asyncio.gather(
        *(alice.pay(f"wallet:{bob.wallet_id}", key="k", amount_msat=amount) for amount in range(1_000, 1_010))
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [201] + [409] * 9
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"idempotency_conflict"}


async def test_a_refusal_stays_the_answer_even_when_there_is_money_later(bank: Bank) -> None:
    alice = await bank.open_account()
    bob = await bank.open_account()
    first = await alice.pay(f"wallet:{bob.wallet_id}", key="poor", amount_msat=1_000)
    assert (first.status_code, first.json()["code"]) == (409, "insufficient_funds")
    await bank.fund(alice, 5_000_000)
    second = await alice.pay(f"wallet:{bob.wallet_id}", key="poor", amount_msat=1_000)
    assert second.json() == first.json()
    assert second.headers["Idempotency-Replayed"] == "true"


async def test_a_caller_that_does_not_wait_finds_its_payment_later(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=10_000_000)
    bolt11 = await shop.invoice(1_000_000)
    asked = await alice.pay(bolt11, key="soon", wait_s=0)
    assert asked.status_code == 202, asked.text
    pending = asked.json()
    assert (pending["status"], pending["kind"]) == ("pending", "lightning")
    assert asked.headers["Location"] == f"/v1/payments/{pending['id']}"
    assert (await alice.get(asked.headers["Location"])).status_code == 200
    final = await alice.final(pending["id"])
    assert final["status"] == "settled"
    replayed = await alice.pay(bolt11, key="soon", wait_s=0)
    assert (replayed.status_code, replayed.json()) == (201, final)


async def test_a_cancelled_invoice_is_not_payable_any_more(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=5_000_000)
    bob = await bank.open_account()
    invoice = await bob.invoice(1_000)
    cancelled = await bob.post(f"/v1/invoices/{invoice['id']}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    refused = await alice.pay(invoice["bolt11"])
    assert (refused.status_code, refused.json()["code"]) == (409, "invoice_cancelled")
    paid = await bob.invoice(2_000)
    assert (await alice.pay(paid["bolt11"])).status_code == 201

    async def settled() -> bool | None:
        found = (await bob.get(f"/v1/invoices/{paid['id']}")).json()
        return True if found["status"] == "settled" and found["received_msat"] == 2_000 else None

    await eventually(settled, "the invoice to be settled")
    late = await bob.post(f"/v1/invoices/{paid['id']}/cancel")
    assert (late.status_code, late.json()["code"]) == (409, "invoice_already_paid")
