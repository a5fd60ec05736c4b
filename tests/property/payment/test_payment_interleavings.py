"""Two keys, one invoice: every order in which two payments of it can be opened, sent and ended, on a real PostgreSQL.

What is forced is the order of statements and of the node's words; what must hold is the same in all of them. Nothing is
sent without its money being held, under a hold of its own, and with the newest that its node has said known. There is
one live hold of a hash at the most. In the end each payment's row is what its hold says, the node has paid what the
books have booked, and nobody has met a contradiction.

The node is made up behind the interface of the real one. It takes a hash again once it has failed, as LND does, and its
words come when it is their turn.
"""

import hashlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast
from unittest.mock import Mock

import asyncpg
import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities import direct_send
from activities.batch import Batches
from activities.direct_send import DirectSend
from activities.invoice import Receipts
from activities.lane import Lanes
from activities.payment import Payments
from activities.sending import sending
from activities.sending.sending import Sending
from engine.clients.lnd.client import LndNode, NodePayment, NodePaymentStatus
from engine.contracts import workflow_ids
from engine.contracts.batch import BatchItem, BatchOutcome, BatchRequest
from engine.contracts.invoice import Receipt
from engine.contracts.lane import LaneRequest
from engine.contracts.payment import (
    AttemptReport,
    NodeVerdict,
    PaymentOutcome,
    PaymentRequest,
    PaymentStatus,
    release,
    settlement,
)
from engine.domain.errors import InvariantBroken
from engine.domain.ids import BatchId, PaymentHash, WithdrawLinkId
from engine.domain.money import Msat
from engine.ledger.chart import Chart
from engine.ledger.database import Connection, Pool
from tests.fixtures.postgres import Database
from tests.helpers.api import User
from tests.helpers.payer import NODE, Payers, running_payers
from tests.helpers.schedule import DATABASE, Actor, Run, Seat, explore, nothing, open_seat
from tests.helpers.sending import FakeLnd, payment

pytestmark = [pytest.mark.property, pytest.mark.timeout(600)]

STEPS = {
    "AS attempts": "reads the attempts before it",
    "INSERT INTO bank.payments": "writes its row",
    "SET workflow_id": "hands it over",
    "FOR UPDATE OF p": "locks its row",
    "FOR UPDATE OF i": "locks the invoice",
    "FROM ledger.post": "posts",
    "COMMIT;": "commits",
}
AMOUNT, CAP, FEE = Msat(1_000_000), Msat(10_000), Msat(350)
FIRST_FAILS = [NodePaymentStatus.FAILED, NodePaymentStatus.SUCCEEDED]
_numbers = itertools.count(1)

_HELD = """
SELECT t.external_ref AS ref,
       (SELECT sum(e.amount) FROM ledger.entries e WHERE e.transfer_id = t.id AND e.amount > 0) AS held
  FROM ledger.transfers t WHERE t.external_ref = ANY ($1::text[]) AND t.phase = 'hold'
   AND NOT EXISTS (SELECT FROM ledger.resolutions r WHERE r.target_id = t.id)"""
_ENDS = """
SELECT p.status, p.attempt, r.phase FROM bank.payments p
  JOIN ledger.transfers h ON h.external_ref = 'ln:' || p.payment_hash || ':hold:' || p.attempt
  LEFT JOIN LATERAL (SELECT t.phase FROM ledger.resolutions s JOIN ledger.transfers t ON t.id = s.transfer_id
                      WHERE s.target_id = h.id) r ON true
 WHERE p.payment_hash = $1 ORDER BY p.attempt"""
_LEFT_THE_CHANNELS = """
SELECT -coalesce(sum(e.amount), 0)::bigint FROM ledger.transfers t JOIN ledger.entries e ON e.transfer_id = t.id
  JOIN ledger.accounts a ON a.id = e.account_id
 WHERE t.external_ref = 'ln:' || $1::text || ':settle' AND a.code = 'asset:lnd:lnd-1:channels'"""


