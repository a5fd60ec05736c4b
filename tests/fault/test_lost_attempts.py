"""LND is killed after it wrote an attempt and before the HTLC was in a channel: in flight in its records for ever.

Made certain by freezing the peer: the first HTLC waits for the peer's signature, so the next ones are written down and
never reach the channel. Then the node is killed.
"""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass

import grpc
import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.routerrpc import router_pb2 as router
from engine.domain.sending import release_height
from infra.local.outside import HoldInvoice, Outside, outside, sync_network
from infra.local.stack import Stack
from tests.fixtures.stack import Account, Bank, Json, eventually

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Sent:
    """A payment, as it was accepted, and what it pays."""

    payment: Json
    invoice: HoldInvoice


async def _first_word(stack: Stack, name: str, payment_hash: bytes) -> ln.Payment:
    """What one of the bank's nodes says of a payment now."""
    async with outside(stack, name) as node:
        updates = node.stubs.router.TrackPaymentV2(router.TrackPaymentRequest(payment_hash=payment_hash))
        async for payment in updates:
            return payment
    raise AssertionError("the node said nothing")


async def _attempts(stack: Stack, name: str, payment_hash: bytes) -> int | None:
    try:
        return len((await _first_word(stack, name, payment_hash)).htlcs) or None
    except grpc.aio.AioRpcError:  # the node has not been asked yet
        return None


async def _node_of(bank: Bank, payment_id: str) -> str:
    async def pinned() -> str | None:
        node: str | None = await bank.database.fetchval("SELECT node FROM bank.payments WHERE id = $1", payment_id)
        return node

    return await eventually(pinned, "the payment to be pinned to a node")


async def _lose_attempts(bank: Bank, alice: Account, shop: Outside) -> list[Sent]:
    """Payments of which the first is really in flight, and the node lost the others before they left."""
    sent: list[Sent] = []
    with bank.stack.frozen("outside-1"):
        for amount_msat in (1_000_000, 1_100_000, 1_200_000):
            invoice = await shop.hold_invoice(amount_msat)
            answer = await alice.pay(invoice.bolt11, wait_s=0)
            assert answer.status_code == 202, answer.text
            node = await _node_of(bank, answer.json()["id"])

            async def written(node: str = node, invoice: HoldInvoice = invoice) -> int | None:
                return await _attempts(bank.stack, node, invoice.payment_hash)

            await eventually(written, "the node to write the attempt down")
            sent.append(Sent(answer.json(), invoice))
        restarts = bank.stack.process(node).restarts
        os.kill(bank.stack.pid(node), signal.SIGKILL)
    await asyncio.to_thread(bank.stack.wait_back, node, restarts)
    await sync_network(bank.stack)
    return sent


async def _reaches_payee(shop: Outside, sent: Sent) -> None:
    async def accepted() -> bool | None:
        return True if (await shop.look_up(sent.invoice.payment_hash)).state == ln.Invoice.ACCEPTED else None

    await eventually(accepted, "the HTLC to reach the payee")


async def _look_now(bank: Bank, all_sent: list[Sent]) -> None:
    """What the pump does when its node has news. A payment that has ended meanwhile needs no look."""
    told = bank.stack.environment()
    temporal = await Client.connect(told["MILLRACE_TEMPORAL_ADDRESS"], namespace=told["MILLRACE_TEMPORAL_NAMESPACE"])
    for sent in all_sent:
        with suppress(RPCError):
            await temporal.get_workflow_handle(sent.payment["workflow_id"]).signal("node_reported")


async def _mine(bank: Bank, blocks: int) -> int:
    await asyncio.to_thread(bank.stack.mine, blocks)
    await sync_network(bank.stack)
    return int(await asyncio.to_thread(bank.stack.bitcoin().call, "getblockcount"))


async def _sighted(bank: Bank, all_sent: list[Sent], height: int) -> None:
    """Wait until a worker has looked at this height for each of them."""
    await _look_now(bank, all_sent)
    ids = [sent.payment["id"] for sent in all_sent]

    async def seen() -> bool | None:
        count = await bank.database.fetchval(
            "SELECT count(*) FROM bank.lost_sightings WHERE payment_id = ANY($1) AND height = $2", ids, height
        )
        return True if count == len(ids) else None

    await eventually(seen, f"a look at block {height}")


async def test_a_lost_attempt_is_shown_and_released_once_by_proof_also_when_the_engine_dies(
    bank: Bank, shop: Outside
) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    real, *both = await _lose_attempts(bank, alice, shop)
    lost, _other = both
    await _reaches_payee(shop, real)
    await shop.settle(real.invoice)
    assert (await alice.final(real.payment["id"]))["status"] == "settled"

    await _sighted(bank, both, await _mine(bank, 1))
    await _sighted(bank, both, await _mine(bank, 1))

    async def shown() -> Json | None:
        found = await alice.payment(lost.payment["id"])
        return found if found["waiting"]["reason"] == "lost_attempt" else None

    waiting = (await eventually(shown, "the lost attempt to be shown"))["waiting"]
    node_says = await _first_word(bank.stack, await _node_of(bank, lost.payment["id"]), lost.invoice.payment_hash)
    time_lock = node_says.htlcs[0].route.total_time_lock
    assert (node_says.status, waiting["needs_operator"]) == (ln.Payment.IN_FLIGHT, False)
    assert f"block {release_height(time_lock)}" in waiting["detail"]
    assert (await shop.look_up(lost.invoice.payment_hash)).state == ln.Invoice.OPEN

    height = await asyncio.to_thread(bank.stack.bitcoin().call, "getblockcount")
    await _sighted(bank, both, await _mine(bank, time_lock + 1 - height))
    await _sighted(bank, both, await _mine(bank, 1))
    assert (await alice.payment(lost.payment["id"]))["status"] == "pending"
    await asyncio.to_thread(bank.stack.mine, release_height(time_lock) - time_lock)
    kills = [asyncio.to_thread(bank.stack.kill, f"worker-{number}") for number in (1, 2)]
    await asyncio.gather(_look_now(bank, both), *kills)
    await sync_network(bank.stack)
    await _look_now(bank, both)
    for each in both:
        ended = await alice.final(each.payment["id"], limit_s=120)
        assert (ended["status"], ended["failure"]["code"], ended["waiting"]) == ("failed", "lost_attempt", None)
    again = await alice.pay(lost.invoice.bolt11)
    assert again.json()["code"] in {"invoice_unpayable", "invoice_expired"}, again.text
    assert (await alice.wallet())["held_msat"] == 0
