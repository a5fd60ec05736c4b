"""Who travels alone and who in company: the lanes of one API process, with made-up starts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from api.service.deadline import Deadline
from api.service.payment import payment_run
from api.service.payment.lane import Lanes
from api.service.payment.payment_run import Run
from engine.contracts.converter import DATA_CONVERTER
from engine.contracts.lane import MAX_ITEMS, LaneRequest
from engine.contracts.payment import PaymentOutcome, PaymentRequest
from engine.domain.errors import Unavailable
from engine.domain.ids import AccountId, PaymentId, WalletId
from engine.domain.money import Msat
from tests.helpers.event_loop import turn

pytestmark = pytest.mark.unit


def asked(number: int, *, key: str | None = None, memo: str | None = None) -> PaymentRequest:
    return PaymentRequest(
        payment_id=PaymentId(f"pay_{number}"),
        account_id=AccountId("acct_1"),
        wallet_id=WalletId("wal_1"),
        idempotency_key=key or str(number),
        body_hash="00",
        destination="@bob",
        amount_msat=Msat(1),
        max_fee_msat=Msat(0),
        memo=memo,
    )


@dataclass
class MadeUpTemporal:
    """Takes starts, and lets each end when told."""

    started: list[list[str]] = field(default_factory=list)
    ends: list[asyncio.Event] = field(default_factory=list)
    away: bool = False

    async def start(self, client: Any, listener: Any, each: PaymentRequest, *, payee: str) -> Run:
        return replace((await self.start_lane(client, listener, [each]))[0], place=None)

    async def start_lane(
        self, _client: Any, _listener: Any, items: Sequence[PaymentRequest], **_kind: bool
    ) -> list[Run]:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("Temporal is away")
        self.started.append([each.payment_id for each in items])
        self.ends.append(end := asyncio.Event())
        ended = asyncio.create_task(self._end(end))
        return [Run(workflow_id=f"w{len(self.started)}", ended=ended, place=place) for place in range(len(items))]

    async def _end(self, end: asyncio.Event) -> Sequence[PaymentOutcome] | None:
        await end.wait()
        return None


@pytest.fixture
def temporal(monkeypatch: pytest.MonkeyPatch) -> MadeUpTemporal:
    made_up = MadeUpTemporal()
    monkeypatch.setattr(payment_run, "start", made_up.start)
    monkeypatch.setattr(payment_run, "start_lane", made_up.start_lane)
    return made_up


def ride(lanes: Lanes, *items: PaymentRequest) -> list["asyncio.Task[Run]"]:
    return [asyncio.create_task(lanes.start(each, payee="bob")) for each in items]


async def test_a_lone_payment_goes_at_once_and_those_that_come_meanwhile_go_together(temporal: MadeUpTemporal) -> None:
    lanes = Lanes(cast("Any", None), cast("Any", None), width=1, patience_s=1)
    first = ride(lanes, asked(1))
    await turn()
    others = ride(lanes, asked(2), asked(3), asked(4))
    await turn()
    assert temporal.started == [["pay_1"]]
    assert first[0].done()
    temporal.ends[0].set()
    await turn()
    assert temporal.started == [["pay_1"], ["pay_2", "pay_3", "pay_4"]]
    assert [(await each).place for each in others] == [0, 1, 2]


async def test_width_is_how_many_go_side_by_side(temporal: MadeUpTemporal) -> None:
    lanes = Lanes(cast("Any", None), cast("Any", None), width=2, patience_s=1)
    ride(lanes, asked(1), asked(2), asked(3))
    await turn()
    assert temporal.started == [["pay_1"], ["pay_2"]]
    temporal.ends[1].set()
    await turn()
    assert temporal.started[2:] == [["pay_3"]]


async def test_one_that_takes_long_holds_nobody_up(temporal: MadeUpTemporal) -> None:
    lanes = Lanes(cast("Any", None), cast("Any", None), width=1, patience_s=0.01)
    riders = ride(lanes, asked(1), asked(2))
    async with asyncio.timeout(5):
        await asyncio.gather(*riders)
    assert temporal.started == [["pay_1"], ["pay_2"]]


async def test_the_same_key_twice_never_shares_a_lane(temporal: MadeUpTemporal) -> None:
    lanes = Lanes(cast("Any", None), cast("Any", None), width=1, patience_s=1)
    ride(lanes, asked(1))
    await turn()
    ride(lanes, asked(2, key="same"), asked(3, key="same"), asked(4))
    temporal.ends[0].set()
    await turn()
    temporal.ends[1].set()
    await turn()
    assert temporal.started[1:] == [["pay_2", "pay_4"], ["pay_3"]]


async def test_a_lane_takes_only_so_many_and_only_so_much_text(temporal: MadeUpTemporal) -> None:
    lanes = Lanes(cast("Any", None), cast("Any", None), width=1, patience_s=1)
    ride(lanes, asked(0))
    await turn()
    ride(lanes, *(asked(number) for number in range(1, MAX_ITEMS + 2)))
    temporal.ends[0].set()
    await turn()
    assert [len(each) for each in temporal.started] == [1, MAX_ITEMS]
    ride(lanes, *(asked(1000 + number, memo="x" * 100_000) for number in range(8)))
    temporal.ends[1].set()
    await turn()
    assert 2 <= len(temporal.started[2]) < 8


async def test_when_temporal_is_away_all_of_a_lane_are_told_and_the_next_is_tried(temporal: MadeUpTemporal) -> None:
    lanes = Lanes(cast("Any", None), cast("Any", None), width=1, patience_s=1)
    temporal.away = True
    riders = ride(lanes, asked(1), asked(2), asked(3))
    told = await asyncio.gather(*riders, return_exceptions=True)
    assert [type(each) for each in told] == [Unavailable] * 3
    temporal.away = False
    assert (await lanes.start(asked(4), payee="bob")).place == 0


async def test_a_caller_that_leaves_while_it_waits_disturbs_nobody(temporal: MadeUpTemporal) -> None:
    lanes = Lanes(cast("Any", None), cast("Any", None), width=1, patience_s=1)
    ride(lanes, asked(1))
    await turn()
    leaving, staying = ride(lanes, asked(2), asked(3))
    await turn()
    leaving.cancel()
    temporal.ends[0].set()
    await turn()
    assert (await staying).workflow_id == "w2"


async def test_a_caller_that_does_not_wait_for_the_end_leaves_its_payment_on_its_way(temporal: MadeUpTemporal) -> None:
    lanes = Lanes(cast("Any", None), cast("Any", None), width=1, patience_s=1)
    (first,) = ride(lanes, asked(1))
    assert await payment_run.wait_for_end(await first, Deadline(0)) is None
    ride(lanes, asked(2), asked(3))
    await turn()
    assert temporal.started == [["pay_1"]]
    temporal.ends[0].set()
    await turn()
    assert temporal.started == [["pay_1"], ["pay_2", "pay_3"]]


async def test_an_unforeseen_error_is_told_to_all_of_a_lane(
    temporal: MadeUpTemporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: object, **_named: object) -> Run:
        raise ZeroDivisionError

    monkeypatch.setattr(payment_run, "start", fail)
    lanes = Lanes(cast("Any", None), cast("Any", None), width=1, patience_s=1)
    async with asyncio.timeout(5):
        with pytest.raises(ZeroDivisionError):
            await lanes.start(asked(1), payee="bob")
    monkeypatch.setattr(payment_run, "start", temporal.start)
    assert (await lanes.start(asked(2), payee="bob")).workflow_id == "w1"


async def test_width_zero_is_off(temporal: MadeUpTemporal) -> None:
    lanes = Lanes(cast("Any", None), cast("Any", None), width=0, patience_s=1)
    ride(lanes, *(asked(number) for number in range(5)))
    await turn()
    assert [len(each) for each in temporal.started] == [1] * 5


async def test_a_lane_is_as_long_as_temporal_takes_whatever_of_its_requests_is_long(
    temporal: MadeUpTemporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every text of a request fills it, those of a payee outside as well."""
    lanes_bytes: list[int] = []
    start_lane = temporal.start_lane

    async def weigh(client: Any, listener: Any, items: Sequence[PaymentRequest], **kind: bool) -> list[Run]:
        (payload,) = await DATA_CONVERTER.encode([LaneRequest(items=list(items))])
        lanes_bytes.append(len(payload.data))
        return await start_lane(client, listener, items, **kind)

    monkeypatch.setattr(payment_run, "start_lane", weigh)
    long: dict[str, Any] = {
        "destination": "d" * 2_000,
        "bolt11": "l" * 7_000,
        "memo": "é" * 500,
        "external_id": "x" * 255,
        "idempotency_key": "k" * 250,
        "success_action": {"tag": "aes", "ciphertext": "c" * 4_096, "iv": "i" * 24, "description": '"' * 144},
    }
    lanes = Lanes(cast("Any", None), cast("Any", None), width=1, patience_s=60)
    for name, value in long.items():
        ride(lanes, asked(0))
        await turn()
        key = "" if name != "idempotency_key" else long["idempotency_key"]
        others = [
            replace(asked(number), **{name: value, "idempotency_key": f"{key}{number}"})
            for number in range(1, MAX_ITEMS + 1)
        ]
        riders = ride(lanes, *others)
        while not all(rider.done() for rider in riders):
            await turn()
            for end in temporal.ends:
                end.set()
        for end in temporal.ends:
            end.set()
        await turn()
        assert max(lanes_bytes) < 510_000, name