@dataclass
class World:
    """One hash, what a node knows of it, and what of it is in the books."""

    observer: Connection
    payment_hash: PaymentHash
    ends: list[NodePaymentStatus]
    """How the node's payments of the hash end, one after the other."""
    made: list[NodePayment] = field(default_factory=list)
    paid_msat: int = 0

    async def live_holds(self) -> list[asyncpg.Record]:
        """Of the first attempts, of which there are two at the most."""
        refs = [f"ln:{self.payment_hash}:hold:{attempt}" for attempt in range(1, 6)]
        found: list[asyncpg.Record] = await self.observer.fetch(_HELD, refs)
        return found

    async def one_live_hold_at_most(self) -> None:
        held = await self.live_holds()
        assert len(held) <= 1, held

    async def require_held(self, asked: PaymentRequest) -> None:
        """What the node is told now is held, for this payment alone, and is not mistaken for what it said before."""
        row = await self.observer.fetchrow(
            "SELECT status, attempt, known_payment_index FROM bank.payments WHERE id = $1", asked.payment_id
        )
        assert row is not None
        held = await self.live_holds()
        wanted = [(f"ln:{self.payment_hash}:hold:{row['attempt']}", asked.amount_msat + asked.max_fee_msat)]
        assert row["status"] == "pending", "sent when nothing was held any more"
        assert [tuple(each) for each in held] == wanted, "sent with nothing held for it"
        failed = [each.payment_index for each in self.made if each.status is NodePaymentStatus.FAILED]
        assert row["known_payment_index"] == max(failed, default=0), "old news would be taken for new"


@dataclass
class Node(FakeLnd):
    """The world's node as one actor meets it."""

    world: World = field(kw_only=True)
    actor: Actor = field(kw_only=True)
    asked: PaymentRequest = field(kw_only=True)

    async def find_payment(self, _payment_hash: PaymentHash) -> NodePayment | None:
        self.actor.meets(NODE)
        return self.world.made[-1] if self.world.made else None

    def send_payment(self, **_order: object) -> AsyncGenerator[NodePayment, None]:
        return self._pay()

    def follow_payment(self, _payment_hash: PaymentHash) -> AsyncGenerator[NodePayment, None]:
        self.actor.meets(NODE)
        return self._tell(self.world.made[-1].payment_index)

    async def _pay(self) -> AsyncGenerator[NodePayment, None]:
        await self.actor.pause("sends")
        self.actor.meets(NODE)
        self.actor.read.add(DATABASE)
        await self.world.require_held(self.asked)
        made = self.world.made
        if not made or made[-1].status is NodePaymentStatus.FAILED:
            index = made[-1].payment_index + 1 if made else next(_numbers)
            made.append(payment(NodePaymentStatus.IN_FLIGHT, index))
        async for word in self._tell(made[-1].payment_index):
            yield word

    async def _tell(self, index: int) -> AsyncGenerator[NodePayment, None]:
        made = self.world.made
        place = next(place for place, each in enumerate(made) if each.payment_index == index)
        if made[place].status is NodePaymentStatus.IN_FLIGHT:
            yield made[place]
            await self.actor.pause("hears the end")
            self.actor.meets(NODE)
            made[place] = payment(self.world.ends[place], index, "FAILURE_REASON_NO_ROUTE")
            if made[place].status is NodePaymentStatus.SUCCEEDED:
                self.world.paid_msat += self.asked.amount_msat + FEE
        yield made[place]


@dataclass
class Payer:
    """A worker that carries one payment from its opening to its end, in one of the ways."""

    payments: Payments
    lanes: Lanes
    pool: Pool

    async def pay(self, way: str, node: Node) -> PaymentOutcome:
        asked, door = node.asked, Sending(cast("LndNode", node), self.pool)
        self.payments.direct_send = DirectSend({NODE: door} if way == "at once" else {}, most=4)
        if way == "lane":
            left = await self.lanes.open_lane(LaneRequest(items=[asked], over_lightning=True))
            if left.outcomes[0].is_final:
                return left.outcomes[0]
        opened = await self.payments.open(
            asked, workflow_ids.payment(asked.account_id, asked.idempotency_key), may_wait=True
        )
        if opened.attempt is None:
            return opened.outcome
        report = AttemptReport(verdict=NodeVerdict.IN_FLIGHT)
        while report.verdict is NodeVerdict.IN_FLIGHT:
            report = await door.send(opened.attempt)
        if report.verdict is NodeVerdict.SUCCEEDED:
            return await self.payments.settle_payment(settlement(asked, report))
        return await self.payments.release_payment(release(asked, report))


