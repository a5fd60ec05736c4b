"""Reading a node's word about an attempt, with a fake node for what a real one cannot be made to say on demand."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.sending import sending as sends
from activities.sending.sending import Sending
from engine.clients.lnd.client import LndNode, NodePayment, NodePaymentStatus
from engine.clients.lnd.htlc import NodeHtlcs
from engine.clients.lnd.refusal import SendRefused
from engine.contracts.payment import NodeVerdict
from engine.domain.errors import InvariantBroken, NotFound, OutcomeUnknown, Unavailable
from engine.domain.money import Msat
from engine.domain.sending import TRIED_AFTER_S
from engine.ledger.database import Pool
from tests.helpers.sending import (
    ATTEMPT,
    EMPTY,
    IN_FLIGHT,
    OLD_FAILURE,
    PAID,
    FakeBank,
    FakeLnd,
    FakePool,
    fake_bank,
    payment,
    send,
    sending_with,
    watch,
)

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> FakeBank:
    return fake_bank(monkeypatch)


@pytest.mark.parametrize(("delivered", "told"), [(100_000, None), (60_000, 60_000), (100_001, 100_001), (None, None)])
async def test_the_amount_that_the_payee_took_is_told_where_he_was_to_get_another(
    delivered: int | None, told: int | None
) -> None:
    paid = replace(PAID, delivered_msat=None if delivered is None else Msat(delivered))
    report = await send(FakeLnd(known=None, says=[paid]))
    assert (report.verdict, report.delivered_msat) == (NodeVerdict.SUCCEEDED, told)


async def test_a_sender_looks_before_it_sends() -> None:
    lnd = FakeLnd(known=None, says=[IN_FLIGHT, PAID])
    report = await send(lnd)
    assert (report.verdict, report.fee_msat, report.payment_index) == (NodeVerdict.SUCCEEDED, 350, 8)
    assert lnd.order == ["look", "send"]


async def test_a_payment_that_the_node_has_is_followed_and_not_sent_again() -> None:
    lnd = FakeLnd(known=IN_FLIGHT, says=[PAID])
    assert (await send(lnd)).verdict is NodeVerdict.SUCCEEDED
    assert lnd.sent == 0


async def test_the_failure_of_an_older_attempt_is_no_news() -> None:
    lnd = FakeLnd(known=OLD_FAILURE, says=[OLD_FAILURE, IN_FLIGHT, PAID])
    assert (await send(lnd)).verdict is NodeVerdict.SUCCEEDED
    assert lnd.sent == 1


async def test_a_stream_that_ends_early_means_in_flight() -> None:
    assert (await send(FakeLnd(known=None, says=[IN_FLIGHT]))).verdict is NodeVerdict.IN_FLIGHT


async def test_a_stream_that_never_confirmed_the_payment_is_an_unknown_outcome() -> None:
    with pytest.raises(OutcomeUnknown):
        await send(FakeLnd(known=OLD_FAILURE, says=[OLD_FAILURE]))


@pytest.mark.parametrize("error", [Unavailable("connection reset"), OutcomeUnknown("deadline exceeded")])
async def test_a_broken_stream_is_never_a_failure(error: Exception) -> None:
    """Before the node's first word the next try looks; after it the payment is watched."""
    with pytest.raises(type(error)):
        await send(FakeLnd(known=None, says=[error]))
    assert (await send(FakeLnd(known=None, says=[IN_FLIGHT, error]))).verdict is NodeVerdict.IN_FLIGHT


async def test_a_payment_that_the_node_refused_to_begin_has_failed() -> None:
    report = await send(FakeLnd(known=None, says=[SendRefused("invoice_expired", "invoice expired")]))
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
    report = await send(FakeLnd(known=None, says=[payment(NodePaymentStatus.FAILED, 8, reason)]))
    assert (report.verdict, report.failure_code) == (NodeVerdict.FAILED, code)


async def test_a_closed_fence_lets_nothing_through(kept: FakeBank) -> None:
    """A zombie wakes after the payment was released: its money is no longer held."""
    kept.pubkey = None
    lnd = FakeLnd(known=None, says=[PAID])
    with pytest.raises(InvariantBroken):
        await send(lnd)
    assert lnd.sent == 0


async def test_another_node_at_the_same_address_gets_nothing() -> None:
    lnd = FakeLnd(known=None, says=[PAID], pubkey="03" + "cd" * 32)
    with pytest.raises(InvariantBroken, match="not the node that was adopted"):
        await send(lnd)
    assert lnd.sent == 0


