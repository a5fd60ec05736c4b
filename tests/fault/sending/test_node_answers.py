"""A node's answer is lost, late, doubled or cut short on its way to us. The node itself did what it was asked.

One worker talks to both nodes through a proxy. What counts is at the node: it was asked to pay once.
"""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.routerrpc import router_pb2 as router
from infra.local.outside import Outside
from infra.local.stack import Stack
from tests.fixtures.hop import Hop
from tests.fixtures.lnd_proxy import Fault
from tests.fixtures.own_process import nodes, own_api
from tests.fixtures.stack import Bank, eventually
from tests.helpers.held_payment import accepted, looked_anew, node_of, node_says, waits_for
from tests.helpers.wire import Wire, open_wire

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

CAP = 18


@pytest_asyncio.fixture(scope="module")
async def module_wire(stack: Stack) -> AsyncIterator[Wire]:
    async with open_wire(stack, MILLRACE_MAX_IN_FLIGHT_PER_ACCOUNT=str(CAP)) as wire:
        yield wire


@pytest.fixture
def wire(module_wire: Wire) -> Wire:
    module_wire.renew()
    return module_wire


def _struck(faults: list[Fault]) -> int:
    return sum(fault.hits for fault in faults)


@pytest.mark.parametrize("after", [0, 1])
async def test_the_answer_to_a_send_is_lost_and_the_payment_is_found_and_settled(
    bank: Bank, shop: Outside, wire: Wire, after: int
) -> None:
    """Before the node's first word, and after it."""
    alice = await bank.open_account(funds_msat=9_000_000)
    lost = wire.lose("SendPaymentV2", after=after)
    answer = await alice.pay(await shop.invoice(2_000_000))
    paid = answer.json() if answer.status_code == 201 else await alice.final(answer.json()["id"])
    assert paid["status"] == "settled"
    assert (_struck(lost), wire.calls("SendPaymentV2")) == (1, 1)
    assert (await alice.wallet())["available_msat"] == 7_000_000 - paid["fee_msat"]


async def test_the_stream_of_a_held_payment_is_cut_again_and_again(bank: Bank, shop: Outside, wire: Wire) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    held = await shop.hold_invoice(2_000_000)
    cuts = [*wire.lose("SendPaymentV2", after=1)]
    for proxy in wire.proxies:
        cuts += [proxy.lose("TrackPaymentV2"), proxy.truncate("TrackPaymentV2"), proxy.lose("TrackPayments")]
    answer = await alice.pay(held.bolt11, wait_s=0)
    await accepted(shop, held.payment_hash)
    await waits_for(alice, answer.json()["id"], "node_unavailable", "outcome_unknown", "sending", "in_flight")
    await shop.settle(held)
    paid = await alice.final(answer.json()["id"])
    assert (paid["status"], paid["preimage"], paid["waiting"]) == ("settled", held.preimage.hex(), None)
    assert (wire.calls("SendPaymentV2"), _struck(cuts) >= 3) == (1, True)


async def test_an_answer_that_does_not_come_is_not_waited_for(bank: Bank, shop: Outside, wire: Wire) -> None:
    """The payment is paid while its answer hangs: after a while the next try looks at the node."""
    alice = await bank.open_account(funds_msat=9_000_000)
    late = wire.delay("SendPaymentV2")
    answer = await alice.pay(await shop.invoice(2_000_000), wait_s=0)
    assert answer.status_code == 202
    paid = await alice.final(answer.json()["id"])
    assert (paid["status"], _struck(late), wire.calls("SendPaymentV2")) == ("settled", 1, 1)


async def test_settle_events_that_come_twice_credit_once(bank: Bank, shop: Outside, wire: Wire) -> None:
    alice = await bank.open_account()
    twice = [proxy.duplicate("SubscribeInvoices", times=1000) for proxy in wire.proxies]
    invoices = [await alice.invoice(1_000_000 + number) for number in range(3)]
    for invoice in invoices:
        await shop.pay(invoice["bolt11"])
    for invoice in invoices:
        await bank.credited(alice, invoice["id"])
    assert _struck(twice) >= len(invoices)
    assert (await alice.wallet())["available_msat"] == 3_000_003


async def test_a_settle_event_that_is_lost_is_asked_for_again(bank: Bank, shop: Outside, wire: Wire) -> None:
    alice = await bank.open_account()
    lost = wire.lose("SubscribeInvoices")
    invoice = await alice.invoice(1_000_000)
    await shop.pay(invoice["bolt11"])
    await bank.credited(alice, invoice["id"])
    assert _struck(lost) >= 1
    assert (await alice.wallet())["available_msat"] == 1_000_000


async def test_the_answers_to_both_nodes_add_invoice_are_lost_and_the_repeat_finds_it(
    bank: Bank, shop: Outside, wire: Wire
) -> None:
    alice = await bank.open_account()
    async with own_api(bank.stack, nodes(bank.stack, "receive", wire.addresses)) as api:
        lost = wire.lose("AddInvoice")
        body = {"wallet_id": alice.wallet_id, "amount_msat": 1_000_000}
        headers = {**alice.headers, "Idempotency-Key": secrets.token_hex(8)}
        first = await api.post("/v1/invoices", json=body, headers=headers)
        assert (first.status_code, _struck(lost)) == (503, 2), first.text
        repeat = await api.post("/v1/invoices", json=body, headers=headers)
    assert repeat.status_code == 201, repeat.text
    await shop.pay(repeat.json()["bolt11"])
    await bank.credited(alice, repeat.json()["id"])
    assert (await alice.wallet())["available_msat"] == 1_000_000


