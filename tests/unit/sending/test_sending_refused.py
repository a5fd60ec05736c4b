"""What a node does not take, and how often it is asked: with a fake node for words that a real one does not say."""

from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, cast

import grpc
import pytest
from temporalio.testing import ActivityEnvironment

from activities.failures import as_failure
from engine.bank import sending
from engine.clients.lnd import client as lnd_client
from engine.clients.lnd.client import LndNode, NodeIdentity, NodePayment
from engine.clients.lnd.decode import InvoiceReader
from engine.clients.lnd.refusal import NotBegun, SendRefused, refusal
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.contracts.payment import NodeVerdict
from engine.domain.channel import KnownChannel, SeenChannels
from engine.domain.errors import EngineError, Invalid, InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.pause import pause_after
from engine.domain.sending import REFUSAL_REST_S
from tests.helpers.invoice.bolt11_encoder import Draft
from tests.helpers.sending import (
    ATTEMPT,
    EMPTY,
    IN_FLIGHT,
    OLD_FAILURE,
    PAID,
    FakeBank,
    FakeLnd,
    fake_bank,
    send,
    sending_with,
    watch,
)

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> FakeBank:
    return fake_bank(monkeypatch)


# Read by the node


async def test_an_unreadable_invoice_has_failed_and_is_not_sent(kept: FakeBank) -> None:
    lnd = FakeLnd(known=None, says=[PAID], reads=Invalid("it cannot", code="invoice_refused_by_node"))
    report = await send(lnd)
    assert (report.verdict, report.failure_code) == (NodeVerdict.FAILED, "invoice_refused_by_node")
    assert (lnd.sent, kept.refusals) == (0, 0)


@pytest.mark.parametrize("reads", [Unavailable("no answer"), InvariantBroken("no macaroon", code="node_refuses")])
async def test_an_invoice_not_read_for_now_is_not_sent_and_has_not_failed(reads: EngineError) -> None:
    lnd = FakeLnd(known=None, says=[PAID], reads=reads)
    with pytest.raises(type(reads)):
        await send(lnd)
    assert lnd.sent == 0


async def test_another_node_refuses_nothing() -> None:
    """That one cannot read it says nothing about the one that holds the payment."""
    lnd = FakeLnd(known=None, says=[], reads=Invalid("no", code="invoice_refused_by_node"), pubkey="03" + "cd" * 32)
    with pytest.raises(InvariantBroken, match="not the node that was adopted"):
        await send(lnd)


async def test_a_payment_that_the_node_has_is_followed_whatever_it_could_read_now() -> None:
    lnd = FakeLnd(known=IN_FLIGHT, says=[PAID], reads=Invalid("no", code="invoice_refused_by_node"))
    assert (await send(lnd)).verdict is NodeVerdict.SUCCEEDED


# Refused before it began


async def test_a_send_that_is_refused_again_and_again_ends_when_a_last_look_finds_nothing(kept: FakeBank) -> None:
    lnd = FakeLnd(known=OLD_FAILURE, says=[NotBegun("unable to frobnicate")])
    for _ in range(3):
        with pytest.raises(OutcomeUnknown, match="frobnicate"):
            await send(lnd)
    assert {wait.reason for wait in kept.waits} == {"send_refused"}
    with pytest.raises(OutcomeUnknown) as rests:
        await send(lnd)
    assert (rests.value.fields["retry_after_s"], lnd.sent) == (REFUSAL_REST_S, 3)
    kept.refused_for_s = REFUSAL_REST_S
    report = await send(lnd)
    assert (report.verdict, report.failure_code, lnd.sent) == (NodeVerdict.FAILED, "invoice_refused_by_node", 3)


@pytest.mark.parametrize("known", [IN_FLIGHT, PAID])
async def test_a_payment_found_by_the_last_look_is_followed(kept: FakeBank, known: NodePayment) -> None:
    """One of the refused sends was on its way after all."""
    kept.refusals, kept.refused_for_s = 3, REFUSAL_REST_S
    assert (await send(FakeLnd(known=known, says=[PAID]))).verdict is NodeVerdict.SUCCEEDED


