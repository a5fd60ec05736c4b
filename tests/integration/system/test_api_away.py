"""Parts of the stack are away while requests come: nothing is lost, nothing is done twice, and the answer says so."""

import asyncio

import pytest

from tests.fixtures.stack import Bank, eventually

pytestmark = pytest.mark.fault


async def _is_told(bank: Bank, part: str) -> None:
    """The readiness names this part alone, though it remembers for a second what it has seen."""

    async def look() -> bool | None:
        return (await bank.http.get("/readyz")).json()["down"] == [part] or None

    await eventually(look, f"the readiness to name {part}")


async def test_a_payment_that_no_worker_has_opened_is_there_and_waits(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=10_000_000)
    bob = await bank.open_account()
    with bank.stack.held("worker-1"), bank.stack.held("worker-2"):
        asked = await alice.pay(f"wallet:{bob.wallet_id}", key="w", amount_msat=1_000, memo="x", wait_s=1)
        assert asked.status_code == 202, asked.text
        assert (asked.json()["status"], asked.json()["kind"], asked.json()["memo"]) == ("pending", "internal", "x")
        assert "Idempotency-Replayed" not in asked.headers
        looked = await alice.get(asked.headers["Location"])
        assert (looked.status_code, looked.json()) == (200, asked.json())
        stranger = await bob.get(asked.headers["Location"])
        assert (stranger.status_code, stranger.json()["code"]) == (404, "not_found")
        again = await alice.pay(f"wallet:{bob.wallet_id}", key="w", amount_msat=1_000, memo="x", wait_s=0)
        assert (again.status_code, again.json()) == (202, asked.json())
        assert again.headers["Idempotency-Replayed"] == "true"
        other = await alice.pay(f"wallet:{bob.wallet_id}", key="w", amount_msat=1_001, memo="x", wait_s=0)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert (await alice.final(asked.json()["id"]))["status"] == "settled"
    assert (await bob.wallet())["available_msat"] == 1_000


async def test_while_temporal_is_away_old_answers_are_given_and_new_keys_stay_unused(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=10_000_000)
    bob = await bank.open_account()
    destination = f"wallet:{bob.wallet_id}"
    first = await alice.pay(destination, key="before", amount_msat=1_000)
    with bank.stack.held("temporal"):
        replayed = await alice.pay(destination, key="before", amount_msat=1_000)
        assert (replayed.status_code, replayed.json()) == (201, first.json())
        refused = await alice.pay(destination, key="during", amount_msat=2_000)
        assert (refused.status_code, refused.json()["code"]) == (503, "temporarily_unavailable")
        await _is_told(bank, "temporal")
    later = await alice.pay(destination, key="during", amount_msat=2_000, wait_s=60)
    assert (later.status_code, later.json()["status"]) == (201, "settled")
    assert (await bob.wallet())["available_msat"] == 3_000


async def test_temporal_dies_while_callers_wait(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=10_000_000)
    bob = await bank.open_account()
    pays = [
        asyncio.create_task(alice.pay(f"wallet:{bob.wallet_id}", key=f"k{number}", amount_msat=1_000, wait_s=60))
        for number in range(30)
    ]
    await asyncio.sleep(0.05)
    await asyncio.to_thread(bank.stack.kill, "temporal")
    for number, pay in enumerate(pays):
        answer = await pay
        while answer.status_code != 201:
            assert answer.status_code in {202, 503}, answer.text
            answer = await alice.pay(f"wallet:{bob.wallet_id}", key=f"k{number}", amount_msat=1_000, wait_s=20)
    assert (await bob.wallet())["available_msat"] == 30_000


async def test_an_api_dies_and_another_gives_the_answer(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=10_000_000)
    bob = await bank.open_account()
    with bank.stack.held("worker-1"), bank.stack.held("worker-2"):
        body = {"wallet_id": alice.wallet_id, "destination": f"wallet:{bob.wallet_id}", "amount_msat": 1_000}
        headers = {**alice.headers, "Idempotency-Key": "dies", "Prefer": "wait=60"}
        asked = asyncio.create_task(bank.apis[0].post("/v1/payments", json=body, headers=headers))
        await asyncio.sleep(1)
        await asyncio.to_thread(bank.stack.kill, "api-1")
        with pytest.raises(Exception):  # noqa: B017, PT011 - the connection is gone, however httpx calls it
            await asked
        waiting = asyncio.create_task(bank.apis[1].post("/v1/payments", json=body, headers=headers))
        await asyncio.sleep(0.5)
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (201, "settled")
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert (await bob.wallet())["available_msat"] == 1_000


async def test_with_one_node_away_invoices_come_from_the_other(bank: Bank) -> None:
    bob = await bank.open_account()
    with bank.stack.held("lnd-1"):
        for _ in range(4):
            await bob.invoice(1_000)
        with bank.stack.held("lnd-2"):
            answer = await bob.post("/v1/invoices", {"wallet_id": bob.wallet_id}, key="none")
            assert (answer.status_code, answer.json()["code"]) == (503, "node_unavailable")
    made = await bob.post("/v1/invoices", {"wallet_id": bob.wallet_id}, key="none")
    assert made.status_code == 201


async def test_an_invoice_lost_between_node_and_books_is_found_again(bank: Bank) -> None:
    bob = await bank.open_account()
    body = {"wallet_id": bob.wallet_id, "amount_msat": 2**53 - 1, "memo": "é" * 319, "expiry_s": 604_800}
    first = (await bob.post("/v1/invoices", body, key="lost")).json()
    await bank.database.execute("DELETE FROM bank.idempotency_keys WHERE account_id = $1", bob.id)
    await bank.database.execute("DELETE FROM bank.invoices WHERE id = $1", first["id"])
    second = (await bob.post("/v1/invoices", body, key="lost")).json()
    assert (second["id"], second["bolt11"], second["status"]) == (first["id"], first["bolt11"], "open")


async def test_redis_is_needed_by_nothing(bank: Bank) -> None:
    with bank.stack.held("redis"):
        alice = await bank.open_account()
        assert (await alice.get("/v1/account")).status_code == 200
        await _is_told(bank, "redis")


async def test_while_postgres_is_away_everything_says_try_again(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=5_000_000)
    bob = await bank.open_account()
    with bank.stack.held("postgres"):
        for _ in range(3):
            answer = await alice.pay(f"wallet:{bob.wallet_id}", key="p", amount_msat=1_000)
            assert (answer.status_code, answer.json()["code"]) == (503, "temporarily_unavailable")
        assert (await bank.http.get("/healthz")).status_code == 200
        await _is_told(bank, "postgres")
    paid = await alice.pay(f"wallet:{bob.wallet_id}", key="p", amount_msat=1_000, wait_s=60)
    assert (paid.status_code, paid.json()["status"]) == (201, "settled")