async def test_a_node_that_no_longer_knows_a_payment_gives_nothing_back(bank: Bank, shop: Outside, wire: Wire) -> None:
    """As if its database had been replaced: no refund, an operator; and when it knows again, the true end."""
    alice = await bank.open_account(funds_msat=9_000_000)
    held = await shop.hold_invoice(2_000_000)
    answer = await alice.pay(held.bolt11, wait_s=0)
    await accepted(shop, held.payment_hash)
    payment_id = answer.json()["id"]
    await waits_for(alice, payment_id, "in_flight")
    forgotten = [
        proxy.refuse("TrackPaymentV2", grpc.StatusCode.NOT_FOUND, "payment isn't initiated") for proxy in wire.proxies
    ]
    with wire.proxies[0].always(forgotten[0]), wire.proxies[1].always(forgotten[1]):
        stuck = await waits_for(alice, payment_id, "node_forgot")
        assert (stuck["status"], stuck["waiting"]["needs_operator"]) == ("pending", True)
        assert (await alice.wallet())["held_msat"] > 2_000_000
    await shop.settle(held)
    assert (await alice.final(payment_id, limit_s=120))["status"] == "settled"
    assert wire.calls("SendPaymentV2") == 1


async def test_a_zombie_that_wakes_after_the_release_sends_nothing(bank: Bank, shop: Outside, wire: Wire) -> None:
    """Stopped between its look and its fence; another worker meanwhile sends, fails and gives the money back."""
    alice = await bank.open_account(funds_msat=9_000_000)
    invoice = await shop.invoice(2_000_000)
    await shop.cancel(bytes.fromhex((await alice.post("/v1/decode", {"destination": invoice})).json()["payment_hash"]))
    late = wire.delay("GetInfo")
    answer = await alice.pay(invoice, wait_s=0)

    async def at_its_fence() -> bool | None:
        return True if _struck(late) else None

    await eventually(at_its_fence, "the worker to come to its fence")
    os.kill(wire.worker.pid, signal.SIGSTOP)
    try:
        await asyncio.to_thread(bank.stack.release, "worker-1")
        assert (await alice.final(answer.json()["id"], limit_s=120))["status"] == "failed"
    finally:
        os.kill(wire.worker.pid, signal.SIGCONT)
        wire.heal()
    await asyncio.to_thread(bank.stack.hold, "worker-1")
    assert (await alice.pay(await shop.invoice(1_000_000))).json()["status"] == "settled"
    assert wire.calls("SendPaymentV2") == 1
    assert (await alice.wallet())["held_msat"] == 0


async def test_many_that_hang_slow_nobody_until_the_accounts_cap_is_reached(
    bank: Bank, shop: Outside, wire: Wire
) -> None:
    alice, bob = await bank.open_account(funds_msat=60_000_000), await bank.open_account(funds_msat=9_000_000)
    hanging = await asyncio.gather(*(shop.hold_invoice(1_000_000 + number) for number in range(CAP)))
    sent = await asyncio.gather(*(alice.pay(held.bolt11, wait_s=0) for held in hanging))
    assert {answer.status_code for answer in sent} == {202}
    await asyncio.gather(*(accepted(shop, held.payment_hash) for held in hanging))
    refused = await alice.pay(await shop.invoice(1_000_000))
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_in_flight"), refused.text
    assert (await bob.pay(await shop.invoice(1_000_000))).json()["status"] == "settled"
    assert await bank.in_flight() == CAP
    await asyncio.gather(*(shop.settle(held) for held in hanging))
    ends = await asyncio.gather(*(alice.final(answer.json()["id"]) for answer in sent))
    assert {end["status"] for end in ends} == {"settled"}
    assert (await alice.pay(await shop.invoice(1_000_000))).json()["status"] == "settled"


def _in_two_seconds(message: bytes) -> bytes:
    request = router.SendPaymentRequest.FromString(message)
    request.timeout_seconds = 2
    return request.SerializeToString()


async def test_the_nodes_time_runs_out_while_a_part_is_on_its_way(
    bank: Bank, shop: Outside, wire: Wire, middle: Hop, parts: None
) -> None:
    """It says why it will fail, and not that it has failed: the part that is kept in the middle may still be paid."""
    alice = await bank.open_account(funds_msat=60_000_000)
    for proxy in wire.proxies:
        proxy.rewrite("SendPaymentV2", _in_two_seconds)
    invoice = await shop.hold_invoice(50_000_000)
    middle.keep(invoice.payment_hash)
    payment_id = (await alice.pay(invoice.bolt11, wait_s=0)).json()["id"]
    first, second = await middle.kept(invoice.payment_hash, 2)
    node = await node_of(bank, payment_id)

    async def past() -> bool | None:
        said = await node_says(bank.stack, node, invoice.payment_hash)
        return True if said is not None and time.time_ns() > said.creation_time_ns + 3 * 10**9 else None

    await eventually(past, "the node's time to run out")
    await middle.fail(second)

    async def gave_up() -> ln.Payment | None:
        said = await node_says(bank.stack, node, invoice.payment_hash)
        return said if said is not None and said.failure_reason != ln.FAILURE_REASON_NONE else None

    said = await eventually(gave_up, "the node to try no more")
    assert (said.status, said.failure_reason) == (ln.Payment.IN_FLIGHT, ln.FAILURE_REASON_TIMEOUT)
    await looked_anew(bank, (await alice.payment(payment_id))["workflow_id"])
    assert (await alice.payment(payment_id))["status"] == "pending"
    assert (await alice.wallet())["held_msat"] > 50_000_000
    await middle.fail(first)
    failed = await alice.final(payment_id, limit_s=120)
    assert (failed["status"], failed["failure"]["code"]) == ("failed", "payment_timeout")
    assert (await alice.wallet())["available_msat"] == 60_000_000
