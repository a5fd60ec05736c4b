"""LND takes a payment, and cannot ask bitcoind for the height that it needs for the first attempt.

It says IN_FLIGHT from then on. It tries for three quarters of a minute; when bitcoind has not come back by then, LND
gives up and forgets to say so, until it is restarted (seen). Made certain by a proxy that gives the worker, when
bitcoind is gone, what the node answered before.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeAlias

import pytest

from engine.clients.lndrpc import lightning_pb2 as ln
from engine.domain.sending import SIGHTINGS
from infra.local.home import BANK
from infra.local.outside import Outside, sync_network
from tests.fault.fault_helpers import mine, node_of, node_says, sighted, waits_for
from tests.fixtures.lnd_proxy import lnd_proxy
from tests.fixtures.own_process import nodes, own_worker
from tests.fixtures.stack import Account, Bank, Json, eventually

pytestmark = [pytest.mark.fault, pytest.mark.timeout(480)]

Lasts: TypeAlias = Callable[[float], Awaitable[None]]


@asynccontextmanager
async def _told_without_its_chain(bank: Bank, shop: Outside, alice: Account) -> AsyncIterator[Json]:
    """A payment that its node was told of when bitcoind had gone; bitcoind is away for the length of the block."""
    async with AsyncExitStack() as entered:
        proxies = {name: await entered.enter_async_context(lnd_proxy(bank.stack, name)) for name in BANK}
        addresses = {name: {"address": proxy.address} for name, proxy in proxies.items()}
        await entered.enter_async_context(own_worker(bank.stack, nodes(bank.stack, "worker", addresses)))
        late = [entered.enter_context(proxy.always(proxy.delay("GetInfo"))) for proxy in proxies.values()]
        answer = await alice.pay(await shop.invoice(2_000_000), wait_s=0)
        assert answer.status_code == 202, answer.text

        async def asked_in_peace() -> bool | None:
            return True if sum(each.hits for each in late) > 1 else None

        await eventually(asked_in_peace, "the node to be asked without haste")
        await asyncio.to_thread(bank.stack.hold, "bitcoind")
        try:
            for each in late:
                each.over.set()

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


async def test_what_a_node_took_without_its_chain_is_paid_or_ended_by_its_restart(bank: Bank, shop: Outside) -> None:
    """Whether LND has found its chain again in time is luck: it gives up at the first word of one that starts."""
    alice = await bank.open_account(funds_msat=9_000_000)
    async with _told_without_its_chain(bank, shop, alice) as payment:
        assert (await alice.payment(payment["id"]))["status"] == "pending"

    async def paid_or_untried() -> Json | None:
        found = await alice.payment(payment["id"])
        untried = found["waiting"] and found["waiting"]["detail"].endswith("no attempt yet")
        return found if untried or found["status"] != "pending" else None

    found = await eventually(paid_or_untried, "the node to pay, or to have made no attempt")
    if found["status"] == "pending":
        await bank.kill(await node_of(bank, payment["id"]))
        await sync_network(bank.stack)
    ended = await alice.final(payment["id"], limit_s=120)
    assert (await alice.wallet())["held_msat"] == 0
    assert (await alice.wallet())["available_msat"] == 9_000_000 - (ended["status"] == "settled") * (
        2_000_000 + ended["fee_msat"]
    )


@pytest.mark.usefixtures("whole_length")
async def test_what_a_node_never_tried_is_released_by_proof_once(bank: Bank, shop: Outside, lasts: Lasts) -> None:
    """While the node says that it is in flight. Its restart, afterwards, changes nothing."""
    alice = await bank.open_account(funds_msat=9_000_000)
    async with _told_without_its_chain(bank, shop, alice) as payment:
        await lasts(60)
    stuck = await waits_for(alice, payment["id"], "not_tried", limit_s=240)
    assert stuck["status"] == "pending"
    for _ in range(SIGHTINGS - 1):  # one look has shown it
        await sighted(bank, [payment], await mine(bank, 1))
    ended = await alice.final(payment["id"])
    assert (ended["status"], ended["failure"]["code"]) == ("failed", "lost_attempt")
    assert (await alice.wallet())["available_msat"] == 9_000_000
    assert (await alice.pay(payment["destination"])).json()["code"] == "invoice_unpayable"
    node = await node_of(bank, payment["id"])
    said = await node_says(bank.stack, node, bytes.fromhex(payment["payment_hash"]))
    assert said is not None
    assert (said.status, len(said.htlcs)) == (ln.Payment.IN_FLIGHT, 0)
    await bank.kill(node)
    await sync_network(bank.stack)
