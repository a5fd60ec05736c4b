"""Reading a node's word about an attempt, with a fake node for what a real one cannot be made to say on demand."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import sending as sends
from activities.sending import Sending
from engine.clients.lnd import LndNode, NodeIdentity, NodePayment, NodePaymentStatus, SendRefused
from engine.clients.lnd_htlcs import NodeHtlcs
from engine.contracts.payment import AttemptReport, LightningAttempt, NodeVerdict
from engine.domain.errors import InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.ids import NodeName, PaymentHash, PaymentId
from engine.domain.money import Msat
from engine.domain.sending import Waiting
from engine.ledger import payment as payments
from engine.ledger import sending
from engine.ledger.database import Pool

pytestmark = pytest.mark.unit

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


def _payment(status: NodePaymentStatus, index: int, reason: str = "FAILURE_REASON_NONE") -> NodePayment:
    return NodePayment(
        payment_hash=ATTEMPT.payment_hash,
        status=status,
        fee_msat=Msat(350),
        preimage="ef" * 32 if status is NodePaymentStatus.SUCCEEDED else None,
        failure_reason=reason,
        payment_index=index,
    )


OLD_FAILURE = _payment(NodePaymentStatus.FAILED, 7)
IN_FLIGHT = _payment(NodePaymentStatus.IN_FLIGHT, 8)
PAID = _payment(NodePaymentStatus.SUCCEEDED, 8)


EMPTY = NodeHtlcs(height=500, synced=True, outgoing=frozenset(), closing=0)


@dataclass
class FakeBank:
    """What the activity reads and writes in Postgres."""

    pubkey: str | None = PUBKEY
    heights: list[int] = field(default_factory=list)
    waits: list[Waiting] = field(default_factory=list)


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

    @asynccontextmanager
    async def acquire(self, **_limits: object) -> AsyncIterator[None]:
        yield None


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> FakeBank:
    """The fence is open for the adopted node, until a test closes it."""
    state = FakeBank()

    async def find_fence(_conn: object, **_which: object) -> str | None:
        return state.pubkey

    async def note_wait(_conn: object, _payment_id: PaymentId, waiting: Waiting) -> None:
        state.waits.append(waiting)

    async def add_sighting(_conn: object, _payment_id: PaymentId, *, height: int, **_seen: object) -> None:
        state.heights.append(height)

    async def list_sightings(_conn: object, _payment_id: PaymentId, **_which: object) -> list[int]:
        return state.heights

    monkeypatch.setattr(payments, "find_fence", find_fence)
    for replaced in (note_wait, add_sighting, list_sightings):
        monkeypatch.setattr(sending, replaced.__name__, replaced)
    return state


async def _send(lnd: FakeLnd) -> AttemptReport:
    activity = Sending(cast("LndNode", lnd), cast("Pool", FakePool()))
    return cast("AttemptReport", await ActivityEnvironment().run(activity.send_payment, ATTEMPT))


async def _next_try(lnd: FakeLnd, noted: list[Any]) -> AttemptReport:
    """A try that is told what an earlier one has noted with its heartbeats."""
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_details=noted)
    activity = Sending(cast("LndNode", lnd), cast("Pool", FakePool()))
    return cast("AttemptReport", await environment.run(activity.send_payment, ATTEMPT))


async def _watch(lnd: FakeLnd, *, shown: str = "") -> Any:
    return await ActivityEnvironment().run(
        Sending(cast("LndNode", lnd), cast("Pool", FakePool())).watch_payment, replace(ATTEMPT, shown=shown)
    )


async def test_it_looks_before_it_sends() -> None:
    lnd = FakeLnd(known=None, says=[IN_FLIGHT, PAID])
    report = await _send(lnd)
    assert (report.verdict, report.fee_msat, report.payment_index) == (NodeVerdict.SUCCEEDED, 350, 8)
    assert lnd.order == ["look", "send"]


async def test_what_the_node_has_already_is_followed_and_not_sent_again() -> None:
    lnd = FakeLnd(known=IN_FLIGHT, says=[PAID])
    assert (await _send(lnd)).verdict is NodeVerdict.SUCCEEDED
    assert lnd.sent == 0


async def test_the_failure_of_an_older_attempt_is_no_news() -> None:
    lnd = FakeLnd(known=OLD_FAILURE, says=[OLD_FAILURE, IN_FLIGHT, PAID])
    assert (await _send(lnd)).verdict is NodeVerdict.SUCCEEDED
    assert lnd.sent == 1


async def test_a_stream_that_ends_early_means_in_flight() -> None:
    assert (await _send(FakeLnd(known=None, says=[IN_FLIGHT]))).verdict is NodeVerdict.IN_FLIGHT


async def test_a_stream_that_never_confirmed_the_payment_is_an_unknown_outcome() -> None:
    with pytest.raises(OutcomeUnknown):
        await _send(FakeLnd(known=OLD_FAILURE, says=[OLD_FAILURE]))


@pytest.mark.parametrize("error", [Unavailable("connection reset"), OutcomeUnknown("deadline exceeded")])
async def test_a_broken_stream_is_never_a_failure(error: Exception) -> None:
    """Before the node's first word the next try looks; after it the payment is watched."""
    with pytest.raises(type(error)):
        await _send(FakeLnd(known=None, says=[error]))
    assert (await _send(FakeLnd(known=None, says=[IN_FLIGHT, error]))).verdict is NodeVerdict.IN_FLIGHT


