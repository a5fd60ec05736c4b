"""A node and a bank behind the interfaces of the real ones, for what a real node cannot be made to say on demand."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.sending.sending import Sending
from engine.bank import node_channel, sending
from engine.clients.lnd.client import LndNode, NodeIdentity, NodePayment, NodePaymentStatus
from engine.clients.lnd.htlc import NodeHtlcs
from engine.contracts.payment import AttemptReport, LightningAttempt
from engine.domain.channel import KnownChannel
from engine.domain.ids import NodeName, PaymentHash, PaymentId
from engine.domain.money import Msat
from engine.domain.sending import Waiting
from engine.ledger.database import Pool

PUBKEY = "02" + "ab" * 32
ATTEMPT = LightningAttempt(
    payment_id=PaymentId("pay_1"),
    node=NodeName("lnd-1"),
    bolt11="lnbcrt1…",
    payment_hash=PaymentHash("cd" * 32),
    amount_msat=Msat(100_000),
    amount_in_invoice=True,
    max_fee_msat=Msat(1_000),
    attempt=2,
    known_payment_index=7,
)


_JUST_NOW = datetime(2100, 1, 1, tzinfo=UTC)
"""However long a run of tests takes."""


def payment(status: NodePaymentStatus, index: int, reason: str = "FAILURE_REASON_NONE") -> NodePayment:
    return NodePayment(
        payment_hash=ATTEMPT.payment_hash,
        status=status,
        fee_msat=Msat(350),
        preimage="ef" * 32 if status is NodePaymentStatus.SUCCEEDED else None,
        failure_reason=reason,
        payment_index=index,
        created_at=_JUST_NOW,
    )


OLD_FAILURE = payment(NodePaymentStatus.FAILED, 7)
IN_FLIGHT = payment(NodePaymentStatus.IN_FLIGHT, 8)
PAID = payment(NodePaymentStatus.SUCCEEDED, 8)


EMPTY = NodeHtlcs(height=500, synced=True, outgoing=frozenset(), closing=0)


@dataclass
class FakeBank:
    """What the activity reads and writes in Postgres."""

    pubkey: str | None = PUBKEY
    heights: list[int] = field(default_factory=list)
    waits: list[Waiting] = field(default_factory=list)
    begun: set[PaymentId] = field(default_factory=set)
    refusals: int = 0
    refused_for_s: int = 0
    stalled_for: timedelta = timedelta(0)
    known: dict[str, KnownChannel] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeLnd:
    """Behind the interface of LndNode: says what it was given, and remembers whether it was told to send."""

    known: NodePayment | None
    says: list[NodePayment | Exception]
    pubkey: str = PUBKEY
    active_channels: int = 1
    synced: bool = True
    name: NodeName = ATTEMPT.node
    htlcs: NodeHtlcs = EMPTY
    ends: NodePayment | Exception | None = None
    """What comes of `end_untried`; None: nothing."""
    reads: Exception | None = None
    """What comes of reading the invoice; None: it reads it as we do."""
    closed: dict[str, bool] = field(default_factory=dict)
    sent: int = 0
    asked_who: int = 0
    order: list[str] = field(default_factory=list)

    async def find_payment(self, _payment_hash: PaymentHash) -> NodePayment | None:
        self.order.append("look")
        return self.known

    async def get_identity(self) -> NodeIdentity:
        self.asked_who += 1
        return NodeIdentity(pubkey=self.pubkey, active_channels=self.active_channels, synced=self.synced)

    async def read_htlcs(self) -> NodeHtlcs:
        self.order.append("channels")
        return self.htlcs

    async def read_closed(self) -> dict[str, bool]:
        self.order.append("closed")
        return self.closed

    async def check_invoice(self, _bolt11: str, _payment_hash: PaymentHash, _amount_msat: Msat | None) -> None:
        if self.reads is not None:
            raise self.reads

    async def end_untried(self, _payment_hash: PaymentHash, _amount_msat: Msat) -> None:
        self.order.append("end")
        if isinstance(self.ends, Exception):
            raise self.ends
        self.known = self.ends or self.known

    def send_payment(self, **_order: object) -> AsyncGenerator[NodePayment, None]:
        self.sent += 1
        self.order.append("send")
        return self._updates()

    def follow_payment(self, _payment_hash: PaymentHash) -> AsyncGenerator[NodePayment, None]:
        return self._updates()

    async def has_route_above(self, **_query: object) -> bool:
        return False

    async def _updates(self) -> AsyncGenerator[NodePayment, None]:
        for line in self.says:
            if isinstance(line, Exception):
                raise line
            yield line


class FakePool:
    """Gives connections that nobody reads."""

    async def acquire(self, **_limits: object) -> None:
        return None

    async def release(self, _conn: None) -> None:
        """Nothing to take back."""


def sending_with(lnd: FakeLnd) -> Sending:
    """The real activities, with the fakes behind them."""
    return Sending(cast("LndNode", lnd), cast("Pool", FakePool()))


async def send(lnd: FakeLnd, attempt: LightningAttempt = ATTEMPT) -> AttemptReport:
    report: AttemptReport = await ActivityEnvironment().run(sending_with(lnd).send_payment, attempt)
    return report


async def watch(lnd: FakeLnd, *, shown: str = "") -> Any:
    return await ActivityEnvironment().run(sending_with(lnd).watch_payment, replace(ATTEMPT, shown=shown))


def fake_bank(monkeypatch: pytest.MonkeyPatch) -> FakeBank:
    """The fence is open for the adopted node, until a test closes it."""
    state = FakeBank()

    async def find_fence(_conn: object, payment_id: PaymentId, **_which: object) -> sending.Fence | None:
        if state.pubkey is None:
            return None
        return sending.Fence(
            pubkey=state.pubkey,
            begun=payment_id in state.begun,
            refusals=state.refusals,
            refused_for_s=state.refused_for_s,
        )

    async def note_begun(_conn: object, payment_id: PaymentId) -> None:
        state.begun.add(payment_id)

    async def note_refusal(_conn: object, _payment_id: PaymentId, _words: str) -> None:
        state.refusals += 1

    async def note_wait(_conn: object, _payment_id: PaymentId, waiting: Waiting) -> datetime:
        state.waits.append(waiting)
        return datetime.now(UTC) - state.stalled_for

    async def add_sighting(_conn: object, _payment_id: PaymentId, *, height: int, **_seen: object) -> None:
        state.heights.append(height)

    async def list_sightings(_conn: object, _payment_id: PaymentId, **_which: object) -> list[int]:
        return state.heights

    for replaced in (find_fence, note_begun, note_refusal, note_wait, add_sighting, list_sightings):
        monkeypatch.setattr(sending, replaced.__name__, replaced)
    _fake_channels(state, monkeypatch)
    return state


def _fake_channels(state: FakeBank, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_known(_conn: object, _node: NodeName) -> dict[str, KnownChannel]:
        return dict(state.known)

    async def note_seen(
        _conn: object, _node: NodeName, *, updates: dict[str, int], doubts: dict[str, str], **_closed: object
    ) -> None:
        state.known |= {point: KnownChannel(updates=number) for point, number in updates.items()}
        state.doubts |= doubts

    async def find_doubt(_conn: object, _node: NodeName, _payment_id: PaymentId) -> str | None:
        return next(iter(state.doubts.values()), None)

    for replaced in (read_known, note_seen, find_doubt):
        monkeypatch.setattr(node_channel, replaced.__name__, replaced)