async def test_the_last_look_is_the_last_call(kept: FakeBank) -> None:
    """However slow the calls between the first look and the end were."""

    @dataclass
    class Late(FakeLnd):
        async def get_identity(self) -> NodeIdentity:
            self.known = IN_FLIGHT
            return await FakeLnd.get_identity(self)

    kept.refusals, kept.refused_for_s = 3, REFUSAL_REST_S
    lnd = Late(known=None, says=[PAID])
    with pytest.raises(OutcomeUnknown, match="begun what it refused"):
        await send(lnd)
    assert ((await send(lnd)).verdict, lnd.sent) == (NodeVerdict.SUCCEEDED, 0)


async def test_nothing_comes_between_the_fence_and_the_send(kept: FakeBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note may take seconds, and in each of them the payment may end by another worker."""
    open_fence, note = sending.find_fence, sending.note_wait
    lnd = FakeLnd(known=None, says=[PAID])

    async def find_fence(*which: object, **more: object) -> object:
        lnd.order.append("fence")
        return await open_fence(*which, **more)  # type: ignore[arg-type]

    async def note_wait(*which: object) -> object:
        lnd.order.append("note")
        return await note(*which)  # type: ignore[arg-type]

    monkeypatch.setattr(sending, "find_fence", find_fence)
    monkeypatch.setattr(sending, "note_wait", note_wait)
    door = sending_with(lnd)
    second = ActivityEnvironment()
    second.info = replace(second.info, attempt=2)
    await second.run(door.send_payment, ATTEMPT)
    assert lnd.order == ["look", "note", "fence", "send"]


async def test_a_payment_that_was_begun_is_never_given_up_for_its_refusals(kept: FakeBank) -> None:
    kept.refusals, kept.refused_for_s = 3, REFUSAL_REST_S
    kept.begun.add(ATTEMPT.payment_id)
    assert (await send(FakeLnd(known=None, says=[]))).verdict is NodeVerdict.IN_FLIGHT


async def test_money_that_is_not_held_any_more_is_not_given_back_for_refusals(kept: FakeBank) -> None:
    kept.refusals, kept.refused_for_s, kept.pubkey = 3, REFUSAL_REST_S, None
    with pytest.raises(InvariantBroken, match="not waiting to be sent"):
        await send(FakeLnd(known=None, says=[]))


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (grpc.StatusCode.UNKNOWN, "invoice expired. Valid until …", SendRefused),
        (grpc.StatusCode.INVALID_ARGUMENT, "Checksum failed", SendRefused),
        (grpc.StatusCode.INTERNAL, "checksum failed", NotBegun),
        (grpc.StatusCode.UNKNOWN, "words of a later LND", NotBegun),
        (grpc.StatusCode.NOT_FOUND, "no such thing", NotBegun),
    ],
)
def test_only_known_words_of_lnd_end_a_payment_at_once(
    status: grpc.StatusCode, words: str, kind: type[Exception]
) -> None:
    assert type(refusal(status, words)) is kind


# How often


@pytest.mark.parametrize(
    ("stalled_for", "pause_s"), [(0, None), (29, None), (30, 3), (900, 90), (3_000, 300), (864_000, 300)]
)
async def test_the_longer_a_payment_has_not_gone_on_the_later_it_is_tried_again(
    kept: FakeBank, stalled_for: int, pause_s: int | None
) -> None:
    kept.stalled_for = timedelta(seconds=stalled_for)
    with pytest.raises(Unavailable) as away:
        await send(FakeLnd(known=None, says=[PAID], synced=False))
    told = as_failure(away.value).next_retry_delay
    seconds = None if told is None else round(told.total_seconds())
    assert seconds in ({None} if pause_s is None else {pause_s, pause_s + 1} if pause_s < 300 else {300})


def test_two_thousand_that_wait_ask_a_node_seven_times_a_second() -> None:
    pause = pause_after(timedelta(days=1))
    assert pause is not None
    assert 2_000 / pause.total_seconds() < 7


# Channels in doubt


async def test_a_node_whose_channels_went_back_proves_nothing(kept: FakeBank) -> None:
    kept.heights, kept.known = [401, 405], {"aa:0": KnownChannel(updates=15)}
    old = replace(EMPTY, height=412, channels=SeenChannels(updates={"aa:0": 14}))
    report = await watch(FakeLnd(known=replace(IN_FLIGHT, time_lock=400), says=[], htlcs=old))
    assert report.verdict is NodeVerdict.IN_FLIGHT
    assert report.waiting is not None
    assert (report.waiting.reason, report.waiting.needs_operator) == ("channels_in_doubt", True)
    assert "channel aa:0 is at update 14, and was at 15 before" in report.waiting.detail
    assert kept.heights == [401, 405]


async def test_closed_channels_are_asked_for_only_when_one_is_gone(kept: FakeBank) -> None:
    kept.known = {"aa:0": KnownChannel(updates=15)}
    there = replace(EMPTY, channels=SeenChannels(updates={"aa:0": 15}))
    for htlcs, order in ((there, ["look", "channels", "look"]), (EMPTY, ["look", "channels", "closed", "look"])):
        kept.heights.clear()
        lnd = FakeLnd(known=replace(IN_FLIGHT, time_lock=489), says=[], htlcs=htlcs, closed={"aa:0": False})
        with pytest.raises(Exception, match="still in flight"):
            await watch(lnd)
        assert lnd.order == order


# The reading itself


@dataclass
class FakeStub:
    """LND's DecodePayReq, by script."""

    says: list[ln.PayReq | grpc.aio.AioRpcError]
    asked: int = 0

    def DecodePayReq(self, _request: ln.PayReqString, timeout: float) -> Awaitable[ln.PayReq]:  # noqa: N802 - LND's
        return self._answer()

    async def _answer(self) -> ln.PayReq:
        self.asked += 1
        said = self.says.pop(0)
        if isinstance(said, grpc.aio.AioRpcError):
            raise said
        return said


def _error(words: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=words, debug_error_string="")


def _reader(stub: FakeStub, awake: Exception | None = None) -> InvoiceReader:
    async def is_awake(_payment_hash: PaymentHash) -> None:
        if awake is not None:
            raise awake

    return InvoiceReader(NodeName("lnd-1"), cast("Any", stub), is_awake)


TEXT = Draft(amount="10u").text()
GOOD = ln.PayReq(
    destination="03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad",
    payment_hash="01" * 32,
    num_msat=1_000_000,
    timestamp=1_750_000_000,
    expiry=3600,
    cltv_expiry=24,
    payment_addr=b"\x11" * 32,
)


async def test_a_reading_like_ours_is_kept() -> None:
    stub = FakeStub([GOOD])
    reader = _reader(stub)
    assert [await reader.read(TEXT) for _ in range(3)] == [GOOD] * 3
    assert stub.asked == 1


@pytest.mark.parametrize(
    "change",
    [
        {"payment_hash": "02" * 32},
        {"num_msat": 1_000_001},
        {"num_msat": 0},
        {"destination": "02" + "ab" * 32},
        {"expiry": 3601},
        {"timestamp": 1},
        {"payment_addr": b"\x12" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_reading_unlike_ours_is_refused_by_name(change: dict[str, Any]) -> None:
    said = ln.PayReq()
    said.CopyFrom(GOOD)
    for name, value in change.items():
        setattr(said, name, value)
    with pytest.raises(Invalid) as refused:
        await _reader(FakeStub([said])).read(TEXT)
    assert refused.value.code == "invoice_refused_by_node"


async def test_a_node_that_cannot_read_it_says_so_twice() -> None:
    stub = FakeStub([_error("invalid index of 1"), _error("invalid index of 1")])
    with pytest.raises(Invalid) as refused:
        await _reader(stub).read(TEXT)
    assert (refused.value.code, stub.asked) == ("invoice_refused_by_node", 2)
    assert "index" not in refused.value.detail


@pytest.mark.parametrize(
    ("says", "awake"),
    [
        ([_error("the RPC server is in the process of starting up")], OutcomeUnknown("it is starting")),
        ([_error("the RPC server is in the process of starting up"), _error("wallet locked")], None),
        ([_error("no answer", grpc.StatusCode.DEADLINE_EXCEEDED)], None),
        ([_error("refused", grpc.StatusCode.UNAVAILABLE)], None),
        ([_error("cannot parse"), _error("gone", grpc.StatusCode.UNAVAILABLE)], None),
    ],
)
async def test_a_node_that_is_away_or_starting_refuses_nothing(
    says: list[ln.PayReq | grpc.aio.AioRpcError], awake: Exception | None
) -> None:
    with pytest.raises(Unavailable):
        await _reader(FakeStub(says), awake).read(TEXT)


async def test_a_node_that_has_started_meanwhile_has_read_it() -> None:
    assert await _reader(FakeStub([_error("starting"), GOOD])).read(TEXT) == GOOD


async def test_a_macaroon_that_is_too_small_refuses_no_invoice() -> None:
    with pytest.raises(InvariantBroken) as refused:
        await _reader(FakeStub([_error("permission denied")])).read(TEXT)
    assert refused.value.code == "node_refuses"


# The client's own word about a send


@dataclass
class FakeRouter:
    """SendPaymentV2 and TrackPaymentV2, by script."""

    sends: list[ln.Payment | grpc.aio.AioRpcError]
    tracked: list[ln.Payment | grpc.aio.AioRpcError] = field(default_factory=list)

    def SendPaymentV2(self, _request: object) -> AsyncGenerator[ln.Payment, None]:  # noqa: N802 - LND's
        return _stream(self.sends)

    def TrackPaymentV2(self, _request: object) -> AsyncGenerator[ln.Payment, None]:  # noqa: N802 - LND's
        return _stream(self.tracked)


async def _stream(lines: list[ln.Payment | grpc.aio.AioRpcError]) -> AsyncGenerator[ln.Payment, None]:
    for line in lines:
        if isinstance(line, grpc.aio.AioRpcError):
            raise line
        yield line


NOT_FOUND = _error("payment isn't initiated", grpc.StatusCode.NOT_FOUND)
BEGUN = ln.Payment(payment_hash=ATTEMPT.payment_hash, status=ln.Payment.IN_FLIGHT, payment_index=8)


@pytest.mark.parametrize(
    ("sends", "tracked", "raised"),
    [
        ([_error("who knows")], [NOT_FOUND], NotBegun),
        ([_error("who knows", grpc.StatusCode.INVALID_ARGUMENT)], [NOT_FOUND], NotBegun),
        ([_error("invoice expired")], [NOT_FOUND], SendRefused),
        ([_error("who knows")], [BEGUN], OutcomeUnknown),
        ([_error("who knows", grpc.StatusCode.INVALID_ARGUMENT)], [BEGUN], OutcomeUnknown),
        ([_error("who knows")], [_error("lost", grpc.StatusCode.UNAVAILABLE)], Unavailable),
        ([_error("lost", grpc.StatusCode.DEADLINE_EXCEEDED)], [NOT_FOUND], OutcomeUnknown),
        ([_error("lost", grpc.StatusCode.UNAVAILABLE)], [NOT_FOUND], Unavailable),
        ([BEGUN, _error("invoice expired")], [NOT_FOUND], OutcomeUnknown),
    ],
)
async def test_only_an_answer_before_the_first_word_with_a_look_after_it_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
    sends: list[ln.Payment | grpc.aio.AioRpcError],
    tracked: list[ln.Payment | grpc.aio.AioRpcError],
    raised: type[Exception],
) -> None:
    monkeypatch.setattr(lnd_client, "open_channel", lambda _settings: grpc.aio.insecure_channel("127.0.0.1:1"))
    node = LndNode(NodeName("lnd-1"), cast("Any", None))
    monkeypatch.setattr(node, "_router", FakeRouter(sends, tracked))
    updates = node.send_payment(
        bolt11="lnbcrt1…",
        keysend=None,
        payment_hash=ATTEMPT.payment_hash,
        amount_msat=None,
        max_fee_msat=ATTEMPT.max_fee_msat,
        known_payment_index=7,
    )
    with pytest.raises(raised):
        [update async for update in updates]
    await node.close()
