"""Two operators end a payment whose node cannot: over the API and on a real Postgres, with a node that is made up."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import pytest
import pytest_asyncio

from activities.forced_end import Decisions
from engine.bank import sending
from engine.clients.lnd.client import LndNode, NodePayment, NodePaymentStatus
from engine.clients.lnd.htlc import NodeHtlcs
from engine.contracts.payment import Approval, CarryOutDecision, LightningAttempt, OpenedPayment, PaymentOutcome
from engine.domain.errors import EngineError
from engine.domain.ids import AccountId, DecisionId, PaymentHash
from engine.domain.money import Msat
from engine.ledger import chart
from tests.fixtures.postgres import Database
from tests.helpers.api import Json, User, is_problem
from tests.helpers.payer import Payers, running_payers
from tests.helpers.sending import EMPTY

pytestmark = pytest.mark.integration

PATH = "/v1/admin/decisions"
FUNDS_MSAT, AMOUNT_MSAT = 1_000_000, 100_000


@dataclass
class MadeUpLnd:
    """Has no channel with an HTLC, and does not know the payment."""

    htlcs: NodeHtlcs = EMPTY
    known: NodePayment | None = None

    async def read_htlcs(self) -> NodeHtlcs:
        return self.htlcs

    async def find_payment(self, payment_hash: PaymentHash) -> NodePayment | None:
        return self.known


@dataclass
class Stuck:
    """A payment that waits, the operators, and the node that should know."""

    payers: Payers
    alice: User
    opened: OpenedPayment
    preimage: str
    carol: User
    dave: User
    node: MadeUpLnd = field(default_factory=MadeUpLnd)

    @property
    def attempt(self) -> LightningAttempt:
        assert self.opened.attempt is not None
        return self.opened.attempt

    async def wait_for(self, reason: str, *, needs_operator: bool) -> None:
        await self.payers.wait_for(self.attempt.payment_id, reason, needs_operator=needs_operator)

    async def propose(self, end: str = "failed", *, by: User | None = None, **more: Any) -> httpx.Response:
        body = {"payment_id": self.attempt.payment_id, "end": end, "reason": "looked at everything", **more}
        return await (by or self.carol).post(PATH, body)

    async def proposed(self, end: str = "failed", **more: Any) -> Json:
        answer = await self.propose(end, **more)
        assert answer.status_code == 201, answer.text
        found: Json = answer.json()
        return found

    async def carry_out(self, decision: Json, *, by: User | None = None) -> PaymentOutcome:
        """What the payment's workflow does at the update."""
        approval = Approval(
            decision=DecisionId(decision["id"]), operator=AccountId((by or self.dave).id), key_id="key_1", note="seen"
        )
        decisions = Decisions(cast("LndNode", self.node), self.payers.pool, chart.Chart())
        carry = CarryOutDecision(attempt=self.attempt, approval=approval, body_hash="ab")
        return await decisions.carry_out_decision(carry)

    async def payment(self) -> Json:
        found: Json = (await self.alice.get(f"/v1/payments/{self.attempt.payment_id}")).json()
        return found

    async def wallet(self) -> tuple[int, int]:
        """(available, held)"""
        found = (await self.alice.get(f"/v1/wallets/{self.alice.wallet_id}")).json()
        return found["available_msat"], found["held_msat"]


@pytest_asyncio.fixture
async def payers(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Payers]:
    async with running_payers(ledger_db, tmp_path) as payers:
        yield payers


@pytest_asyncio.fixture
async def stuck(payers: Payers) -> Stuck:
    """Its node forgot it."""
    alice = await payers.api.open_account()
    await payers.fund(alice, FUNDS_MSAT)
    preimage = secrets.token_hex(32)
    payment_hash = PaymentHash(hashlib.sha256(bytes.fromhex(preimage)).hexdigest())
    opened = await payers.pay(alice, None, AMOUNT_MSAT, payment_hash=payment_hash)
    carol, dave = [await payers.api.open_account(scopes=("finance",)) for _ in range(2)]
    stuck = Stuck(payers, alice, opened, preimage, carol, dave)
    await stuck.wait_for("node_forgot", needs_operator=True)
    return stuck