async def test_a_node_that_has_just_been_started_is_waited_for() -> None:
    lnd = FakeLnd(known=None, says=[PAID], active_channels=0)
    with pytest.raises(Unavailable, match="no active channel"):
        await send(lnd)
    assert lnd.sent == 0


async def test_all_that_send_at_the_same_time_ask_once_who_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sends, "_IDENTITY_S", 3600)
    lnd = FakeLnd(known=None, says=[PAID])
    sending = sending_with(lnd)
    await asyncio.gather(*(ActivityEnvironment().run(sending.send_payment, ATTEMPT) for _ in range(3)))
    assert (lnd.sent, lnd.asked_who) == (3, 1)


async def test_a_node_that_could_not_send_is_asked_again_at_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sends, "_IDENTITY_S", 3600)
    lnd = FakeLnd(known=None, says=[PAID], synced=False)
    sending = sending_with(lnd)
    with pytest.raises(Unavailable, match="behind the chain"):
        await ActivityEnvironment().run(sending.send_payment, ATTEMPT)
    lnd.synced = True
    await ActivityEnvironment().run(sending.send_payment, ATTEMPT)
    assert (lnd.sent, lnd.asked_who) == (1, 2)


async def test_a_node_behind_the_chain_is_waited_for(kept: FakeBank) -> None:
    lnd = FakeLnd(known=None, says=[PAID], synced=False)
    with pytest.raises(Unavailable, match="behind the chain"):
        await send(lnd)
    assert lnd.sent == 0
    assert [(wait.reason, wait.needs_operator) for wait in kept.waits] == [("node_unavailable", False)]


@pytest.mark.parametrize("known", [None, OLD_FAILURE])
async def test_a_node_that_forgot_what_it_was_sending_calls_an_operator(known: NodePayment | None) -> None:
    with pytest.raises(InvariantBroken, match="replaced"):
        await watch(FakeLnd(known=known, says=[]))


@pytest.mark.parametrize(("age_s", "again_s"), [(-60, 5), (0, 5), (400, 200), (86_400, 600)])
async def test_a_look_at_what_is_in_flight_says_when_to_look_again(age_s: int, again_s: int) -> None:
    """The older, the later; the clocks of node and worker may differ."""
    known = replace(IN_FLIGHT, time_lock=600, created_at=datetime.now(UTC) - timedelta(seconds=age_s))
    with pytest.raises(Exception, match="still in flight") as raised:
        await watch(FakeLnd(known=known, says=[]))
    assert round(cast("Any", raised.value).next_retry_delay.total_seconds()) == again_s


LOST = replace(IN_FLIGHT, time_lock=400)


async def test_a_final_word_is_taken_from_a_node_that_cannot_tell_of_its_channels() -> None:
    """While its bitcoind is away."""
    lnd = FakeLnd(known=PAID, says=[])
    assert (await watch(lnd)).verdict is NodeVerdict.SUCCEEDED
    assert lnd.order == ["look"]


async def test_a_lost_attempt_is_released_when_the_proof_is_complete(kept: FakeBank) -> None:
    kept.heights = [401, 405]
    lnd = FakeLnd(known=LOST, says=[], htlcs=replace(EMPTY, height=412))
    report = await watch(lnd)
    assert (report.verdict, report.failure_code, report.payment_index) == (NodeVerdict.FAILED, "lost_attempt", 8)
    assert "401, 405, 412" in report.failure_detail
    assert lnd.order == ["look", "channels", "look"]


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
        report = await watch(FakeLnd(known=payment, says=[], htlcs=htlcs))
    except ApplicationError as still:
        assert still.type == "InFlight"  # noqa: PT017 - either way of saying "in flight" is right here
    else:
        assert report.verdict is NodeVerdict.IN_FLIGHT


async def test_a_paid_payment_is_settled_whatever_was_seen_before(kept: FakeBank) -> None:
    kept.heights = [401, 405, 412]
    assert (await watch(FakeLnd(known=PAID, says=[]))).verdict is NodeVerdict.SUCCEEDED


async def test_a_payment_in_no_channel_is_told_once_and_looked_at_again(kept: FakeBank) -> None:
    kept.heights = [300]
    lnd = FakeLnd(known=LOST, says=[], htlcs=replace(EMPTY, height=301))
    report = await watch(lnd)
    assert (report.verdict, report.waiting.reason) == (NodeVerdict.IN_FLIGHT, "lost_attempt")
    with pytest.raises(ApplicationError, match="released from block 412 on"):
        await watch(lnd, shown="lost_attempt")