@dataclass
class Stage:
    """Where every order is played."""

    payers: Payers
    user: User
    seats: list[Seat]
    workers: list[Payer]
    observer: Connection
    witness: Connection
    """Of those who act, where the first is the scheduler's."""
    reduced: bool
    """Of orders that differ in nothing that anybody notices, one is taken."""
    steps: set[str] = field(default_factory=set)
    """Those of the orders that were played last."""

    async def play(self, way: str, amounts: list[Msat], ends: list[NodePaymentStatus]) -> int:
        """Every order of two payments of one hash; gives how many there were."""
        self.steps.clear()
        world: World
        environment = ActivityEnvironment()

        async def start(run: Run) -> Callable[[], Awaitable[None]]:
            nonlocal world
            number = next(_numbers)
            world = World(self.witness, PaymentHash(hashlib.sha256(str(number).encode()).hexdigest()), ends)
            links = [await self._link(each) if "withdraw" in way else None for each in amounts]
            if way == "one withdraw link":
                links[1] = links[0]
            for name, seat, worker, amount, link in zip("AB", self.seats, self.workers, amounts, links, strict=True):
                actor = run.actor(name, seat)
                asked = self.payers.request(
                    self.user, None, amount, key=f"{number}{name}", payment_hash=world.payment_hash,
                    max_fee_msat=CAP, withdraw_link_id=link,
                )  # fmt: skip
                node = Node(known=None, says=[], world=world, actor=actor, asked=asked)
                actor.begins(environment.run(worker.pay, way, node))
            return world.one_live_hold_at_most

        async def check(run: Run) -> None:
            self.steps.update(step.partition(" ")[2] for step in run.order)
            outcomes = [cast("PaymentOutcome", actor.task.result()) for actor in run.actors if actor.task]
            await self._check(world, outcomes)

        return await explore(self.observer, start, check, alike=amounts[0] == amounts[1], reduced=self.reduced)

    async def _check(self, world: World, outcomes: list[PaymentOutcome]) -> None:
        refused = [outcome.refusal.code for outcome in outcomes if outcome.refusal]
        assert set(refused) <= {"payment_in_progress", "invoice_already_paid"}, refused
        rows = [tuple(row) for row in await self.observer.fetch(_ENDS, world.payment_hash)]
        ended = {"settled": "settle", "failed": "void"}
        statuses = [str(outcome.status) for outcome in outcomes if outcome.status]
        assert sorted(status for status, _attempt, _phase in rows) == sorted(statuses)
        assert rows == [(status, number, ended[status]) for number, (status, _, _) in enumerate(rows, 1)]
        assert await self.observer.fetchval(_LEFT_THE_CHANNELS, world.payment_hash) == world.paid_msat
        assert statuses.count(PaymentStatus.SETTLED) == (world.paid_msat > 0)

    async def _link(self, amount: Msat) -> WithdrawLinkId:
        link = f"wdl_{next(_numbers)}"
        await self.observer.execute(
            """INSERT INTO bank.withdraw_links(id, account_id, wallet_id, key_id, amount_msat, uses, uses_left)
               SELECT $1, w.account_id, w.id, (SELECT max(k.id) FROM bank.api_keys k WHERE k.account_id = w.account_id),
                      $3, 2, 2 FROM bank.wallets w WHERE w.id = $2""",
            link,
            self.user.wallet_id,
            amount,
        )
        return WithdrawLinkId(link)


