"""That a payment has ended is said over a real Redis, and nothing is missing where nobody says it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.clients.announcements import Announcer, Listener
from engine.domain.ids import AccountId, PaymentId, id_for_key, new_id
from tests.fixtures.stack import Bank, eventually

pytestmark = pytest.mark.integration


@asynccontextmanager
async def listening(bank: Bank) -> AsyncIterator[Listener]:
    listener = Listener(bank.stack.environment()["MILLRACE_REDIS_URL"])
    task = asyncio.create_task(listener.listen())
    try:
        await hears(listener, it=True)
        yield listener
    finally:
        task.cancel()
        await listener.close()


async def hears(listener: Listener, *, it: bool) -> None:
    async def so() -> bool | None:
        return True if listener.hears is it else None

    await eventually(so, f"that the listener hears: {it}")


async def test_a_waiting_caller_is_told_of_each_end_and_the_books_hold_the_answer_by_then(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    async with listening(bank) as listener:
        for key, amount_msat, status in (("paid", 1_000, 201), ("refused", 10**9, 409)):
            words = [listener.expect(PaymentId(id_for_key("pay", AccountId(alice.id), key))) for _ in range(2)]
            asking = asyncio.create_task(alice.pay(f"wallet:{bob.wallet_id}", key=key, amount_msat=amount_msat))
            async with asyncio.timeout(30):
                await asyncio.gather(*words)
            known = await bank.database.fetchval(
                "SELECT count(*) FROM bank.idempotency_keys WHERE account_id = $1 AND key = $2", alice.id, key
            )
            assert (known, (await asking).status_code) == (1, status)
        other = listener.expect(PaymentId(new_id("pay")))
        assert not other.done()
        other.cancel()
        await asyncio.sleep(0)
        assert vars(listener)["_expected"] == {}


async def test_while_redis_is_away_nobody_hears_and_every_payment_is_answered(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    announcer = Announcer(bank.stack.environment()["MILLRACE_REDIS_URL"])
    async with listening(bank) as listener:
        with bank.stack.held("redis"):
            await hears(listener, it=False)
            announcer.announce([PaymentId(new_id("pay"))])
            paid = await alice.pay(f"wallet:{bob.wallet_id}", amount_msat=1_000)
            assert (paid.status_code, paid.json()["status"]) == (201, "settled")
        await hears(listener, it=True)
        again = PaymentId(new_id("pay"))
        word = listener.expect(again)

        async def heard() -> bool | None:
            announcer.announce([again])
            return True if word.done() else None

        await eventually(heard, "the word to come through again")
    await announcer.close()
