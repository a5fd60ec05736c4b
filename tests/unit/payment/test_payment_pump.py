"""The pump of outgoing payments: who is woken by a final update, and who knows already."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import cast

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities import pump as pumps
from activities.pump import Pump
from engine.bank import payment, sending
from engine.bank.node import node
from engine.clients.lnd.client import LndNode, NodeIdentity, NodePayment, NodePaymentStatus
from engine.contracts.pump import PumpInput
from engine.domain.errors import EngineError, InvariantBroken
from engine.domain.ids import NodeName, PaymentHash, PaymentId
from engine.domain.money import Msat
from engine.ledger.database import Pool

pytestmark = pytest.mark.unit

NODE, PUBKEY, HASH = NodeName("lnd-1"), "02" + "ab" * 32, PaymentHash("cd" * 32)
PAID = NodePayment(
    payment_hash=HASH,
    status=NodePaymentStatus.SUCCEEDED,
    fee_msat=Msat(1),
    preimage="ef" * 32,
    failure_reason="FAILURE_REASON_NONE",
    payment_index=1,
    created_at=datetime(2026, 11, 21, tzinfo=UTC),
)


@dataclass
class FakeBank:
    """What the books say of the one payment. `asked` is set when they were asked who waits for it."""

    watched: bool
    waiting: str | None
    in_flight: list[node.InFlight] = field(default_factory=list)
    walked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all that wait have been gone through."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FakeLnd:
    """Tells of the payment's end, and breaks its stream when the books have been asked about it."""

    bank: FakeBank
    name: NodeName = NODE
    knows: dict[PaymentHash, NodePayment | EngineError] = field(default_factory=dict)
    looks: int = 0

    async def find_payment(self, payment_hash: PaymentHash) -> NodePayment | None:
        self.looks += 1
        known = self.knows.get(payment_hash)
        if isinstance(known, EngineError):
            raise known
        return known

    async def get_identity(self) -> NodeIdentity:
        return NodeIdentity(pubkey=PUBKEY, active_channels=1)

    async def follow_payments(self) -> AsyncGenerator[NodePayment, None]:
        self.bank.walked.clear()
        yield PAID
        await self.bank.asked.wait()
        await self.bank.walked.wait()


@dataclass
class FakeClient:
    """Remembers who was woken."""

    woken: list[str] = field(default_factory=list)

    def get_workflow_handle(self, workflow_id: str) -> "FakeClient":
        self.woken.append(workflow_id)
        return self

    async def signal(self, _name: str) -> None:
        """Accepted."""


class FakePool:
    """Gives connections that nobody reads."""

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        yield None


async def _woken(
    monkeypatch: pytest.MonkeyPatch, bank: FakeBank, lnd: FakeLnd | None = None, *, connects: int = 1
) -> list[str]:
    async def has_wait(*_: object) -> bool:
        return bank.watched

    async def find_waiting_workflow(*_: object) -> str | None:
        bank.asked.set()
        return bank.waiting

    async def find_live_status(*_: object) -> str:
        return "settled"

    async def list_in_flight(*_: object, after: str, limit: int) -> list[node.InFlight]:
        page = [each for each in bank.in_flight if each.id > after][:limit]
        if not page:
            bank.walked.set()
        return page

    async def find_pubkey(*_: object) -> str:
        return PUBKEY

    monkeypatch.setattr(sending, "has_wait", has_wait)
    for replacement in (find_waiting_workflow, find_live_status):
        monkeypatch.setattr(payment, replacement.__name__, replacement)
    monkeypatch.setattr(node, "list_in_flight", list_in_flight)
    monkeypatch.setattr(node, "find_pubkey", find_pubkey)
    client = FakeClient()
    answering = cast("LndNode", lnd or FakeLnd(bank))
    pump = Pump(answering, cast("Pool", FakePool()), cast("Client", client), together=1)
    for _ in range(connects):
        with suppress(BaseExceptionGroup):  # the stream's end
            await ActivityEnvironment().run(pump.pump_payments, PumpInput(node=NODE))
    return client.woken


async def test_a_payment_that_is_watched_is_woken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumps, "_SEND_TELLS_S", 3600)
    assert await _woken(monkeypatch, FakeBank(watched=True, waiting="pay-1")) == ["pay-1"]


async def test_a_payment_whose_send_has_told_its_end_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumps, "_SEND_TELLS_S", 0)
    assert await _woken(monkeypatch, FakeBank(watched=False, waiting=None)) == []


async def test_a_payment_whose_send_has_told_nothing_is_woken_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumps, "_SEND_TELLS_S", 0)
    assert await _woken(monkeypatch, FakeBank(watched=False, waiting="pay-1")) == ["pay-1"]


def _waiting(number: int, reason: str | None = None, known_payment_index: int = 0) -> node.InFlight:
    return node.InFlight(
        id=PaymentId(f"pay_{number:03}"),
        payment_hash=PaymentHash(f"{number:064x}"),
        workflow_id=f"payment-{number}",
        known_payment_index=known_payment_index,
        reason=reason,
    )


ON_ITS_WAY = replace(PAID, status=NodePaymentStatus.IN_FLIGHT)


async def test_after_a_reconnect_only_those_with_news_are_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wake adds ten events to a history that Temporal ends at some 50,000; a node may flap for months."""
    monkeypatch.setattr(pumps, "_SEND_TELLS_S", 3600)
    waiting = [
        _waiting(1, "in_flight"),  # still on its way
        _waiting(2, "in_flight"),  # ended while nobody listened
        _waiting(3),  # its send has not reached the node
        _waiting(4, "in_flight", known_payment_index=1),  # only an older attempt has ended
        _waiting(5, "node_forgot"),  # unknown as before
        _waiting(6, "node_forgot"),  # the node has its data back
        _waiting(7, "node_refuses"),  # an operator has mended our access
        _waiting(8, "overdue"),  # an operator must decide; nothing new
        _waiting(9, "in_flight"),  # the node says nothing about this one
    ]
    bank = FakeBank(watched=False, waiting=None, in_flight=waiting)
    bank.asked.set()
    says: dict[int, NodePayment | EngineError] = {1: ON_ITS_WAY, 2: PAID, 4: PAID, 6: ON_ITS_WAY, 8: ON_ITS_WAY}
    says[9] = InvariantBroken("no such bucket")
    lnd = FakeLnd(bank, knows={PaymentHash(f"{number:064x}"): said for number, said in says.items()})
    assert await _woken(monkeypatch, bank, lnd, connects=20) == ["payment-2", "payment-6", "payment-7"]


async def test_many_that_wait_are_looked_at_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumps, "_SEND_TELLS_S", 3600)
    monkeypatch.setattr(pumps, "_PAGE", 7)
    waiting = [_waiting(number, "in_flight") for number in range(50)]
    bank = FakeBank(watched=False, waiting=None, in_flight=waiting)
    bank.asked.set()
    lnd = FakeLnd(bank, knows={waiting[49].payment_hash: PAID})
    assert await _woken(monkeypatch, bank, lnd) == ["payment-49"]
    assert lnd.looks == 50