async def test_two_operators_give_the_money_back_once(stuck: Stuck) -> None:
    decision = await stuck.proposed()
    assert (decision["status"], decision["proposed_by"]) == ("proposed", stuck.carol.id)
    assert (await stuck.wallet())[1] > AMOUNT_MSAT
    for _ in range(2):
        assert (await stuck.carry_out(decision)).status == "failed"
    payment = await stuck.payment()
    assert (payment["status"], payment["failure"]["code"]) == ("failed", "released_by_operators")
    assert await stuck.wallet() == (FUNDS_MSAT, 0)
    done = (await stuck.dave.get(f"{PATH}/{decision['id']}")).json()
    assert (done["status"], done["decided_by"], done["note"]) == ("done", stuck.dave.id, "seen")
    asked = stuck.payers.request(stuck.alice, None, AMOUNT_MSAT, payment_hash=stuck.attempt.payment_hash)
    again = await stuck.payers.payments.open_payment(asked)
    assert again.outcome.refusal is not None
    assert again.outcome.refusal.code == "invoice_unpayable"


async def test_two_operators_settle_with_the_preimage_and_the_fee(stuck: Stuck) -> None:
    decision = await stuck.proposed("settled", preimage=stuck.preimage, fee_msat=350)
    assert (await stuck.carry_out(decision)).status == "settled"
    payment = await stuck.payment()
    assert (payment["status"], payment["fee_msat"], payment["preimage"]) == ("settled", 350, stuck.preimage)
    assert await stuck.wallet() == (FUNDS_MSAT - AMOUNT_MSAT - 350, 0)


async def test_both_words_stand_in_the_audit_trail_without_the_preimage(stuck: Stuck) -> None:
    decision = await stuck.proposed("settled", preimage=stuck.preimage)
    await stuck.carry_out(decision)
    answer = await stuck.carol.get("/v1/admin/audit", account=stuck.alice.id)
    lines = [(line["action"], line["operator"], line["subject"]) for line in answer.json()["items"][:2]]
    assert lines == [
        ("decision.approve", stuck.dave.id, decision["id"]),
        ("decision.propose", stuck.carol.id, decision["id"]),
    ]
    assert stuck.preimage not in answer.text


@pytest.mark.parametrize(
    ("reason", "needs_operator"), [("in_flight", False), ("lost_attempt", False), ("node_refuses", True)]
)
async def test_a_payment_that_ends_by_itself_is_not_decided(stuck: Stuck, reason: str, *, needs_operator: bool) -> None:
    """What its node never had is another matter: test_forced_end_never_begun.py."""
    async with stuck.payers.pool.acquire() as conn:
        await sending.note_begun(conn, stuck.attempt.payment_id)
    await stuck.wait_for(reason, needs_operator=needs_operator)
    is_problem(await stuck.propose(), 409, "payment_not_stuck")


@pytest.mark.parametrize(
    "body",
    [
        {"end": "settled"},
        {"end": "settled", "preimage": "00" * 32},
        {"end": "failed", "preimage": "00" * 32},
        {"end": "failed", "fee_msat": 1},
    ],
)
async def test_a_settlement_needs_its_proof_and_a_failure_has_none(stuck: Stuck, body: Json) -> None:
    is_problem(await stuck.propose(**body), 422, "invalid_request")


async def test_a_fee_above_the_cap_is_refused(stuck: Stuck) -> None:
    above = stuck.attempt.max_fee_msat + 1
    is_problem(await stuck.propose("settled", preimage=stuck.preimage, fee_msat=above), 422, "invalid_request")


def _known(stuck: Stuck, status: NodePaymentStatus, **more: Any) -> NodePayment:
    return NodePayment(
        payment_hash=stuck.attempt.payment_hash,
        status=status,
        fee_msat=Msat(0),
        preimage=None,
        failure_reason="FAILURE_REASON_NONE",
        payment_index=9,
        created_at=datetime.now(UTC),
        **more,
    )


