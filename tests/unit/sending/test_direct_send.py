"""When a payment is sent by the process that holds its money, and when it is left to the node's own queue."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities import direct_send
from activities.direct_send import NO_NODES, DirectSend
from engine.clients.lnd.client import NodeIdentity, NodePayment
from engine.contracts.payment import AttemptReport, LightningAttempt, NodeVerdict
from engine.domain.errors import EngineError, Invalid, InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.ids import NodeName, PaymentId
from tests.helpers.sending import ATTEMPT, IN_FLIGHT, PAID, FakeBank, FakeLnd, fake_bank, sending_with

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> FakeBank:
    return fake_bank(monkeypatch)


def _direct_send(lnd: FakeLnd, *, most: int = 4) -> DirectSend:
    return DirectSend({ATTEMPT.node: sending_with(lnd)}, most=most)


async def _send(sender: DirectSend, attempt: LightningAttempt = ATTEMPT, *, age_s: float = 0) -> AttemptReport | None:
    async def opening() -> AttemptReport | None:
        with sender.place() as may_wait:
            return await sender.send(attempt, opening_since=time.monotonic() - age_s) if may_wait else None

    return cast("AttemptReport | None", await ActivityEnvironment().run(opening))


async def test_a_payment_opened_a_moment_ago_is_sent_without_a_look() -> None:
    lnd = FakeLnd(known=None, says=[IN_FLIGHT, PAID])
    report = await _send(_direct_send(lnd))
    assert report is not None
    assert (report.verdict, lnd.order) == (NodeVerdict.SUCCEEDED, ["send"])


async def test_a_payment_that_another_worker_may_have_is_left_to_the_nodes_queue() -> None:
    lnd = FakeLnd(known=None, says=[PAID])
    assert (await _send(_direct_send(lnd), age_s=2.1), lnd.order) == (None, [])


@pytest.mark.parametrize(
    "error", [Unavailable("connection reset"), OutcomeUnknown("deadline exceeded"), InvariantBroken("not ours")]
)
async def test_a_failed_direct_send_is_left_to_the_nodes_queue(error: EngineError) -> None:
    assert await _send(_direct_send(FakeLnd(known=None, says=[error]))) is None


async def test_the_fence_stands_before_this_send_as_before_every_one(kept: FakeBank) -> None:
    kept.pubkey = None
    lnd = FakeLnd(known=None, says=[PAID])
    assert (await _send(_direct_send(lnd)), lnd.sent) == (None, 0)


async def test_a_node_of_another_process_is_left_to_it() -> None:
    lnd = FakeLnd(known=None, says=[PAID])
    assert await _send(_direct_send(lnd), replace(ATTEMPT, node=NodeName("lnd-9"))) is None
    assert (await _send(NO_NODES), lnd.order) == (None, [])


@dataclass
class SlowLnd(FakeLnd):
    """Has the payment, and says no more."""

    async def _updates(self) -> AsyncGenerator[NodePayment, None]:
        yield IN_FLIGHT
        await asyncio.Event().wait()


@dataclass
class SilentLnd(FakeLnd):
    """Does not answer at all."""

    async def get_identity(self) -> NodeIdentity:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_slow_send_is_handed_on_as_begun_and_the_next_ones_do_not_wait(
    monkeypatch: pytest.MonkeyPatch, kept: FakeBank
) -> None:
    monkeypatch.setattr(direct_send, "_FOLLOW_S", 0.2)
    lnd = SlowLnd(known=None, says=[])
    sender = _direct_send(lnd, most=2)
    attempts = [replace(ATTEMPT, payment_id=PaymentId(f"pay_{number}")) for number in range(3)]
    reports = await asyncio.gather(*(_send(sender, each) for each in attempts))
    assert [report and report.verdict for report in reports] == [NodeVerdict.IN_FLIGHT, NodeVerdict.IN_FLIGHT, None]
    assert (lnd.sent, kept.begun) == (2, {"pay_0", "pay_1"})
    assert await _send(sender, attempts[2]) is not None


async def test_a_node_that_was_slow_to_say_who_it_is_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile another worker may have told it."""
    monkeypatch.setattr(direct_send, "_NEW_S", 0.05)

    @dataclass
    class Sluggish(FakeLnd):
        async def get_identity(self) -> NodeIdentity:
            await asyncio.sleep(0.1)
            return await FakeLnd.get_identity(self)

    lnd = Sluggish(known=None, says=[PAID])
    assert (await _send(_direct_send(lnd)), lnd.sent) == (None, 0)


async def test_a_silent_node_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_send, "_ALL_S", 0.1)
    assert await _send(_direct_send(SilentLnd(known=None, says=[]))) is None


# Read before the hold


async def _read(sender: DirectSend, node: NodeName = ATTEMPT.node) -> None:
    await ActivityEnvironment().run(sender.require_readable, node, ATTEMPT.bolt11, ATTEMPT.payment_hash, None)


async def test_an_unreadable_invoice_is_refused() -> None:
    refused = Invalid("it cannot", code="invoice_refused_by_node")
    with pytest.raises(Invalid, match="it cannot"):
        await _read(_direct_send(FakeLnd(known=None, says=[], reads=refused)))


@dataclass
class Unread(FakeLnd):
    """Counts how often it was asked to read; does not answer."""

    asked: int = 0

    async def check_invoice(self, *_invoice: object) -> None:
        self.asked += 1
        await asyncio.Event().wait()


async def test_a_silent_node_keeps_nobody_waiting_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it could not read now it reads before the send."""
    monkeypatch.setattr(direct_send, "_READ_S", 0.05)
    lnd = Unread(known=None, says=[])
    sender = _direct_send(lnd)
    for _ in range(3):
        await _read(sender)
    assert lnd.asked == 1
    monkeypatch.setattr(direct_send, "_SILENT_S", 0)
    sender = _direct_send(lnd)
    for _ in range(2):
        await _read(sender)
    assert lnd.asked == 3


@pytest.mark.parametrize("error", [Unavailable("no answer"), InvariantBroken("no macaroon", code="node_refuses")])
async def test_a_node_that_does_not_read_refuses_nothing(error: EngineError) -> None:
    await _read(_direct_send(FakeLnd(known=None, says=[], reads=error)))
    await _read(NO_NODES)
    await _read(_direct_send(FakeLnd(known=None, says=[], reads=error)), NodeName("lnd-9"))
