"""Two API processes are asked for one withdrawal with one key at the same time, and one of them dies: it is one."""

import asyncio
import secrets
from typing import Any

import httpx
import pytest

from tests.fixtures.stack import Account, Bank
from tests.helpers.withdrawal.teller import outside

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

FUNDS_MSAT, AMOUNT_SAT, AT_ONCE = 200_000_000, 50_000, 12


async def ask(user: Account, key: str, **body: Any) -> httpx.Response:
    """Slow: it stays in the queue."""
    asked = {"wallet_id": user.wallet_id, "address": outside(), "amount_sat": AMOUNT_SAT, "speed": "slow", **body}
    return await user.post("/v1/withdrawals", asked, key=key)


async def until_answered(user: Account, key: str) -> httpx.Response:
    """The same is asked again by whoever got no answer, or 503."""
    async with asyncio.timeout(120):
        while True:
            try:
                answer = await ask(user, key)
            except httpx.TransportError:
                continue
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(0.1)


async def assert_it_is_one(user: Account, answers: list[httpx.Response]) -> None:
    """Held once and shown once; given back once."""
    assert {answer.status_code for answer in answers} <= {200, 201, 202}, [answer.text for answer in answers]
    (withdrawal_id,) = {answer.json()["id"] for answer in answers}
    (shown,) = (await user.get("/v1/withdrawals")).json()["items"]
    assert (shown["id"], shown["status"]) == (withdrawal_id, "queued")
    for name in ("amount_sat", "held_sat", "address", "created_at", "speed"):
        assert {answer.json()[name] for answer in answers} == {shown[name]}
    assert (await user.wallet())["available_msat"] == FUNDS_MSAT - 1000 * shown["held_sat"]
    cancelled = await asyncio.gather(
        *(user.bank.next_api().delete(f"/v1/withdrawals/{withdrawal_id}", headers=user.headers) for _ in range(4))
    )
    assert {answer.json()["status"] for answer in cancelled if answer.status_code < 300} == {"cancelled"}
    assert (await user.wallet())["available_msat"] == FUNDS_MSAT


async def test_two_apis_with_one_key(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=FUNDS_MSAT)
    key = secrets.token_hex(8)
    answers = await asyncio.gather(*(ask(alice, key) for _ in range(AT_ONCE)))
    await assert_it_is_one(alice, [*answers, await ask(alice, key)])
    other = await ask(alice, key, amount_sat=AMOUNT_SAT + 1)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_an_api_dies_among_them(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=FUNDS_MSAT)
    key = secrets.token_hex(8)
    asking = [asyncio.create_task(until_answered(alice, key)) for _ in range(AT_ONCE)]
    await bank.kill("api-1")
    await assert_it_is_one(alice, await asyncio.gather(*asking))
