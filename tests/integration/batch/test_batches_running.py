"""Batches over the public API on the real stack."""

import secrets

import pytest

from api.service.batch.answer import BatchOut
from engine.contracts.batch import MAX_ITEMS
from tests.fixtures.stack import Account, Bank

pytestmark = pytest.mark.integration

PATH = "/v1/payments/batch"


def wages(payer: Account, payees: list[Account], amount_msat: int, count: int) -> dict[str, object]:
    items = [
        {"destination": f"wallet:{payees[place % len(payees)].wallet_id}", "amount_msat": amount_msat}
        for place in range(count)
    ]
    return {"wallet_id": payer.wallet_id, "items": items}


async def test_a_thousand_are_paid_at_once_and_temporal_says_so(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=20_000_000)
    others = [await bank.open_account() for _ in range(8)]
    body, key = wages(alice, others, 2_000, MAX_ITEMS), secrets.token_hex(8)
    answer = await alice.post(PATH, body, key=key, wait_s=60)
    assert answer.status_code == 201, answer.text
    batch = BatchOut.model_validate(answer.json())
    assert (batch.status, batch.total_msat, len(batch.items)) == ("settled", 2_000_000, MAX_ITEMS)
    assert [(await each.wallet())["available_msat"] for each in others] == [250_000] * 8
    again = await alice.post(PATH, body, key=key)
    assert (again.status_code, again.json()) == (201, answer.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await others[0].get(f"{PATH}/{batch.id}")).status_code == 404
    assert (await alice.payment(str(batch.items[-1].payment_id)))["batch_id"] == batch.id
    client = await bank.temporal()
    seen = await client.get_workflow_handle(batch.workflow_id).describe()
    assert await seen.static_summary() == f"1000 internal payments, 2,000 sat in all, for {alice.id}"
    assert "- and 900 more" in str(await seen.static_details())


async def test_too_much_by_one_item_pays_nobody(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=10_000), await bank.open_account()
    body, key = wages(alice, [bob], 1_000, 11), secrets.token_hex(8)
    first = await alice.post(PATH, body, key=key, wait_s=60)
    assert (first.status_code, first.json()["code"], first.json()["item"]) == (409, "insufficient_funds", 10)
    again = await alice.post(PATH, body, key=key)
    assert (again.status_code, again.json()) == (409, first.json())
    assert (await alice.wallet())["available_msat"] == 10_000
    assert (await alice.get(f"{PATH}/batch_{'0' * 25}")).status_code == 404