async def test_what_the_node_refused_to_begin_has_failed() -> None:
    report = await _send(FakeLnd(known=None, says=[SendRefused("invoice_expired", "invoice expired")]))
    assert (report.verdict, report.failure_code) == (NodeVerdict.FAILED, "invoice_expired")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("FAILURE_REASON_TIMEOUT", "payment_timeout"),
        ("FAILURE_REASON_NO_ROUTE", "no_route"),
        ("FAILURE_REASON_INCORRECT_PAYMENT_DETAILS", "incorrect_payment_details"),
        ("FAILURE_REASON_INSUFFICIENT_BALANCE", "insufficient_liquidity"),
        ("FAILURE_REASON_CANCELED", "cancelled"),
        ("a reason of a later LND", "no_route"),
    ],
)
async def test_every_reason_has_a_stable_code(reason: str, code: str) -> None:
    report = await _send(FakeLnd(known=None, says=[_payment(NodePaymentStatus.FAILED, 8, reason)]))
    assert (report.verdict, report.failure_code) == (NodeVerdict.FAILED, code)


async def test_a_closed_fence_lets_nothing_through(kept: FakeBank) -> None:
    """A zombie wakes after the payment was released: its money is no longer held."""
    kept.pubkey = None
    lnd = FakeLnd(known=None, says=[PAID])
    with pytest.raises(InvariantBroken):
        await _send(lnd)
    assert lnd.sent == 0


async def test_another_node_at_the_same_address_gets_nothing() -> None:
    lnd = FakeLnd(known=None, says=[PAID], pubkey="03" + "cd" * 32)
    with pytest.raises(InvariantBroken, match="not the node that was adopted"):
        await _send(lnd)
    assert lnd.sent == 0


async def test_a_node_that_has_just_been_started_is_waited_for() -> None:
    lnd = FakeLnd(known=None, says=[PAID], active_channels=0)
    with pytest.raises(Unavailable, match="no active channel"):
        await _send(lnd)
    assert lnd.sent == 0


async def test_all_that_send_at_the_same_time_ask_once_who_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sends, "_IDENTITY_S", 3600)
    lnd = FakeLnd(known=None, says=[PAID])
    sending = Sending(cast("LndNode", lnd), cast("Pool", FakePool()))
    for _ in range(3):
        await ActivityEnvironment().run(sending.send_payment, ATTEMPT)
    assert (lnd.sent, lnd.asked_who) == (3, 1)


async def test_a_node_that_could_not_send_is_asked_again_at_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sends, "_IDENTITY_S", 3600)
    lnd = FakeLnd(known=None, says=[PAID], synced=False)
    sending = Sending(cast("LndNode", lnd), cast("Pool", FakePool()))
    with pytest.raises(Unavailable, match="behind the chain"):
        await ActivityEnvironment().run(sending.send_payment, ATTEMPT)
    lnd.synced = True
    await ActivityEnvironment().run(sending.send_payment, ATTEMPT)
    assert (lnd.sent, lnd.asked_who) == (1, 2)


async def test_a_node_behind_the_chain_is_waited_for(kept: FakeBank) -> None:
    lnd = FakeLnd(known=None, says=[PAID], synced=False)
    with pytest.raises(Unavailable, match="behind the chain"):
        await _send(lnd)
    assert lnd.sent == 0
    assert [(wait.reason, wait.needs_operator) for wait in kept.waits] == [("node_unavailable", False)]


@pytest.mark.parametrize("known", [None, OLD_FAILURE])
async def test_a_node_that_forgot_what_it_was_sending_calls_an_operator(known: NodePayment | None) -> None:
    with pytest.raises(InvariantBroken, match="replaced"):
        await _watch(FakeLnd(known=known, says=[]))


async def test_a_look_at_what_is_in_flight_says_when_to_look_again() -> None:
    with pytest.raises(Exception, match="still in flight") as raised:
        await _watch(FakeLnd(known=IN_FLIGHT, says=[]))
    assert cast("Any", raised.value).next_retry_delay.total_seconds() == 5


