"""Accidents in a batch: all of it happened or none, and the repeated request tells which.

A batch is stopped in its middle by the row of a payee's balance, which the test holds: key, row and invoices are
written, nothing is committed. Whoever is killed then takes all of that along.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.fixtures.stack import Account, Bank, eventually

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

PATH = "/v1/payments/batch"
COUNT = 200


@asynccontextmanager
async def stopped(bank: Bank, payee: Account) -> AsyncIterator[int]:
    """Nothing is booked on this user's account until the block ends. Gives the process that holds the row."""
    async with bank.database.acquire() as conn, conn.transaction():
        await conn.execute(
            """SELECT FROM ledger.balances b JOIN bank.wallets w ON w.ledger_account_id = b.account_id
                WHERE w.id = $1 FOR UPDATE OF b""",
            payee.wallet_id,
        )
        yield await conn.fetchval("SELECT pg_backend_pid()")


async def until_it_waits(bank: Bank, holder: int) -> None:
    """Until the batch has come to the row that is held."""

    async def look() -> bool | None:
        found: bool | None = await bank.database.fetchval(
            "SELECT true FROM pg_locks WHERE NOT granted AND $1 = ANY(pg_blocking_pids(pid)) LIMIT 1", holder
        )
        return found

    await eventually(look, "the batch to wait for the row")


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
    async with stopped(bank, bob) as holder:
        accepted = await alice.post(PATH, body, key=key, wait_s=0)
        assert (accepted.status_code, accepted.json()["status"]) == (202, "pending"), accepted.text
        assert {item["status"] for item in accepted.json()["items"]} == {"pending"}
        await until_it_waits(bank, holder)
        shown = await alice.get(accepted.headers["Location"])
        assert shown.json() == accepted.json()
        await asyncio.gather(*(asyncio.to_thread(bank.stack.kill, f"worker-{number}") for number in (1, 2)))
        assert (await bob.wallet())["available_msat"] == 0
    answer = await settled(alice, body, key)
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert answer.json()["id"] == accepted.json()["id"]
    await assert_paid_once(bank, alice, bob, 1_000_000)


async def test_apis_killed_while_they_wait_for_a_batch(bank: Bank) -> None:
    """The response is lost; the batch goes on, and the repeat tells what became of it."""
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    body, key = wages(alice, bob), secrets.token_hex(8)
    async with stopped(bank, bob) as holder:
        asking = asyncio.create_task(alice.post(PATH, body, key=key, wait_s=60))
        await until_it_waits(bank, holder)
        await asyncio.gather(*(asyncio.to_thread(bank.stack.kill, f"api-{number}") for number in (1, 2)))
        with pytest.raises(httpx.TransportError):
            await asking
    answer = await settled(alice, body, key)
    assert answer.headers["Idempotency-Replayed"] == "true"
    await assert_paid_once(bank, alice, bob, 1_000_000)


async def test_postgres_killed_in_the_middle_of_a_batch(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    body, key = wages(alice, bob), secrets.token_hex(8)
    asking = asyncio.create_task(settled(alice, body, key))
    await asyncio.to_thread(bank.stack.kill, "postgres")
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
    await asyncio.gather(*(asyncio.to_thread(bank.stack.kill, f"worker-{number}") for number in (1, 2)))
    assert sorted(await asyncio.gather(*asking)) == [201] * 4 + [409] * 6
    assert (await alice.wallet())["available_msat"] == 0
    assert (await bob.wallet())["available_msat"] == 4 * COUNT * 1_000
