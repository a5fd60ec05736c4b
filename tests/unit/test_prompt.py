"""When a payment is sent by the process that holds its money, and when it is left to the node's own queue."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities import prompt
from activities.prompt import Openings, PromptSending
from activities.sending import Sending
from engine.clients.lnd import LndNode, NodePayment
from engine.contracts.payment import AttemptReport, LightningAttempt, NodeVerdict
from engine.domain.errors import EngineError, InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.ids import NodeName, PaymentHash, PaymentId
from engine.ledger.database import Pool
from tests.unit.sending_helpers import ATTEMPT, IN_FLIGHT, OLD_FAILURE, PAID, FakeBank, FakeLnd, FakePool, fake_bank

pytestmark = pytest.mark.unit

NOW = 1000.0


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> FakeBank:
    return fake_bank(monkeypatch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [NOW]
    monkeypatch.setattr("activities.prompt.time.monotonic", lambda: now[0])
    return now


def _prompt(lnd: FakeLnd, openings: Openings | None = None, *, most: int = 4) -> PromptSending:
    nodes = {ATTEMPT.node: Sending(cast("LndNode", lnd), cast("Pool", FakePool()))}
    return PromptSending(nodes, openings or Openings(nodes), most=most)


async def _send(sending: PromptSending, attempt: LightningAttempt = ATTEMPT) -> AttemptReport | None:
    return cast("AttemptReport | None", await ActivityEnvironment().run(sending.send_at_once, attempt))


async def test_what_was_opened_a_moment_ago_is_sent_without_a_look_and_only_once(clock: list[float]) -> None:
    lnd, openings = FakeLnd(known=None, says=[IN_FLIGHT, PAID]), Openings([ATTEMPT.node])
    sending = _prompt(lnd, openings)
    openings.add(ATTEMPT.payment_id, clock[0] - 0.9)
    report = await _send(sending)
    assert report is not None
    assert report.verdict is NodeVerdict.SUCCEEDED
    assert lnd.order == ["send"]


@pytest.mark.parametrize("age_s", [None, 1.0, 60.0])
async def test_what_another_worker_may_have_taken_up_is_looked_for_first(
    clock: list[float], age_s: float | None
) -> None:
    lnd, openings = FakeLnd(known=PAID, says=[PAID]), Openings([ATTEMPT.node])
    if age_s is not None:
        openings.add(ATTEMPT.payment_id, clock[0] - age_s)
    await _send(_prompt(lnd, openings))
    assert lnd.order == ["look"]


async def test_a_second_try_looks(clock: list[float], kept: FakeBank) -> None:
    lnd, openings = FakeLnd(known=None, says=[OutcomeUnknown("deadline exceeded")]), Openings([ATTEMPT.node])
    sending = _prompt(lnd, openings)
    openings.add(ATTEMPT.payment_id, clock[0])
    assert await _send(sending) is None
    lnd.known, lnd.says = PAID, [PAID]
    assert await _send(sending) is not None
    assert lnd.order == ["send", "look"]
    assert not kept.begun


def test_openings_that_nobody_took_are_forgotten() -> None:
    openings = Openings([ATTEMPT.node])
    for second in range(100):
        openings.add(PaymentId(f"pay_{second}"), NOW + second)
    assert len(vars(openings)["_began"]) <= 2


@pytest.mark.parametrize(
    "error", [Unavailable("connection reset"), OutcomeUnknown("deadline exceeded"), InvariantBroken("not ours")]
)
async def test_what_goes_wrong_is_left_to_the_nodes_queue(error: EngineError) -> None:
    assert await _send(_prompt(FakeLnd(known=None, says=[error]))) is None


async def test_the_fence_and_the_older_attempt_count_as_for_every_send(kept: FakeBank) -> None:
    kept.pubkey = None
    lnd = FakeLnd(known=OLD_FAILURE, says=[PAID])
    assert (await _send(_prompt(lnd)), lnd.sent) == (None, 0)


async def test_a_node_of_another_process_is_left_to_it() -> None:
    lnd = FakeLnd(known=None, says=[PAID])
    assert await _send(_prompt(lnd), replace(ATTEMPT, node=NodeName("lnd-9"))) is None
    assert lnd.order == []
    assert not Openings([NodeName("lnd-9")]).can_send(ATTEMPT.node)


@dataclass
class SlowLnd(FakeLnd):
    """Has the payment, and says no more."""

    async def _updates(self) -> AsyncGenerator[NodePayment, None]:
        yield IN_FLIGHT
        await asyncio.Event().wait()


@dataclass
class SilentLnd(FakeLnd):
    """Does not answer at all."""

    async def find_payment(self, _payment_hash: PaymentHash) -> NodePayment | None:
        await asyncio.Event().wait()
        return None


async def test_what_takes_long_is_handed_on_as_begun_and_the_next_ones_do_not_wait(
    monkeypatch: pytest.MonkeyPatch, kept: FakeBank
) -> None:
    monkeypatch.setattr(prompt, "_FOLLOW_S", 0.2)
    lnd = SlowLnd(known=None, says=[])
    sending = _prompt(lnd, most=2)
    attempts = [replace(ATTEMPT, payment_id=PaymentId(f"pay_{number}")) for number in range(3)]
    reports = await asyncio.gather(*(_send(sending, each) for each in attempts))
    assert [report and report.verdict for report in reports] == [NodeVerdict.IN_FLIGHT, NodeVerdict.IN_FLIGHT, None]
    assert (lnd.sent, kept.begun) == (2, {"pay_0", "pay_1"})
    assert await _send(sending) is not None


async def test_a_silent_node_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "_ALL_S", 0.1)
    assert await _send(_prompt(SilentLnd(known=None, says=[]))) is None
