"""A payment in several attempts or parts, and what happens between them. The node in the middle keeps each as it comes.

Until the node's status is final nothing is given back: a reason to fail, or a part that has failed, ends no payment
while another part of it is on its way.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.clients.lndrpc import lightning_pb2 as ln
from infra.local.outside import Outside, sync_network
from tests.fixtures.hop import Hop
from tests.fixtures.lnd_crash import crash_at
from tests.fixtures.stack import Account, Bank, eventually
from tests.helpers.held_payment import accepted, looked_anew, node_of, node_says

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

NEXT_ROUTE = "routing.(*paymentSession).RequestRoute"
AMOUNT_MSAT = 50_000_000
"""Goes in one, or in two parts where the fixture `parts` is asked for."""


async def _send(alice: Account, bolt11: str) -> str:
    answer = await alice.pay(bolt11, wait_s=0)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def _states(bank: Bank, node: str, payment_hash: bytes) -> tuple[ln.Payment, list[int]]:
    """What the node says of the payment, and of each of its attempts."""
    said = await node_says(bank.stack, node, payment_hash)
    assert said is not None
    return said, sorted(attempt.status for attempt in said.htlcs)


@asynccontextmanager
async def _dies_before_its_next_route(bank: Bank, node: str) -> AsyncIterator[None]:
    """What is done in the block makes the node look for one more route: there it dies, and comes back."""
    restarts = bank.stack.process(node).restarts
    crash_at(bank.stack.pid(node), NEXT_ROUTE)
    yield
    await asyncio.to_thread(bank.stack.wait_back, node, restarts)
    await sync_network(bank.stack)


async def test_killed_after_an_attempt_failed_and_before_the_next_was_written(
    bank: Bank, shop: Outside, middle: Hop
) -> None:
    alice = await bank.open_account(funds_msat=60_000_000)
    invoice = await shop.hold_invoice(AMOUNT_MSAT)
    middle.keep(invoice.payment_hash)
    payment_id = await _send(alice, invoice.bolt11)
    (attempt,) = await middle.kept(invoice.payment_hash, 1)
    node = await node_of(bank, payment_id)
    async with _dies_before_its_next_route(bank, node):
        await middle.fail(attempt)
    said, _ = await _states(bank, node, invoice.payment_hash)
    assert (said.status, said.failure_reason) == (ln.Payment.FAILED, ln.FAILURE_REASON_NO_ROUTE)
    assert middle.now(invoice.payment_hash) == []
    assert (await alice.final(payment_id, limit_s=120))["status"] == "failed"
    assert (await alice.wallet())["available_msat"] == 60_000_000

    again = await _send(alice, invoice.bolt11)
    (attempt,) = await middle.kept(invoice.payment_hash, 1)
    await middle.pass_on(attempt)
    await accepted(shop, invoice.payment_hash)
    await shop.settle(invoice)
    assert (await alice.final(again))["status"] == "settled"


async def test_killed_with_one_part_on_its_way_and_the_next_not_written(
    bank: Bank, shop: Outside, middle: Hop, parts: None
) -> None:
    alice = await bank.open_account(funds_msat=60_000_000)
    invoice = await shop.hold_invoice(AMOUNT_MSAT)
    middle.keep(invoice.payment_hash)
    payment_id = await _send(alice, invoice.bolt11)
    first, second = await middle.kept(invoice.payment_hash, 2)
    node = await node_of(bank, payment_id)
    async with _dies_before_its_next_route(bank, node):
        await middle.fail(second)
    said, attempts = await _states(bank, node, invoice.payment_hash)
    assert (said.status, attempts) == (ln.Payment.IN_FLIGHT, [ln.HTLCAttempt.IN_FLIGHT, ln.HTLCAttempt.FAILED])
    await _stays_held(bank, alice, payment_id)
    await middle.fail(first)
    assert (await alice.final(payment_id, limit_s=120))["status"] == "failed"
    assert (await alice.wallet())["available_msat"] == 60_000_000


async def test_the_node_gives_up_while_a_part_is_on_its_way(
    bank: Bank, shop: Outside, middle: Hop, parts: None
) -> None:
    """It has a reason to fail, and no final word."""
    alice = await bank.open_account(funds_msat=60_000_000)
    invoice = await shop.hold_invoice(AMOUNT_MSAT)
    middle.keep(invoice.payment_hash)
    payment_id = await _send(alice, invoice.bolt11)
    first, second = await middle.kept(invoice.payment_hash, 2)
    node = await node_of(bank, payment_id)
    await middle.fail(second)

    async def gave_up() -> ln.Payment | None:
        for more in middle.now(invoice.payment_hash):
            if more != first:
                await middle.fail(more)
        said, _ = await _states(bank, node, invoice.payment_hash)
        return said if said.failure_reason != ln.FAILURE_REASON_NONE else None

    said = await eventually(gave_up, "the node to find no other way")
    assert (said.status, said.failure_reason) == (ln.Payment.IN_FLIGHT, ln.FAILURE_REASON_NO_ROUTE)
    await _stays_held(bank, alice, payment_id)
    await middle.fail(first)
    failed = await alice.final(payment_id, limit_s=120)
    assert (failed["status"], failed["failure"]["code"]) == ("failed", "no_route")
    assert (await alice.wallet())["available_msat"] == 60_000_000


async def _stays_held(bank: Bank, alice: Account, payment_id: str) -> None:
    """A worker looks, now, and leaves it as it is."""
    await looked_anew(bank, (await alice.payment(payment_id))["workflow_id"])
    payment = await alice.payment(payment_id)
    assert (payment["status"], payment["waiting"]["reason"]) == ("pending", "in_flight")
    assert (await alice.wallet())["held_msat"] > AMOUNT_MSAT
