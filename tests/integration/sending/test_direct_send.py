"""What becomes of a payment that is sent with its opening: a real Postgres, and a node that says what it is told.

The same over real nodes is in `tests/integration/payment`, and with whatever can break in `tests/fault`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities import direct_send
from activities.direct_send import DirectSend
from activities.lane import Lanes
from activities.payment import Payments
from activities.sending.sending import Sending
from engine.bank import payment
from engine.clients.announcements import Announcer
from engine.clients.lnd.client import LndNode, NodePayment, NodePaymentStatus
from engine.clients.lnd.refusal import SendRefused
from engine.contracts import workflow_ids
from engine.contracts.lane import LaneRequest
from engine.contracts.payment import NodeVerdict, OpenedPayment, PaymentOutcome, PaymentRequest, PaymentStatus
from engine.domain.errors import Invalid, InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.ids import AccountId, PaymentHash, PaymentId, WalletId
from engine.domain.money import Msat
from engine.ledger import chart
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, running_api
from tests.helpers.sending import ATTEMPT, IN_FLIGHT, PAID, FakeLnd
from tests.helpers.sending import payment as node_payment
from tests.helpers.teller import NODE, Teller, open_teller

pytestmark = pytest.mark.integration

NEW = replace(PAID, payment_index=1)
FAILED = node_payment(NodePaymentStatus.FAILED, 1, "FAILURE_REASON_NO_ROUTE")


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        yield api


@pytest_asyncio.fixture
async def teller(api: Api) -> Teller:
    return await open_teller(api)


@pytest_asyncio.fixture
async def alice(api: Api, teller: Teller) -> User:
    user = await api.open_account()
    await teller.receive(user, 50_000_000)
    return user


def _request(payer: User) -> PaymentRequest:
    return PaymentRequest(
        payment_id=PaymentId("pay_" + 25 * "1"),
        account_id=AccountId(payer.id),
        wallet_id=WalletId(payer.wallet_id),
        idempotency_key="k",
        body_hash="ab" * 32,
        destination="somewhere",
        bolt11="lnbcrt1somebody",
        payment_hash=PaymentHash(ATTEMPT.payment_hash),
        amount_msat=Msat(1_000_000),
        max_fee_msat=Msat(10_000),
    )


def _payments(teller: Teller, lnd: FakeLnd) -> Payments:
    nodes = {NODE: Sending(cast("LndNode", lnd), teller.pool)}
    return Payments(teller.pool, chart.Chart(), direct_send=DirectSend(nodes, most=4))


async def _open(teller: Teller, lnd: FakeLnd, asked: PaymentRequest) -> OpenedPayment:
    return await ActivityEnvironment().run(_payments(teller, lnd).open_payment, asked)


async def test_a_payment_that_the_node_pays_at_once_is_settled_with_its_opening(teller: Teller, alice: User) -> None:
    asked, lnd = _request(alice), FakeLnd(known=None, says=[IN_FLIGHT, NEW])
    opened = await _open(teller, lnd, asked)
    assert (opened.outcome.status, opened.attempt, lnd.order) == (PaymentStatus.SETTLED, None, ["send"])
    assert await alice.balance() == (50_000_000 - 1_000_350, 0)
    shown = (await alice.get(f"/v1/payments/{asked.payment_id}")).json()
    assert (shown["status"], shown["fee_msat"], shown["preimage"]) == ("settled", 350, "ef" * 32)


async def test_a_payment_that_the_node_fails_at_once_is_given_back_with_its_opening(
    teller: Teller, alice: User
) -> None:
    opened = await _open(teller, FakeLnd(known=None, says=[FAILED]), _request(alice))
    assert (opened.outcome.status, opened.attempt) == (PaymentStatus.FAILED, None)
    assert await alice.balance() == (50_000_000, 0)


@pytest.mark.parametrize(
    ("says", "begun"), [([IN_FLIGHT, OutcomeUnknown("lost")], [True]), ([OutcomeUnknown("lost")], [False])]
)
async def test_a_payment_without_an_end_is_held_and_goes_on_from_the_nodes_queue(
    teller: Teller, alice: User, says: list[NodePayment | Exception], begun: list[bool]
) -> None:
    opened = await _open(teller, FakeLnd(known=None, says=says), _request(alice))
    assert opened.attempt is not None
    assert (opened.outcome.status, [opened.attempt.begun]) == (PaymentStatus.PENDING, begun)
    assert await alice.balance() == (50_000_000, 1_010_000)


async def test_a_repeat_of_the_opening_sends_nothing(teller: Teller, alice: User) -> None:
    """Whoever died with it may have sent it: the next send looks first, and that is the queue's."""
    first, second = (FakeLnd(known=None, says=[OutcomeUnknown("lost")]), FakeLnd(known=None, says=[NEW]))
    held, found = await _open(teller, first, _request(alice)), await _open(teller, second, _request(alice))
    assert held == found
    assert (first.sent, second.order) == (1, [])


