"""How an end is heard of: by the word of a worker, by Temporal where it does not come, and never too late."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest
from temporalio.client import Client, RPCError
from temporalio.service import RPCStatusCode

from activities.announcements import ended
from api.service.deadline import Deadline
from api.service.payment import payment_run
from engine.clients.announcements import Listener
from engine.contracts.lane import LaneOutcome, LaneRequest
from engine.contracts.payment import (
    OpenedPayment,
    PaymentOutcome,
    PaymentRequest,
    PaymentStatus,
    Refusal,
    ReleasePayment,
)
from engine.domain.errors import Unavailable
from engine.domain.ids import AccountId, PaymentId, WalletId
from engine.domain.money import Msat
from tests.helpers.sending import ATTEMPT

pytestmark = pytest.mark.unit

PENDING = PaymentOutcome(body_hash="00", status=PaymentStatus.PENDING)
SETTLED = PaymentOutcome(body_hash="00", status=PaymentStatus.SETTLED)
REFUSED = PaymentOutcome(body_hash="00", refusal=Refusal(code="insufficient_funds", detail="too little"))
CONFLICT = PaymentOutcome(body_hash="00", key_conflict=True)
LEFT_ALONE = PaymentOutcome(body_hash="00")


def asked(number: int) -> PaymentRequest:
    return PaymentRequest(
        payment_id=PaymentId(f"pay_{number}"),
        account_id=AccountId("acct_1"),
        wallet_id=WalletId("wal_1"),
        idempotency_key=str(number),
        body_hash="00",
        destination="@bob",
        amount_msat=Msat(1),
        max_fee_msat=Msat(0),
    )


class FakeTemporal:
    """Has started what it is told to start, and says how it ended when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.asked = 0
        self.id = "payment-1"
        self.error: Exception | None = None

    async def start_workflow(self, *_what: object, **_how: object) -> "FakeTemporal":
        if self.error is not None:
            raise self.error
        return self

    async def result(self) -> PaymentOutcome:
        self.asked += 1
        await self.let.wait()
        return SETTLED


@pytest.fixture
def listener() -> Listener:
    heard = Listener("redis://nowhere")
    heard.hears = True
    return heard


async def _start(temporal: FakeTemporal, listener: Listener) -> payment_run.Run:
    return await payment_run.start(cast("Client", temporal), listener, asked(1), payee="bob")


def _say(listener: Listener, word: bytes) -> None:
    cast("Any", listener)._hear(word)


def _expected(listener: Listener) -> dict[str, object]:
    return cast("dict[str, object]", vars(listener)["_expected"])


async def test_the_word_ends_the_wait_and_temporal_is_not_asked(listener: Listener) -> None:
    temporal = FakeTemporal()
    run = await _start(temporal, listener)
    _say(listener, b"pay_7 pay_1 pay_8")
    assert await payment_run.wait_for_end(run, Deadline(10)) is None
    await asyncio.wait({run.ended})
    assert (temporal.asked, _expected(listener)) == (0, {})


async def test_temporal_tells_the_end_when_nothing_is_announced(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payment_run, "_ANNOUNCED_S", 0.01)
    temporal = FakeTemporal()
    temporal.let.set()
    assert await payment_run.wait_for_end(await _start(temporal, listener), Deadline(10)) == SETTLED
    await asyncio.sleep(0)
    assert _expected(listener) == {}


async def test_a_process_that_hears_nothing_asks_temporal_at_once(listener: Listener) -> None:
    listener.hears = False
    temporal = FakeTemporal()
    temporal.let.set()
    assert await payment_run.wait_for_end(await _start(temporal, listener), Deadline(10)) == SETTLED


async def test_a_word_that_comes_late_still_ends_the_wait(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payment_run, "_ANNOUNCED_S", 0.01)
    temporal = FakeTemporal()
    run = await _start(temporal, listener)
    async with asyncio.timeout(5):
        while not temporal.asked:
            await asyncio.sleep(0)
    _say(listener, b"pay_1")
    assert await payment_run.wait_for_end(run, Deadline(10)) is None
    await asyncio.wait({run.ended})
    assert _expected(listener) == {}


async def test_a_caller_who_leaves_expects_nothing_any_more(listener: Listener) -> None:
    run = await _start(FakeTemporal(), listener)
    assert await payment_run.wait_for_end(run, Deadline(0)) is None
    await asyncio.wait({run.ended})
    assert _expected(listener) == {}


async def test_a_payment_that_could_not_be_started_is_not_waited_for(listener: Listener) -> None:
    temporal = FakeTemporal()
    temporal.error = RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
    with pytest.raises(Unavailable):
        await _start(temporal, listener)
    await asyncio.sleep(0)
    assert _expected(listener) == {}


async def test_each_of_a_lane_hears_its_own_word(listener: Listener) -> None:
    temporal = cast("Client", FakeTemporal())
    runs = await payment_run.start_lane(temporal, listener, [asked(1), asked(2)], over_lightning=True)
    _say(listener, b"pay_2")
    assert await payment_run.wait_for_end(runs[1], Deadline(10)) is None
    assert not runs[0].ended.done()
    _say(listener, b"pay_1")
    assert await payment_run.wait_for_end(runs[0], Deadline(10)) is None
    assert await runs[0].ended is None


@pytest.mark.parametrize(("outcome", "is_end"), [(PENDING, 0), (SETTLED, 1), (REFUSED, 1), (CONFLICT, 1)])
def test_an_opening_is_an_end_unless_it_holds_the_money(outcome: PaymentOutcome, is_end: int) -> None:
    opened = OpenedPayment(outcome=outcome, attempt=None if is_end else ATTEMPT)
    assert ended(asked(1), opened) == ["pay_1"] * is_end


def test_other_ends_are_told_of_those_that_they_are_about() -> None:
    released = ReleasePayment(
        payment_id=PaymentId("pay_1"), failure_code="no_route", failure_detail="", payment_index=1, body_hash="00"
    )
    assert ended(released, PaymentOutcome(body_hash="00", status=PaymentStatus.FAILED)) == ["pay_1"]
    lane = LaneRequest(items=[asked(number) for number in range(4)])
    ends = LaneOutcome(outcomes=[SETTLED, LEFT_ALONE, REFUSED, CONFLICT])
    assert ended(lane, ends) == ["pay_0", "pay_2", "pay_3"]
    assert ended(replace(lane, over_lightning=True), ends) == []
    assert ended("something else", SETTLED) == []