@pytest_asyncio.fixture(scope="module")
async def stage(
    shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> AsyncIterator[Stage]:
    """One for all: each order has a hash and keys of its own. What is bounded by time is not, while others act."""
    limits = ((direct_send, "_FOLLOW_S"), (direct_send, "_ALL_S"), (direct_send, "_NEW_S"), (sending, "_FOLLOW_S"))
    async with running_payers(shared_ledger_db, tmp_path_factory.mktemp("api")) as payers:
        user = await payers.api.open_account()
        await payers.fund(user, 1_000_000_000_000)
        observer, witness = [await asyncpg.connect(shared_ledger_db.superuser_dsn) for _ in range(2)]
        seats = [await open_seat(shared_ledger_db.app_dsn, STEPS) for _ in "AB"]
        workers: list[Payer] = []
        for seat in seats:
            payments = Payments(seat.pool, Chart())
            lanes = Lanes(seat.pool, Chart(), payments, Mock())  # nobody waits for an announcement
            workers.append(Payer(payments, lanes, seat.pool))
        with pytest.MonkeyPatch.context() as monkeypatch:
            for module, limit in limits:
                monkeypatch.setattr(module, limit, 600)
            reduced = not pytestconfig.getoption("--whole-length")
            yield Stage(payers, user, seats, workers, observer, witness, reduced)
        for seat in seats:
            await seat.pool.close()
        await observer.close()
        await witness.close()


@pytest.mark.parametrize("first", [NodePaymentStatus.SUCCEEDED, NodePaymentStatus.FAILED])
async def test_two_keys_for_one_invoice_that_the_node_does_not_pay_second_in_every_order(
    stage: Stage, first: NodePaymentStatus
) -> None:
    """It pays what it makes first, so there is no second; or none of them."""
    assert await stage.play("single", [AMOUNT, AMOUNT], [first, NodePaymentStatus.FAILED]) > 1


@pytest.mark.parametrize("way", ["single", "lane", "at once", "withdraw links", "one withdraw link"])
async def test_two_keys_for_one_invoice_in_every_order(stage: Stage, way: str) -> None:
    """The node fails what it makes first, and pays what it makes second."""
    assert await stage.play(way, [AMOUNT, AMOUNT], FIRST_FAILS) > 1
    assert {*STEPS.values()} - stage.steps <= {"hands it over"}, "a statement that has a name is there no more"


async def test_two_keys_for_one_invoice_that_take_no_turn_are_caught(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault that the turn of a hash mended: what the second knows of the attempts before it is old news."""
    monkeypatch.setattr("engine.bank.sending.take_turn_in_tx", nothing)
    with pytest.raises(InvariantBroken, match="one_payment_of_an_attempt"):
        await stage.play("single", [AMOUNT, AMOUNT], FIRST_FAILS)


@pytest.mark.parametrize("way", ["single", "lane", "at once", "withdraw links"])
async def test_two_keys_for_one_invoice_with_two_amounts_in_every_order(stage: Stage, way: str) -> None:
    """An invoice that names no amount."""
    assert await stage.play(way, [AMOUNT, Msat(2_000_000)], FIRST_FAILS) > 1


@dataclass
class Insider:
    """A worker that pays an invoice of ours, or hears that somebody outside has paid it."""

    payer: Payer
    batches: Batches
    receipts: Receipts

    async def act(self, way: str, asked: PaymentRequest) -> str:
        """How it ended."""
        if way == "receipt":
            receipt = Receipt(payment_hash=PaymentHash(asked.payment_hash or ""), node=NODE, received_msat=AMOUNT)
            return "credited" if (await self.receipts.credit_receipt(receipt)).credited else "known"
        if way == "batch":
            return _end(await self.batches.open_batch(_batch(asked)))
        if way == "lane":
            return _end((await self.payer.lanes.open_lane(LaneRequest(items=[asked]))).outcomes[0])
        workflow_id = workflow_ids.payment(asked.account_id, asked.idempotency_key)
        return _end((await self.payer.payments.open(asked, workflow_id, may_wait=True)).outcome)


def _end(outcome: PaymentOutcome | BatchOutcome) -> str:
    return outcome.refusal.code if outcome.refusal else "settled"


def _batch(asked: PaymentRequest) -> BatchRequest:
    assert asked.api_key_id is not None
    item = BatchItem(destination=asked.destination, amount_msat=asked.amount_msat, payment_hash=asked.payment_hash)
    return BatchRequest(
        batch_id=BatchId(f"bat_{next(_numbers)}"),
        account_id=asked.account_id,
        wallet_id=asked.wallet_id,
        idempotency_key=asked.idempotency_key,
        body_hash=asked.body_hash,
        api_key_id=asked.api_key_id,
        items=[item],
    )


@pytest.mark.parametrize(
    "ways", [("single", "single"), ("single", "lane"), ("lane", "batch"), ("single", "receipt"), ("batch", "receipt")]
)
async def test_an_invoice_of_ours_is_paid_once_from_inside_in_every_order(stage: Stage, ways: tuple[str, str]) -> None:
    """Its row is its hash's turn. Late from inside is refused; late from outside is money all the same."""
    payee = await stage.payers.api.open_account()
    insiders = [
        Insider(worker, Batches(seat.pool, Chart()), Receipts(seat.pool, Chart()))
        for worker, seat in zip(stage.workers, stage.seats, strict=True)
    ]
    before = 0

    async def start(run: Run) -> Callable[[], Awaitable[None]]:
        nonlocal before
        before = await _balance(payee)
        made = (await payee.post("/v1/invoices", {"wallet_id": payee.wallet_id, "amount_msat": AMOUNT})).json()
        number = next(_numbers)
        for name, seat, insider, way in zip("AB", stage.seats, insiders, ways, strict=True):
            asked = stage.payers.request(
                stage.user, None, AMOUNT, key=f"{number}{name}", payment_hash=made["payment_hash"],
                bolt11=made["bolt11"], max_fee_msat=Msat(0),
            )  # fmt: skip
            run.actor(name, seat).begins(ActivityEnvironment().run(insider.act, way, asked))
        return nothing

    async def check(run: Run) -> None:
        ends = [str(actor.task.result()) for actor in run.actors if actor.task]
        late = {"invoice_already_paid", "settled"}
        assert set(ends) in ([{"credited", end} for end in late] if "receipt" in ways else [late])
        assert await _balance(payee) - before == AMOUNT * sum(end in ("settled", "credited") for end in ends)

    assert await explore(stage.observer, start, check, alike=ways[0] == ways[1], reduced=stage.reduced) > 1


async def _balance(user: User) -> int:
    balance: int = (await user.get(f"/v1/wallets/{user.wallet_id}")).json()["balance_msat"]
    return balance
