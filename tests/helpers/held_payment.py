"""What the stories of accidents have in common: a payment that is held somewhere, and what is known of it meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import grpc
from temporalio.service import RPCError

from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.routerrpc import router_pb2 as router
from infra.local.outside import HoldInvoice, Outside, outside, sync_network
from infra.local.stack import Stack
from tests.fixtures.stack import Account, Bank, Json, eventually

Lasts: TypeAlias = Callable[[float], Awaitable[None]]
"""The fixture `lasts`."""


async def accepted(shop: Outside, payment_hash: bytes) -> None:
    """Wait until the payee has it and keeps it."""

    async def look() -> bool | None:
        return True if (await shop.look_up(payment_hash)).state == ln.Invoice.ACCEPTED else None

    await eventually(look, "the HTLC to reach the payee")


async def held_payment(
    alice: Account, shop: Outside, amount_msat: int = 2_000_000, *, expiry_s: int = 3600
) -> tuple[str, HoldInvoice]:
    """A payment that the payee holds: its id and the invoice."""
    held = await shop.hold_invoice(amount_msat, expiry_s=expiry_s)
    answer = await alice.pay(held.bolt11, wait_s=0)
    assert answer.status_code == 202, answer.text
    await accepted(shop, held.payment_hash)
    return str(answer.json()["id"]), held


async def waits_for(alice: Account, payment_id: str, *reasons: str, limit_s: float = 60) -> Json:
    """The payment once it waits for one of these."""

    async def look() -> Json | None:
        found = await alice.payment(payment_id)
        return found if found["waiting"] and found["waiting"]["reason"] in reasons else None

    return await eventually(look, f"the payment to wait for {reasons}", limit_s=limit_s)


async def node_of(bank: Bank, payment_id: str) -> str:
    """The node that the payment is pinned to."""

    async def pinned() -> str | None:
        found: str | None = await bank.database.fetchval("SELECT node FROM bank.payments WHERE id = $1", payment_id)
        return found

    return await eventually(pinned, "the payment to be pinned to a node")


async def node_says(stack: Stack, name: str, payment_hash: bytes) -> ln.Payment | None:
    """What one of the bank's nodes knows of a payment now; None when it does not know it."""
    async with outside(stack, name) as node:
        try:
            async for payment in node.stubs.router.TrackPaymentV2(
                router.TrackPaymentRequest(payment_hash=payment_hash)
            ):
                return payment
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
    return None


async def looked_anew(bank: Bank, workflow_id: str) -> None:
    """Have a worker look at the node now, as the pump does, and wait until it has and found no end."""
    temporal = await bank.temporal()
    workflow = temporal.get_workflow_handle(workflow_id)

    async def watch(*, after: str = "") -> str | None:
        pending = (await workflow.describe()).raw_description.pending_activities
        looks = [each for each in pending if each.activity_type.name == "watch_payment" and each.attempt > 1]
        return next((each.activity_id for each in looks if each.activity_id != after), None)

    earlier = await eventually(watch, "the payment to be watched")
    await workflow.signal("node_reported")
    await eventually(partial(watch, after=earlier), "a worker to look anew")


async def look_now(bank: Bank, payments: Sequence[Json]) -> None:
    """What the pump does when its node has news. A payment that has ended meanwhile needs no look."""
    temporal = await bank.temporal()
    for payment in payments:
        with suppress(RPCError):
            await temporal.get_workflow_handle(payment["workflow_id"]).signal("node_reported")


async def sighted(bank: Bank, payments: Sequence[Json], height: int) -> None:
    """Wait until a worker has found each of these in no channel at this height."""
    await look_now(bank, payments)
    ids = [payment["id"] for payment in payments]

    async def seen() -> bool | None:
        count = await bank.database.fetchval(
            "SELECT count(*) FROM bank.lost_sightings WHERE payment_id = ANY($1) AND height = $2", ids, height
        )
        return True if count == len(ids) else None

    await eventually(seen, f"a look at block {height}")


async def mine(bank: Bank, blocks: int) -> int:
    """Mine and wait until every node has seen it; the height."""
    await asyncio.to_thread(bank.stack.mine, blocks)
    await sync_network(bank.stack)
    return int(await asyncio.to_thread(bank.stack.bitcoin().call, "getblockcount"))
