"""Something dies on the way of a payment. Afterwards there is one final state, and the books agree with the nodes.

The moments are made certain by holding the part that comes next: a payment to a hold invoice is "after the send and
before the settle" for as long as the payee keeps it; with the node held down it is "before the send".
"""

import asyncio
import secrets

import httpx
import pytest

from infra.local.outside import Outside, sync_network
from tests.fixtures.stack import Bank, eventually
from tests.helpers.held_payment import accepted, held_payment

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


async def _kill_workers(bank: Bank) -> None:
    await asyncio.gather(*(asyncio.to_thread(bank.stack.kill, f"worker-{number}") for number in (1, 2)))


async def test_workers_killed_between_hold_and_send(bank: Bank, shop: Outside) -> None:
    """The node is down when the payment is opened, so it waits held and unsent when the workers die."""
    alice = await bank.open_account(funds_msat=9_000_000)
    for name in ("lnd-1", "lnd-2"):
        await asyncio.to_thread(bank.stack.hold, name)
    try:
        answer = await alice.pay(await shop.invoice(2_000_000), wait_s=0)
        assert answer.status_code == 202, answer.text

        async def held() -> bool | None:
            return True if (await alice.wallet())["held_msat"] > 0 else None

        await eventually(held, "the money to be held")
        await _kill_workers(bank)
    finally:
        for name in ("lnd-1", "lnd-2"):
            await asyncio.to_thread(bank.stack.release, name)
    await sync_network(bank.stack)
    paid = await alice.final(answer.json()["id"], limit_s=120)
    assert paid["status"] == "settled", paid
    assert (await alice.wallet())["available_msat"] == 7_000_000 - paid["fee_msat"]


async def test_workers_killed_after_the_send_and_the_payee_settles_meanwhile(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop)
    kills = asyncio.create_task(_kill_workers(bank))
    await shop.settle(held)
    await kills
    paid = await alice.final(payment_id, limit_s=120)
    assert (paid["status"], paid["preimage"]) == ("settled", held.preimage.hex())


async def test_workers_killed_after_the_send_and_the_payee_refuses_meanwhile(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop)
    kills = asyncio.create_task(_kill_workers(bank))
    await shop.cancel(held.payment_hash)
    await kills
    assert (await alice.final(payment_id, limit_s=120))["status"] == "failed"
    assert (await alice.wallet())["available_msat"] == 9_000_000


async def test_postgres_away_when_the_payee_settles(bank: Bank, shop: Outside) -> None:
    """Before the settle: the node has paid, and the books cannot be reached to say so."""
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop)
    await asyncio.to_thread(bank.stack.hold, "postgres")
    try:
        await shop.settle(held)
        await _kill_workers_softly(bank)
    finally:
        await asyncio.to_thread(bank.stack.release, "postgres")
    assert (await alice.final(payment_id, limit_s=120))["status"] == "settled"


async def _kill_workers_softly(bank: Bank) -> None:
    """Kill without waiting for "ready", which needs Postgres."""
    for number in (1, 2):
        await asyncio.to_thread(bank.stack.kill, f"worker-{number}", wait=False)


async def test_lnd_killed_with_an_htlc_in_flight(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop)
    node = await bank.database.fetchval("SELECT node FROM bank.payments WHERE id = $1", payment_id)
    await asyncio.to_thread(bank.stack.kill, node)
    assert (await alice.payment(payment_id))["status"] == "pending"
    await sync_network(bank.stack)
    await shop.settle(held)
    assert (await alice.final(payment_id, limit_s=120))["status"] == "settled"


async def test_postgres_killed_under_a_stream_of_payments(bank: Bank) -> None:
    """Each request is repeated with its key until it has a final answer; each was carried out exactly once."""
    name = f"till_{secrets.token_hex(4)}"
    alice, till = await bank.open_account(funds_msat=20_000_000), await bank.open_account(username=name)

    async def persist(number: int) -> str:
        while True:
            try:
                answer = await alice.pay(f"@{name}", key=f"stream-{number}", amount_msat=100_000)
            except httpx.TransportError:
                continue
            if answer.status_code == 201:
                return str(answer.json()["status"])
            assert answer.status_code in {202, 500, 503}, answer.text
            await asyncio.sleep(0.2)

    stream = [asyncio.create_task(persist(number)) for number in range(40)]
    await asyncio.to_thread(bank.stack.kill, "postgres")
    assert set(await asyncio.gather(*stream)) == {"settled"}
    assert (await till.wallet())["available_msat"] == 40 * 100_000
    assert (await alice.wallet())["available_msat"] == 16_000_000


async def test_api_killed_while_it_waits_for_the_answer(bank: Bank, shop: Outside) -> None:
    """The response is lost; the repeat finds the payment and gives its answer."""
    alice = await bank.open_account(funds_msat=9_000_000)
    held = await shop.hold_invoice(2_000_000)
    asking = asyncio.create_task(alice.pay(held.bolt11, key="lost", wait_s=60))
    await accepted(shop, held.payment_hash)
    await asyncio.gather(*(asyncio.to_thread(bank.stack.kill, f"api-{number}") for number in (1, 2)))
    with pytest.raises(httpx.TransportError):
        await asking
    await shop.settle(held)
    repeat = await alice.pay(held.bolt11, key="lost", wait_s=30)
    assert (repeat.status_code, repeat.json()["status"]) == (201, "settled"), repeat.text
    assert repeat.headers["Idempotency-Replayed"] == "true"


async def test_redis_flushed_and_killed_in_the_middle(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop)
    await asyncio.to_thread(bank.stack.kill, "redis")
    await shop.settle(held)
    assert (await alice.final(payment_id))["status"] == "settled"
    assert (await alice.pay(held.bolt11)).json()["code"] == "invoice_already_paid"


async def test_temporal_killed_with_a_payment_in_flight(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    payment_id, held = await held_payment(alice, shop)
    await asyncio.to_thread(bank.stack.kill, "temporal")
    await shop.settle(held)
    assert (await alice.final(payment_id, limit_s=120))["status"] == "settled"


async def test_invoices_paid_while_everything_of_ours_was_down(bank: Bank, shop: Outside) -> None:
    """Only the node lives on and takes the money; the rest finds it when it comes back, once."""
    alice = await bank.open_account()
    invoices = [await alice.invoice(1_000_000 + number) for number in range(3)]
    ours = ("worker-1", "worker-2", "temporal", "redis", "postgres")
    for name in ours:
        await asyncio.to_thread(bank.stack.hold, name)
    try:
        for invoice in invoices:
            await shop.pay(invoice["bolt11"])
    finally:
        for name in reversed(ours):
            await asyncio.to_thread(bank.stack.release, name)
    for invoice in invoices:
        await bank.credited(alice, invoice["id"], limit_s=120)
    assert (await alice.wallet())["available_msat"] == 3_000_003


async def test_the_same_answer_after_everything_was_killed(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    invoice = await shop.invoice(2_000_000)
    first = await alice.pay(invoice, key="for-ever")
    assert first.status_code == 201, first.text
    everything = ("api-1", "api-2", "worker-1", "worker-2", "temporal", "redis", "postgres", "lnd-1", "lnd-2")
    await asyncio.gather(*(asyncio.to_thread(bank.stack.kill, name) for name in everything))
    await sync_network(bank.stack)
    again = await alice.pay(invoice, key="for-ever")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
