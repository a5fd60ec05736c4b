"""Accidents in a batch: all of it happened or none, and the repeated request tells which.

    asked   →   no worker has come yet   →   the activity waits in its transaction   →   committed, and Temporal has not
    been told   →   ended

A batch is stopped in its middle by the row of a payee's balance, which the test holds: key, row and invoices are
written, nothing is committed. Whoever is killed then takes all of that along. Temporal is frozen while it commits.
"""

import asyncio
import secrets
from contextlib import ExitStack

import httpx
import pytest

from tests.fixtures.stack import Account, Bank, eventually
from tests.helpers.lane import locked_wallet, waiting_for

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

WORKERS, APIS = ["worker-1", "worker-2"], ["api-1", "api-2"]
PATH = "/v1/payments/batch"
COUNT = 200


def wages(payer: Account, payee: Account) -> dict[str, object]:
    item = {"destination": f"wallet:{payee.wallet_id}", "amount_msat": 1_000}
    return {"wallet_id": payer.wallet_id, "items": [item] * COUNT}


async def settled(payer: Account, body: dict[str, object], key: str) -> httpx.Response:
    """The answer, once there is a final one; each repeat has the same key."""

    async def look() -> httpx.Response | None:
        try:
            answer = await payer.post(PATH, body, key=key, wait_s=5)
        except httpx.TransportError:
            return None
        assert answer.status_code in {201, 202, 500, 503}, answer.text
        return answer if answer.status_code == 201 else None

    return await eventually(look, "the batch to be settled", limit_s=120)


async def assert_paid_once(bank: Bank, payer: Account, payee: Account, funds_msat: int) -> None:
    assert (await payee.wallet())["available_msat"] == COUNT * 1_000
    assert (await payer.wallet())["available_msat"] == funds_msat - COUNT * 1_000
    (row,) = await bank.database.fetch(
        "SELECT count(*) AS count, count(DISTINCT batch_id) AS batches FROM bank.payments WHERE account_id = $1",
        payer.id,
    )
    assert tuple(row) == (COUNT, 1)


async def test_workers_killed_in_the_middle_of_a_batch(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    body, key = wages(alice, bob), secrets.token_hex(8)
    async with locked_wallet(bank, bob) as holder:
        accepted = await alice.post(PATH, body, key=key, wait_s=0)
        assert (accepted.status_code, accepted.json()["status"]) == (202, "pending"), accepted.text
        assert {item["status"] for item in accepted.json()["items"]} == {"pending"}
        await waiting_for(bank, holder)
        shown = await alice.get(accepted.headers["Location"])
        assert shown.json() == accepted.json()
        await bank.kill(*WORKERS)
        assert (await bob.wallet())["available_msat"] == 0
    answer = await settled(alice, body, key)
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert answer.json()["id"] == accepted.json()["id"]
    await assert_paid_once(bank, alice, bob, 1_000_000)


async def test_apis_killed_while_they_wait_for_a_batch(bank: Bank) -> None:
    """The response is lost; the batch goes on, and the repeat tells what became of it."""
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    body, key = wages(alice, bob), secrets.token_hex(8)
    async with locked_wallet(bank, bob) as holder:
        asking = asyncio.create_task(alice.post(PATH, body, key=key, wait_s=60))
        await waiting_for(bank, holder)
        await bank.kill(*APIS)
        with pytest.raises(httpx.TransportError):
            await asking
    answer = await settled(alice, body, key)
    assert answer.headers["Idempotency-Replayed"] == "true"
    await assert_paid_once(bank, alice, bob, 1_000_000)


@pytest.mark.parametrize("victims", [["temporal"], ["postgres"]], ids=lambda names: names[0])
async def test_killed_in_the_middle_of_a_batch(bank: Bank, victims: list[str]) -> None:
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    body, key = wages(alice, bob), secrets.token_hex(8)
    async with locked_wallet(bank, bob) as holder:
        asking = asyncio.create_task(settled(alice, body, key))
        await waiting_for(bank, holder)
        await bank.kill(*victims)
    assert (await asking).status_code == 201
    await assert_paid_once(bank, alice, bob, 1_000_000)


@pytest.mark.parametrize("victims", [["api-1", "api-2", "temporal"], ["postgres"]], ids=lambda names: names[-1])
async def test_killed_before_a_worker_has_come_for_a_batch(bank: Bank, victims: list[str]) -> None:
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    body, key = wages(alice, bob), secrets.token_hex(8)
    with bank.stack.held("worker-1"), bank.stack.held("worker-2"):
        accepted = await alice.post(PATH, body, key=key, wait_s=0)
        assert accepted.status_code == 202, accepted.text
        await bank.kill(*victims)
    answer = await settled(alice, body, key)
    assert answer.json()["id"] == accepted.json()["id"]
    await assert_paid_once(bank, alice, bob, 1_000_000)


@pytest.mark.parametrize("victims", [WORKERS, ["temporal"], APIS, ["postgres"]], ids=lambda names: names[0])
async def test_killed_after_the_commit_and_before_temporal_or_the_caller_was_told(
    bank: Bank, victims: list[str]
) -> None:
    """The batch is done again, and finds what was done."""
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    body, key = wages(alice, bob), secrets.token_hex(8)
    with ExitStack() as frozen:
        async with locked_wallet(bank, bob) as holder:
            asking = asyncio.create_task(settled(alice, body, key))
            await waiting_for(bank, holder)
            frozen.enter_context(bank.stack.frozen("temporal"))

        async def committed() -> bool | None:
            count = await bank.database.fetchval("SELECT count(*) FROM bank.payments WHERE account_id = $1", alice.id)
            return True if count == COUNT else None

        await eventually(committed, "the batch's transaction to be committed")
        restarts = {name: bank.stack.process(name).restarts for name in victims}
        for name in victims:
            bank.stack.kill(name, wait=False)
    for name, count in restarts.items():
        await asyncio.to_thread(bank.stack.wait_back, name, count)
    assert (await asking).status_code == 201
    await assert_paid_once(bank, alice, bob, 1_000_000)


async def test_more_than_there_is_asked_for_while_workers_are_killed(bank: Bank) -> None:
    """Ten batches out of a wallet that can pay four: four are settled whole, six are refused whole."""
    alice, bob = await bank.open_account(funds_msat=4 * COUNT * 1_000), await bank.open_account()
    body = wages(alice, bob)

    async def persist(key: str) -> int:
        while True:
            answer = await alice.post(PATH, body, key=key, wait_s=10)
            if answer.status_code in {201, 409}:
                return answer.status_code
            assert answer.status_code in {202, 500, 503}, answer.text

    asking = [asyncio.create_task(persist(secrets.token_hex(8))) for _ in range(10)]
    await bank.kill(*WORKERS)
    assert sorted(await asyncio.gather(*asking)) == [201] * 4 + [409] * 6
    assert (await alice.wallet())["available_msat"] == 0
    assert (await bob.wallet())["available_msat"] == 4 * COUNT * 1_000
