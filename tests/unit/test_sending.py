"""Reading a node's word about an attempt, with a fake node for what a real one cannot be made to say on demand."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.sending import Sending
from engine.clients.lnd import LndNode, NodeIdentity, NodePayment, NodePaymentStatus, SendRefused
from engine.contracts.payment import AttemptReport, LightningAttempt, NodeVerdict
from engine.domain.errors import InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.ids import NodeName, PaymentHash, PaymentId
from engine.domain.money import Msat
from engine.ledger import payment as payments
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


@dataclass
class FakeLnd:
    """Behind the interface of LndNode: says what it was given, and remembers whether it was told to send."""

    known: NodePayment | None
    says: list[NodePayment | Exception]
    pubkey: str = PUBKEY
    active_channels: int = 1
    name: NodeName = ATTEMPT.node
    sent: int = 0
    order: list[str] = field(default_factory=list)

    async def find_payment(self, _payment_hash: PaymentHash) -> NodePayment | None:
        self.order.append("look")
        return self.known

    async def get_identity(self) -> NodeIdentity:
        return NodeIdentity(pubkey=self.pubkey, active_channels=self.active_channels)

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
    async def acquire(self) -> AsyncIterator[None]:
        yield None


@pytest.fixture(autouse=True)
def fence(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Open for the adopted node, until a test closes it."""
    state: dict[str, str | None] = {"pubkey": PUBKEY}

    async def find_fence(_conn: object, **_which: object) -> str | None:
        return state["pubkey"]

    monkeypatch.setattr(payments, "find_fence", find_fence)
    return state


async def _send(lnd: FakeLnd) -> AttemptReport:
    activity = Sending(cast("LndNode", lnd), cast("Pool", FakePool()))
    return cast("AttemptReport", await ActivityEnvironment().run(activity.send_payment, ATTEMPT))


async def _watch(lnd: FakeLnd) -> Any:
    return await ActivityEnvironment().run(
        Sending(cast("LndNode", lnd), cast("Pool", FakePool())).watch_payment, ATTEMPT
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
    with pytest.raises(type(error)):
        await _send(FakeLnd(known=None, says=[IN_FLIGHT, error]))


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


async def test_a_closed_fence_lets_nothing_through(fence: dict[str, str | None]) -> None:
    """A zombie wakes after the payment was released: its money is no longer held."""
    fence["pubkey"] = None
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


@pytest.mark.parametrize("known", [None, OLD_FAILURE])
async def test_a_node_that_forgot_what_it_was_sending_calls_an_operator(known: NodePayment | None) -> None:
    with pytest.raises(InvariantBroken, match="replaced"):
        await _watch(FakeLnd(known=known, says=[]))


async def test_a_look_at_what_is_in_flight_says_when_to_look_again() -> None:
    with pytest.raises(Exception, match="still in flight") as raised:
        await _watch(FakeLnd(known=IN_FLIGHT, says=[]))
    assert cast("Any", raised.value).next_retry_delay.total_seconds() == 5