async def test_an_htlc_that_stays_in_a_channel_past_its_time_lock_needs_an_operator(kept: FakeBank) -> None:
    held = replace(EMPTY, outgoing=frozenset({ATTEMPT.payment_hash}))
    report = await watch(FakeLnd(known=LOST, says=[], htlcs=held))
    assert (report.waiting.reason, report.waiting.needs_operator) == ("overdue", True)
    assert kept.heights == []


async def test_an_untried_payment_is_ended_by_its_node_when_its_time_is_over(kept: FakeBank) -> None:
    """Not while it may still look for a way. A node that does not end it needs its restart; nothing is released."""
    with pytest.raises(ApplicationError, match="no attempt yet"):
        await watch(FakeLnd(known=IN_FLIGHT, says=[]))
    old = replace(IN_FLIGHT, created_at=datetime.now(UTC) - timedelta(seconds=TRIED_AFTER_S))
    lnd = FakeLnd(known=old, says=[], ends=payment(NodePaymentStatus.FAILED, 8, "FAILURE_REASON_ERROR"))
    report = await watch(lnd)
    assert (report.verdict, report.failure_code) == (NodeVerdict.FAILED, "no_route")
    assert lnd.order == ["look", "channels", "look", "end", "look"]
    for ends in (None, Unavailable("no answer"), InvariantBroken("permission denied")):
        report = await watch(FakeLnd(known=old, says=[], ends=ends))
        assert (report.verdict, report.waiting.reason, report.waiting.needs_operator) == (
            NodeVerdict.IN_FLIGHT,
            "not_tried",
            True,
        )
    assert kept.heights == []


async def test_the_need_of_an_operator_is_noted_for_whoever_asks(kept: FakeBank) -> None:
    with pytest.raises(InvariantBroken):
        await watch(FakeLnd(known=None, says=[]))
    assert [(wait.reason, wait.needs_operator) for wait in kept.waits] == [("node_forgot", True)]


async def test_a_note_for_whoever_asks_names_no_place_of_ours(kept: FakeBank) -> None:
    with pytest.raises(Unavailable):
        await send(FakeLnd(known=None, says=[Unavailable("lnd-1: failed to connect to ipv4:10.0.0.7:10009")]))
    assert [wait.detail for wait in kept.waits] == ["the node cannot take it now"]


async def test_a_node_that_has_known_an_attempt_is_not_sent_it_again() -> None:
    """Its database was replaced while it was followed. What broke the stream, also for good, makes no other try."""
    broken = FakeLnd(known=None, says=[IN_FLIGHT, InvariantBroken("permission denied")])
    assert (await send(broken)).verdict is NodeVerdict.IN_FLIGHT
    replaced = FakeLnd(known=None, says=[PAID])
    assert ((await send(replaced)).verdict, replaced.sent) == (NodeVerdict.IN_FLIGHT, 0)


@pytest.mark.parametrize("says", [[PAID], [IN_FLIGHT, Unavailable("connection reset")], [NotFound("forgotten")]])
async def test_a_payment_begun_at_once_is_followed_and_never_sent(says: list[NodePayment | Exception]) -> None:
    lnd = FakeLnd(known=None, says=says)
    report = await send(lnd, replace(ATTEMPT, begun=True))
    assert report.verdict is (NodeVerdict.SUCCEEDED if says == [PAID] else NodeVerdict.IN_FLIGHT)
    assert lnd.sent == 0


async def test_books_that_are_away_at_the_nodes_first_word_make_no_other_try() -> None:
    """What the node has is followed, noted or not: a try that could send must not follow."""

    class Away(FakePool):
        fenced = False

        async def acquire(self, **_limits: object) -> None:
            if self.fenced:
                raise ConnectionRefusedError
            self.fenced = True

    activity = Sending(cast("LndNode", FakeLnd(known=None, says=[IN_FLIGHT])), cast("Pool", Away()))
    report = await ActivityEnvironment().run(activity.send_payment, ATTEMPT)
    assert report.verdict is NodeVerdict.IN_FLIGHT


async def test_a_node_that_never_said_a_word_is_asked_again(kept: FakeBank) -> None:
    scripts: list[list[NodePayment | Exception]] = [[OutcomeUnknown("deadline exceeded")], [PAID]]
    for says in scripts:
        assert not kept.begun
        with suppress(OutcomeUnknown):
            assert (await send(FakeLnd(known=None, says=says))).verdict is NodeVerdict.SUCCEEDED