async def test_an_end_that_cannot_be_booked_at_once_is_left_to_those_who_have_patience(
    teller: Teller, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: object, **_more: object) -> None:
        raise InvariantBroken("the books contradict themselves")

    monkeypatch.setattr(payment, "mark_settled_in_tx", broken)
    opened = await _open(teller, FakeLnd(known=None, says=[IN_FLIGHT, NEW]), _request(alice))
    assert opened.attempt is not None
    assert opened.attempt.begun
    assert await alice.balance() == (50_000_000, 1_010_000)


@pytest.mark.parametrize(
    ("said", "begun"), [(SendRefused("invoice_expired", "invoice expired"), [False]), (FAILED, [True])]
)
async def test_a_no_that_cannot_be_booked_at_once_is_asked_for_again_unless_the_node_has_the_payment(
    teller: Teller, alice: User, monkeypatch: pytest.MonkeyPatch, said: NodePayment | Exception, begun: list[bool]
) -> None:
    """Of what it refused before it had it a node would say nothing to whoever only watches."""

    async def away(*_arguments: object, **_more: object) -> None:
        raise Unavailable("the books are away")

    lnd = FakeLnd(known=None, says=[said])
    with monkeypatch.context() as broken:
        broken.setattr(payment, "mark_failed_in_tx", away)
        opened = await _open(teller, lnd, _request(alice))
    assert opened.attempt is not None
    assert (opened.outcome.status, [opened.attempt.begun]) == (PaymentStatus.PENDING, begun)
    again = await ActivityEnvironment().run(Sending(cast("LndNode", lnd), teller.pool).send_payment, opened.attempt)
    assert again.verdict is NodeVerdict.FAILED
    assert lnd.sent == (1 if opened.attempt.begun else 2)


async def test_an_unreadable_invoice_is_refused_before_anything_is_held(teller: Teller, alice: User) -> None:
    """A repeat of the opening, by whoever comes after a crash, gets the same, also from a node that reads it now."""
    asked = _request(alice)
    cannot = FakeLnd(known=None, says=[NEW], reads=Invalid("it cannot", code="invoice_refused_by_node"))
    for lnd in (cannot, FakeLnd(known=None, says=[NEW])):
        opened = await _open(teller, lnd, asked)
        assert opened.outcome.refusal is not None
        assert (opened.outcome.refusal.code, opened.attempt, lnd.sent) == ("invoice_refused_by_node", None, 0)
    assert await alice.balance() == (50_000_000, 0)
    assert await teller.pool.fetchval("SELECT count(*) FROM bank.payments WHERE id = $1", asked.payment_id) == 0


async def test_a_held_payment_is_not_refused_for_what_a_node_reads_later(teller: Teller, alice: User) -> None:
    asked = _request(alice)
    held = await _open(teller, FakeLnd(known=None, says=[OutcomeUnknown("lost")]), asked)
    cannot = FakeLnd(known=None, says=[], reads=Invalid("it cannot", code="invoice_refused_by_node"))
    assert await _open(teller, cannot, asked) == held
    assert await alice.balance() == (50_000_000, 1_010_000)


# In a lane


@dataclass
class ByHash(FakeLnd):
    """Says something else about each payment hash; what it has no words for it keeps in flight."""

    words: dict[str, list[NodePayment | Exception]] = field(default_factory=dict)

    def send_payment(self, **order: object) -> AsyncGenerator[NodePayment, None]:
        self.sent += 1
        return self._say(str(order["payment_hash"]))

    async def _say(self, payment_hash: str) -> AsyncGenerator[NodePayment, None]:
        yield IN_FLIGHT
        for word in self.words.get(payment_hash, ()):
            if isinstance(word, Exception):
                raise word
            yield word
        if payment_hash not in self.words:
            await asyncio.Event().wait()


