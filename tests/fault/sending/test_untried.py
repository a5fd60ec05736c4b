"""LND takes a payment, and cannot ask bitcoind for the height that it needs for the first attempt.

It says IN_FLIGHT from then on. It tries for three quarters of a minute; when bitcoind has not come back by then, LND
gives up and forgets to say so, until it is restarted (seen). Made certain by a proxy that gives the worker, when
bitcoind is gone, what the node answered before.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from engine.clients.lnd.client import LndNode, NodePaymentStatus
from engine.domain.errors import EngineError
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat
from engine.settings import NodeSettings
from infra.local.outside import Outside, sync_network
from tests.fixtures.own_process import nodes
from tests.fixtures.stack import Account, Bank, Json, eventually
from tests.helpers.held_payment import Lasts, node_of
from tests.helpers.wire import open_wire

pytestmark = [pytest.mark.fault, pytest.mark.timeout(480)]


@asynccontextmanager
async def _told_without_its_chain(bank: Bank, shop: Outside, alice: Account) -> AsyncIterator[Json]:
    """A payment that its node was told of when bitcoind had gone; bitcoind is away for the length of the block."""
    async with AsyncExitStack() as entered:
        wire = await entered.enter_async_context(open_wire(bank.stack))

        async def known() -> bool | None:
            return True if all("GetInfo" in proxy.answers for proxy in wire.proxies) else None

        await eventually(known, "both nodes to have told that they can pay")
        for proxy in wire.proxies:
            entered.enter_context(proxy.stale("GetInfo"))
        await asyncio.to_thread(bank.stack.hold, "bitcoind")
        try:
            answer = await alice.pay(await shop.invoice(2_000_000), wait_s=0)
            assert answer.status_code == 202, answer.text

            async def begun() -> bool | None:
                found: bool | None = await bank.database.fetchval(
                    "SELECT true FROM bank.begun_sends WHERE payment_id = $1", answer.json()["id"]
                )
                return found

            await eventually(begun, "the node to take the payment")
            yield answer.json()
        finally:
            await asyncio.to_thread(bank.stack.release, "bitcoind")
            await sync_network(bank.stack)


async def _paid_or_untried(alice: Account, payment: Json) -> Json:
    """Whether LND has found its chain again in time is luck: it gives up at the first word of one that starts."""

    async def look() -> Json | None:
        found = await alice.payment(payment["id"])
        untried = found["waiting"] and found["waiting"]["detail"].endswith("no attempt yet")
        return found if untried or found["status"] != "pending" else None

    return await eventually(look, "the node to pay, or to have made no attempt")


async def _require_all_back(alice: Account, ended: Json) -> None:
    """All but what was paid."""
    paid_msat = 2_000_000 + ended["fee_msat"] if ended["status"] == "settled" else 0
    wallet = await alice.wallet()
    assert (wallet["held_msat"], wallet["available_msat"]) == (0, 9_000_000 - paid_msat)


async def test_a_restart_of_the_node_ends_what_it_took_without_its_chain(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    async with _told_without_its_chain(bank, shop, alice) as payment:
        assert (await alice.payment(payment["id"]))["status"] == "pending"
    if (await _paid_or_untried(alice, payment))["status"] == "pending":
        await bank.kill(await node_of(bank, payment["id"]))
        await sync_network(bank.stack)
    await _require_all_back(alice, await alice.final(payment["id"], limit_s=120))


async def test_the_node_ends_what_it_took_without_its_chain_when_it_is_made_to(bank: Bank, shop: Outside) -> None:
    """As a worker does when the node's minute is over. What it has ended or paid it leaves as it is."""
    alice = await bank.open_account(funds_msat=9_000_000)
    async with _told_without_its_chain(bank, shop, alice) as payment:
        pass
    await _paid_or_untried(alice, payment)
    name = await node_of(bank, payment["id"])
    settings = nodes(bank.stack, "worker", {})["MILLRACE_NODES"]
    node = LndNode(NodeName(name), NodeSettings.model_validate(json.loads(settings)[name]))
    payment_hash = PaymentHash(payment["payment_hash"])
    try:
        for _ in range(2):
            with suppress(EngineError):
                await node.end_untried(payment_hash, Msat(2_000_000))
            known = await node.find_payment(payment_hash)
            assert known is not None
            assert known.status is not NodePaymentStatus.IN_FLIGHT
    finally:
        await node.close()
    await _require_all_back(alice, await alice.final(payment["id"]))


@pytest.mark.usefixtures("whole_length")
async def test_a_payment_that_a_node_never_tried_ends_by_itself(bank: Bank, shop: Outside, lasts: Lasts) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    async with _told_without_its_chain(bank, shop, alice) as payment:
        await lasts(60)
    ended = await alice.final(payment["id"], limit_s=240)
    assert ended["failure"]["code"] == "no_route"
    await _require_all_back(alice, ended)
    assert (await alice.pay(payment["destination"])).json()["status"] == "settled"
