"""LND is killed after it wrote an attempt and before the HTLC was in a channel: in flight in its records for ever.

Made certain by freezing the peer: the first commitment waits for the peer's signature, so the HTLCs that come after it
are written down and never reach the channel. LND signs every 50 ms: an HTLC that came soon after the first is in the
same commitment, and really in flight. Then the node is killed. It may be killed before it has handed the last one on at
all: of that it knows afterwards that it failed.
"""

import asyncio
import os
import signal
from dataclasses import dataclass

import pytest

from engine.clients.lndrpc import lightning_pb2 as ln
from engine.domain.lost_attempt import release_height
from infra.local.outside import HoldInvoice, Outside, outside, sync_network
from infra.local.stack import Stack
from tests.fixtures.stack import Account, Bank, Json, eventually
from tests.helpers.held_payment import accepted, look_now, mine, node_of, node_says, sighted, waits_for

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Sent:
    """A payment, as it was accepted, and what it pays."""

    payment: Json
    invoice: HoldInvoice


async def _attempts(stack: Stack, name: str, payment_hash: bytes) -> int | None:
    said = await node_says(stack, name, payment_hash)
    return len(said.htlcs) or None if said is not None else None


async def _in_channels(stack: Stack, name: str) -> set[bytes]:
    """The hashes of the HTLCs in the node's channels."""
    async with outside(stack, name) as node:
        channels = (await node.stubs.lightning.ListChannels(ln.ListChannelsRequest())).channels
    return {htlc.hash_lock for channel in channels for htlc in channel.pending_htlcs}


async def _lose_attempts(bank: Bank, alice: Account, shop: Outside) -> tuple[list[Sent], list[Sent]]:
    """(payments that are really in flight, the first and perhaps more; those that the node lost before they left)."""
    sent: list[Sent] = []
    with bank.stack.frozen("outside-1"):
        for amount_msat in (1_000_000, 1_100_000, 1_200_000, 1_300_000):
            invoice = await shop.hold_invoice(amount_msat)
            answer = await alice.pay(invoice.bolt11, wait_s=0)
            assert answer.status_code == 202, answer.text
            node = await node_of(bank, answer.json()["id"])

            async def written(node: str = node, invoice: HoldInvoice = invoice) -> int | None:
                return await _attempts(bank.stack, node, invoice.payment_hash)

            await eventually(written, "the node to write the attempt down")
            sent.append(Sent(answer.json(), invoice))
        restarts = bank.stack.process(node).restarts
        os.kill(bank.stack.pid(node), signal.SIGKILL)
    await asyncio.to_thread(bank.stack.wait_back, node, restarts)
    await sync_network(bank.stack)
    said = [await node_says(bank.stack, node, each.invoice.payment_hash) for each in sent]
    in_flight = [each for each, known in zip(sent, said, strict=True) if known and known.status == ln.Payment.IN_FLIGHT]
    await accepted(shop, in_flight[0].invoice.payment_hash)
    there = await _in_channels(bank.stack, node)
    real = [each for each in in_flight if each.invoice.payment_hash in there]
    return real, [each for each in in_flight if each not in real]


async def test_a_lost_attempt_is_shown_and_released_once_by_proof_also_when_the_engine_dies(
    bank: Bank, shop: Outside
) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    real, lost = await _lose_attempts(bank, alice, shop)
    one, payments = lost[0], [each.payment for each in lost]
    for each in real:
        await accepted(shop, each.invoice.payment_hash)
        await shop.settle(each.invoice)
        assert (await alice.final(each.payment["id"]))["status"] == "settled"

    await sighted(bank, payments, await mine(bank, 1))
    await sighted(bank, payments, await mine(bank, 1))
    waiting = (await waits_for(alice, one.payment["id"], "lost_attempt"))["waiting"]
    said = await node_says(bank.stack, await node_of(bank, one.payment["id"]), one.invoice.payment_hash)
    assert said is not None
    time_lock = said.htlcs[0].route.total_time_lock
    assert (said.status, waiting["needs_operator"]) == (ln.Payment.IN_FLIGHT, False)
    assert f"block {release_height(time_lock)}" in waiting["detail"]
    assert (await shop.look_up(one.invoice.payment_hash)).state == ln.Invoice.OPEN

    height = await asyncio.to_thread(bank.stack.bitcoin().call, "getblockcount")
    await sighted(bank, payments, await mine(bank, time_lock + 1 - height))
    await sighted(bank, payments, await mine(bank, 1))
    assert (await alice.payment(one.payment["id"]))["status"] == "pending"
    await asyncio.to_thread(bank.stack.mine, release_height(time_lock) - time_lock)
    kills = [asyncio.to_thread(bank.stack.kill, f"worker-{number}") for number in (1, 2)]
    await asyncio.gather(look_now(bank, payments), *kills)
    await sync_network(bank.stack)
    await look_now(bank, payments)
    for each in lost:
        ended = await alice.final(each.payment["id"], limit_s=120)
        assert (ended["status"], ended["failure"]["code"], ended["waiting"]) == ("failed", "lost_attempt", None)
    again = await alice.pay(one.invoice.bolt11)
    assert again.json()["code"] in {"invoice_unpayable", "invoice_expired"}, again.text
    assert (await alice.wallet())["held_msat"] == 0