class FakeAnnouncer:
    """Remembers what it was told to say."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def announce(self, payments: Sequence[PaymentId]) -> None:
        self.said += payments


async def _ride(teller: Teller, lnd: FakeLnd, announcer: FakeAnnouncer, lane: str, *asked: PaymentRequest) -> list[str]:
    """How each ended for the lane."""
    lanes = Lanes(teller.pool, chart.Chart(), _payments(teller, lnd), cast("Announcer", announcer))
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_id=lane)
    done = await environment.run(lanes.open_lane, LaneRequest(items=list(asked), over_lightning=True))
    return [_end(each) for each in done.outcomes]


def _end(outcome: PaymentOutcome) -> str:
    return outcome.refusal.code if outcome.refusal else str(outcome.status or "left alone")


def _another(asked: PaymentRequest, number: int, **changes: Any) -> PaymentRequest:
    return replace(
        asked,
        payment_id=PaymentId("pay_" + 25 * str(number)),
        idempotency_key=str(number),
        payment_hash=PaymentHash(64 * str(number)),
        **changes,
    )


async def test_each_of_a_lane_ends_for_itself_and_is_told_when_it_has(
    teller: Teller, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_send, "_FOLLOW_S", 0.5)
    asked = [_another(_request(alice), number) for number in range(4)]
    asked.append(_another(_request(alice), 4, amount_msat=Msat(90_000_000)))
    paid, failed, unknown, slow, dear = asked
    words: dict[str, list[NodePayment | Exception]] = {
        str(paid.payment_hash): [NEW],
        str(failed.payment_hash): [FAILED],
        str(unknown.payment_hash): [OutcomeUnknown("lost")],
    }
    announcer, lnd = FakeAnnouncer(), ByHash(known=None, says=[], words=words)
    ends = await _ride(teller, lnd, announcer, "lane-1", *asked)
    assert ends == ["settled", "failed", "left alone", "left alone", "insufficient_funds"]
    assert sorted(announcer.said) == sorted([paid.payment_id, failed.payment_id, dear.payment_id])
    assert await alice.balance() == (50_000_000 - 1_000_350, 2 * 1_010_000)
    for each, lane in ((paid, "lane-1"), (failed, "lane-1"), (unknown, _own(unknown)), (slow, _own(slow))):
        assert (await alice.get(f"/v1/payments/{each.payment_id}")).json()["workflow_id"] == lane
    told = await _open(teller, lnd, slow)
    assert told.attempt is not None
    assert lnd.sent == 4


def _own(asked: PaymentRequest) -> str:
    return workflow_ids.payment(asked.account_id, asked.idempotency_key)


async def test_no_other_workflow_takes_up_a_payment_that_a_lane_may_be_sending(teller: Teller, alice: User) -> None:
    """A repeat of the request met another API while the lane was under way. Later the lane has surely done with it."""
    asked, lnd = _request(alice), FakeLnd(known=None, says=[OutcomeUnknown("lost")])
    await ActivityEnvironment().run(partial(_payments(teller, lnd).open, asked, "lane-1", may_wait=True))
    with pytest.raises(Unavailable, match="may be sending it"):
        await _open(teller, lnd, asked)
    await teller.pool.execute("UPDATE bank.payments SET created_at = created_at - interval '10 seconds'")
    opened = await _open(teller, lnd, asked)
    assert opened.attempt is not None
    shown = (await alice.get(f"/v1/payments/{asked.payment_id}")).json()
    assert (lnd.sent, shown["workflow_id"]) == (1, _own(asked))


async def test_a_lane_that_died_with_its_worker_sends_nothing_when_it_is_done_again(
    teller: Teller, alice: User
) -> None:
    asked, lnd, announcer = _request(alice), FakeLnd(known=None, says=[OutcomeUnknown("lost")]), FakeAnnouncer()
    await ActivityEnvironment().run(partial(_payments(teller, lnd).open, asked, "lane-1", may_wait=True))
    assert await _ride(teller, lnd, announcer, "lane-1", asked) == ["left alone"]
    opened = await _open(teller, lnd, asked)
    assert opened.attempt is not None
    assert (lnd.sent, announcer.said) == (1, [])


async def test_with_every_place_taken_a_lane_is_opened_and_sent_from_the_queue(teller: Teller, alice: User) -> None:
    asked, lnd = _request(alice), FakeLnd(known=None, says=[NEW])
    payments = _payments(teller, lnd)
    with ExitStack() as places:
        for _ in range(4):
            assert places.enter_context(payments.direct_send.place())
        lanes = Lanes(teller.pool, chart.Chart(), payments, cast("Announcer", FakeAnnouncer()))
        lane = LaneRequest(items=[asked], over_lightning=True)
        (end,) = (await ActivityEnvironment().run(lanes.open_lane, lane)).outcomes
    assert (_end(end), lnd.sent) == ("left alone", 0)
    assert await alice.balance() == (50_000_000, 1_010_000)
