"""PostgreSQL is killed again and again while the API is asked from all sides: every answer is one to act on.

201 or 200 says what happened, 202 that it goes on, 503 that the same may be asked again. 500 says nothing, and comes
never.
"""

import asyncio
import secrets
from collections import Counter

import httpx
import pytest

from tests.fixtures.stack import Account, Bank, eventually

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

SENDERS, AMOUNT_MSAT = 12, 1_000


async def test_no_answer_is_a_500_however_often_postgres_is_killed(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=50_000_000), await bank.open_account()
    answers: Counter[tuple[str, int]] = Counter()
    keys: list[str] = []
    is_over = asyncio.Event()

    async def send() -> None:
        while not is_over.is_set():
            keys.append(secrets.token_hex(8))
            answer = await pay(alice, bob, keys[-1])
            answers["POST", answer.status_code] += 1
            looked = await bank.next_api().get("/v1/payments", headers=alice.headers)
            answers["GET", looked.status_code] += 1

    async def until_paid(enough: int) -> None:
        async def paid() -> bool | None:
            return True if answers["POST", 201] >= enough else None

        await eventually(paid, f"{enough} payments to be answered")

    async with asyncio.TaskGroup() as sending:
        for _ in range(SENDERS):
            sending.create_task(send())
        for _ in range(4):
            await until_paid(answers["POST", 201] + SENDERS)  # all are at it again
            await bank.kill("postgres")
        is_over.set()
    assert {status for _method, status in answers} <= {200, 201, 202, 503}, answers
    assert answers["POST", 201] > 0, answers
    assert answers["POST", 503] + answers["GET", 503] > 0, answers
    asked_again = iter(keys)

    async def ask_again() -> None:
        for key in asked_again:
            answer = await pay_until_answered(alice, bob, key)
            assert answer.status_code in {201, 202}, answer.text
            assert (await alice.final(answer.json()["id"], limit_s=120))["status"] == "settled"

    # What was not answered is asked again, and each is paid once.
    await asyncio.gather(*(ask_again() for _ in range(SENDERS)))
    assert (await bob.wallet())["available_msat"] == AMOUNT_MSAT * len(keys)


async def pay_until_answered(payer: Account, payee: Account, key: str) -> httpx.Response:
    async def answered() -> httpx.Response | None:
        answer = await pay(payer, payee, key)
        return answer if answer.status_code != 503 else None

    return await eventually(answered, f"the payment with the key {key} to be answered")


async def pay(payer: Account, payee: Account, key: str) -> httpx.Response:
    return await payer.pay(f"wallet:{payee.wallet_id}", key=key, amount_msat=AMOUNT_MSAT, wait_s=5)