LOST = replace(IN_FLIGHT, time_lock=400)


async def test_a_lost_attempt_is_released_when_the_proof_is_complete(kept: FakeBank) -> None:
    kept.heights = [401, 405]
    lnd = FakeLnd(known=LOST, says=[], htlcs=replace(EMPTY, height=412))
    report = await _watch(lnd)
    assert (report.verdict, report.failure_code, report.payment_index) == (NodeVerdict.FAILED, "lost_attempt", 8)
    assert "401, 405, 412" in report.failure_detail
    assert lnd.order == ["channels", "look"]


@pytest.mark.parametrize(
    ("payment", "htlcs"),
    [
        (LOST, replace(EMPTY, height=411)),
        (LOST, replace(EMPTY, outgoing=frozenset({ATTEMPT.payment_hash}))),
        (LOST, replace(EMPTY, closing=1)),
        (LOST, replace(EMPTY, synced=False)),
        (replace(LOST, preimage_seen=True), EMPTY),
        (replace(LOST, time_lock=0), EMPTY),
        (replace(LOST, time_lock=489), EMPTY),
    ],
    ids=["margin", "in a channel", "a channel closes", "behind", "preimage", "no attempt", "a later attempt"],
)
async def test_nothing_less_than_the_whole_proof_releases(
    kept: FakeBank, payment: NodePayment, htlcs: NodeHtlcs
) -> None:
    kept.heights = [401, 405]
    try:
        report = await _watch(FakeLnd(known=payment, says=[], htlcs=htlcs))
    except ApplicationError as still:
        assert still.type == "InFlight"  # noqa: PT017 - either way of saying "in flight" is right here
    else:
        assert report.verdict is NodeVerdict.IN_FLIGHT


async def test_a_paid_payment_is_settled_whatever_was_seen_before(kept: FakeBank) -> None:
    kept.heights = [401, 405, 412]
    assert (await _watch(FakeLnd(known=PAID, says=[]))).verdict is NodeVerdict.SUCCEEDED


async def test_what_is_in_no_channel_is_told_once_and_looked_at_again(kept: FakeBank) -> None:
    kept.heights = [300]
    lnd = FakeLnd(known=LOST, says=[], htlcs=replace(EMPTY, height=301))
    report = await _watch(lnd)
    assert (report.verdict, report.waiting.reason) == (NodeVerdict.IN_FLIGHT, "lost_attempt")
    with pytest.raises(ApplicationError, match="released from block 412 on"):
        await _watch(lnd, shown="lost_attempt")


async def test_an_htlc_that_stays_in_a_channel_past_its_time_lock_needs_an_operator(kept: FakeBank) -> None:
    held = replace(EMPTY, outgoing=frozenset({ATTEMPT.payment_hash}))
    report = await _watch(FakeLnd(known=LOST, says=[], htlcs=held))
    assert (report.waiting.reason, report.waiting.needs_operator) == ("overdue", True)
    assert kept.heights == []


async def test_what_needs_an_operator_is_noted_for_whoever_asks(kept: FakeBank) -> None:
    with pytest.raises(InvariantBroken):
        await _watch(FakeLnd(known=None, says=[]))
    assert [(wait.reason, wait.needs_operator) for wait in kept.waits] == [("node_forgot", True)]


async def test_what_is_noted_for_whoever_asks_names_no_place_of_ours(kept: FakeBank) -> None:
    with pytest.raises(Unavailable):
        await _send(FakeLnd(known=None, says=[Unavailable("lnd-1: failed to connect to ipv4:10.0.0.7:10009")]))
    assert [wait.detail for wait in kept.waits] == ["the node cannot take it now"]


async def test_a_node_that_has_known_an_attempt_is_not_sent_it_again() -> None:
    """Its database was replaced while it was followed. What broke the stream, also for good, makes no other try."""
    noted: list[Any] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: noted.append(details)
    broken = FakeLnd(known=None, says=[IN_FLIGHT, InvariantBroken("permission denied")])
    activity = Sending(cast("LndNode", broken), cast("Pool", FakePool()))
    assert (await environment.run(activity.send_payment, ATTEMPT)).verdict is NodeVerdict.IN_FLIGHT
    replaced = FakeLnd(known=None, says=[PAID])
    report = await _next_try(replaced, list(noted[-1]))
    assert (report.verdict, replaced.sent) == (NodeVerdict.IN_FLIGHT, 0)


async def test_a_node_that_never_said_a_word_is_asked_again() -> None:
    lnd = FakeLnd(known=None, says=[PAID])
    assert (await _next_try(lnd, [])).verdict is NodeVerdict.SUCCEEDED
    assert lnd.sent == 1
