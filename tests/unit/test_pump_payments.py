"""The pump of outgoing payments: who is woken by a final update, and who knows already."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities import pump as pumps
from activities.pump import Pump
from engine.clients.lnd import LndNode, NodeIdentity, NodePayment, NodePaymentStatus
from engine.contracts.pump import PumpInput
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat
from engine.ledger import node, payment, sending
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
    asked: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FakeLnd:
    """Tells of the payment's end, and breaks its stream when the books have been asked about it."""

    bank: FakeBank
    name: NodeName = NODE

    async def get_identity(self) -> NodeIdentity:
        return NodeIdentity(pubkey=PUBKEY, active_channels=1)

    async def follow_payments(self) -> AsyncGenerator[NodePayment, None]:
        yield PAID
        await self.bank.asked.wait()


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


async def _woken(monkeypatch: pytest.MonkeyPatch, bank: FakeBank) -> list[str]:
    async def has_wait(*_: object) -> bool:
        return bank.watched

    async def find_waiting_workflow(*_: object) -> str | None:
        bank.asked.set()
        return bank.waiting

    async def find_live_status(*_: object) -> str:
        return "settled"

    async def list_in_flight(*_: object) -> list[str]:
        return []

    async def find_pubkey(*_: object) -> str:
        return PUBKEY

    monkeypatch.setattr(sending, "has_wait", has_wait)
    for replacement in (find_waiting_workflow, find_live_status, list_in_flight):
        monkeypatch.setattr(payment, replacement.__name__, replacement)
    monkeypatch.setattr(node, "find_pubkey", find_pubkey)
    client = FakeClient()
    pump = Pump(cast("LndNode", FakeLnd(bank)), cast("Pool", FakePool()), cast("Client", client), together=1)
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