async def test_a_payment_that_the_node_knows_or_may_still_have_is_not_overruled(stuck: Stuck) -> None:
    decision = await stuck.proposed()
    speaking = [
        MadeUpLnd(known=_known(stuck, NodePaymentStatus.SUCCEEDED)),
        MadeUpLnd(known=_known(stuck, NodePaymentStatus.FAILED)),
        MadeUpLnd(known=_known(stuck, NodePaymentStatus.IN_FLIGHT, time_lock=400, preimage_seen=True)),
        MadeUpLnd(known=_known(stuck, NodePaymentStatus.IN_FLIGHT, time_lock=488)),
        MadeUpLnd(known=_known(stuck, NodePaymentStatus.IN_FLIGHT)),
        MadeUpLnd(htlcs=replace(EMPTY, outgoing=frozenset({stuck.attempt.payment_hash}))),
        MadeUpLnd(htlcs=replace(EMPTY, closing=1)),
        MadeUpLnd(htlcs=replace(EMPTY, synced=False)),
    ]
    for node in speaking:
        stuck.node = node
        with pytest.raises(EngineError) as refused:
            await stuck.carry_out(decision)
        assert refused.value.code == "payment_not_stuck"
    assert (await stuck.payment())["status"] == "pending"
    stuck.node = MadeUpLnd(known=_known(stuck, NodePaymentStatus.IN_FLIGHT, time_lock=487))
    assert (await stuck.carry_out(decision)).status == "failed"


async def test_nobody_approves_what_he_proposed(stuck: Stuck) -> None:
    decision = await stuck.proposed()
    is_problem(await stuck.carol.post(f"{PATH}/{decision['id']}/approve", {}), 403, "own_proposal")
    with pytest.raises(EngineError) as refused:
        await stuck.carry_out(decision, by=stuck.carol)
    assert refused.value.code == "own_proposal"
    with pytest.raises(asyncpg.CheckViolationError, match="two_operators"):
        await stuck.payers.api.database.execute(
            """UPDATE bank.decisions SET status = 'done', decided_by = proposed_by, note = '',
                   decided_at = clock_timestamp()"""
        )


async def test_while_temporal_is_away_an_approval_says_so_and_changes_nothing(stuck: Stuck) -> None:
    decision = await stuck.proposed()
    is_problem(await stuck.dave.post(f"{PATH}/{decision['id']}/approve", {}), 503, "temporarily_unavailable")
    assert (await stuck.dave.get(f"{PATH}/{decision['id']}")).json() == decision


async def test_one_proposal_at_a_time_and_a_repeat_is_one(stuck: Stuck) -> None:
    first = await stuck.proposed()
    assert await stuck.proposed() == first
    is_problem(await stuck.propose(by=stuck.dave), 409, "decision_open")
    taken_back = await stuck.carol.post(f"{PATH}/{first['id']}/reject", {"reason": "the node is back"})
    assert (taken_back.status_code, taken_back.json()["status"]) == (200, "rejected"), taken_back.text
    is_problem(await stuck.dave.post(f"{PATH}/{first['id']}/approve", {}), 409, "decision_made")
    second = (await stuck.propose(by=stuck.dave)).json()
    listed = (await stuck.carol.get(PATH)).json()["items"]
    assert [each["id"] for each in listed] == [second["id"], first["id"]]
    with pytest.raises(EngineError) as refused:
        await stuck.carry_out(first)
    assert refused.value.code == "decision_made"


async def test_a_payment_that_has_ended_meanwhile_stays_as_it_is(stuck: Stuck) -> None:
    decision = await stuck.proposed("settled", preimage=stuck.preimage)
    await stuck.payers.release(stuck.opened)
    is_problem(await stuck.dave.post(f"{PATH}/{decision['id']}/approve", {}), 409, "payment_not_stuck")
    is_problem(await stuck.propose(), 409, "payment_not_stuck")
    with pytest.raises(EngineError) as refused:
        await stuck.carry_out(decision)
    assert refused.value.code == "payment_not_stuck"
    assert await stuck.wallet() == (FUNDS_MSAT, 0)


async def test_only_finance_decides(stuck: Stuck) -> None:
    support = await stuck.payers.api.open_account(scopes=("support", "treasury"))
    is_problem(await stuck.propose(by=support), 403, "forbidden")
