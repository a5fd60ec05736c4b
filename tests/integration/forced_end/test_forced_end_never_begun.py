"""What its node never had two operators may end, whatever it waits for: on a real Postgres, with a made-up node."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from activities import forced_end
from activities.forced_end import Decisions
from engine.bank import sending
from engine.clients.lnd.client import LndNode, NodePayment, NodePaymentStatus
from engine.clients.lnd.htlc import NodeHtlcs
from engine.contracts.payment import Approval, CarryOutDecision, LightningAttempt, PaymentOutcome
from engine.domain.errors import EngineError, InvariantBroken, OutcomeUnknown, Unavailable
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
STALLS = ("node_unavailable", "outcome_unknown", "ledger_unavailable", "sending", "send_refused", "node_refuses")


@dataclass
class Looks:
    """A node that answers looks from a script; the last answer stays."""

    says: list[NodePayment | Exception | None]
    htlcs: NodeHtlcs | Exception = EMPTY
    looks: int = 0

    async def read_htlcs(self) -> NodeHtlcs:
        if isinstance(self.htlcs, Exception):
            raise self.htlcs
        return self.htlcs

    async def find_payment(self, _payment_hash: PaymentHash) -> NodePayment | None:
        self.looks += 1
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return said


@dataclass
class Untold:
    """A payment that waits and never began, and two operators."""

    payers: Payers
    alice: User
    attempt: LightningAttempt
    carol: User
    dave: User

    async def wait_for(self, reason: str, *, needs_operator: bool = True) -> None:
        await self.payers.wait_for(self.attempt.payment_id, reason, needs_operator=needs_operator)

    async def proposed(self) -> Json:
        body = {"payment_id": self.attempt.payment_id, "end": "failed", "reason": "it cannot go on"}
        answer = await self.carol.post(PATH, body)
        assert answer.status_code == 201, answer.text
        found: Json = answer.json()
        return found

    async def carry_out(self, decision: Json, node: Looks, *, may_be_sending: bool = True) -> PaymentOutcome:
        approval = Approval(decision=DecisionId(decision["id"]), operator=AccountId(self.dave.id), key_id="key_1")
        carry = CarryOutDecision(attempt=self.attempt, approval=approval, body_hash="ab", may_be_sending=may_be_sending)
        decisions = Decisions(cast("LndNode", node), self.payers.pool, chart.Chart())
        return await decisions.carry_out_decision(carry)

    async def held_msat(self) -> int:
        found = (await self.alice.get(f"/v1/wallets/{self.alice.wallet_id}")).json()
        held: int = found["held_msat"]
        return held

    async def node_is_away(self) -> None:
        await self.payers.api.database.execute("UPDATE bank.nodes SET reported_at = reported_at - interval '1 hour'")


@pytest_asyncio.fixture
async def payers(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Payers]:
    async with running_payers(ledger_db, tmp_path) as payers:
        yield payers


@pytest_asyncio.fixture
async def untold(payers: Payers) -> Untold:
    alice = await payers.api.open_account()
    await payers.fund(alice, FUNDS_MSAT)
    opened = await payers.pay(alice, None, AMOUNT_MSAT)
    assert opened.attempt is not None
    carol, dave = [await payers.api.open_account(scopes=("finance",)) for _ in range(2)]
    return Untold(payers, alice, opened.attempt, carol, dave)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds between two looks are for a real node."""
    monkeypatch.setattr(forced_end, "REFUSAL_REST_S", 0)


@pytest.mark.parametrize("reason", STALLS)
async def test_a_payment_that_needs_an_operator_can_be_decided_for_every_reason_to_wait(
    untold: Untold, reason: str
) -> None:
    await untold.wait_for(reason, needs_operator=False)
    body = {"payment_id": untold.attempt.payment_id, "end": "failed", "reason": "it cannot go on"}
    is_problem(await untold.carol.post(PATH, body), 409, "payment_not_stuck")
    await untold.wait_for(reason)
    await untold.proposed()


async def test_a_payment_that_its_node_has_had_is_decided_for_the_old_reasons_only(untold: Untold) -> None:
    async with untold.payers.pool.acquire() as conn:
        await sending.note_begun(conn, untold.attempt.payment_id)
    body = {"payment_id": untold.attempt.payment_id, "end": "failed", "reason": "it cannot go on"}
    for reason in STALLS:
        await untold.wait_for(reason)
        is_problem(await untold.carol.post(PATH, body), 409, "payment_not_stuck")
    await untold.wait_for("channels_in_doubt")
    await untold.proposed()


async def test_the_node_is_asked_twice(untold: Untold) -> None:
    await untold.wait_for("outcome_unknown")
    node = Looks(says=[None])
    assert (await untold.carry_out(await untold.proposed(), node)).status == "failed"
    assert (node.looks, await untold.held_msat()) == (2, 0)


async def test_a_payment_found_by_the_second_look_is_not_overruled(untold: Untold) -> None:
    """A send that was taken back had told its node a moment ago."""
    await untold.wait_for("outcome_unknown")
    decision = await untold.proposed()
    known = NodePayment(
        payment_hash=untold.attempt.payment_hash,
        status=NodePaymentStatus.IN_FLIGHT,
        fee_msat=Msat(0),
        preimage=None,
        failure_reason="FAILURE_REASON_NONE",
        payment_index=9,
        created_at=datetime.now(UTC),
        time_lock=900,
    )
    for found in (known, replace(known, status=NodePaymentStatus.SUCCEEDED), replace(known, time_lock=0)):
        for htlcs in (EMPTY, Unavailable("bitcoind is away")):
            with pytest.raises(EngineError) as refused:
                await untold.carry_out(decision, Looks(says=[None, found], htlcs=htlcs))
            assert refused.value.code == "payment_not_stuck"
    assert await untold.held_msat() > AMOUNT_MSAT


async def test_a_node_without_its_chain_can_tell_that_it_never_had_it(untold: Untold) -> None:
    await untold.wait_for("node_unavailable")
    decision = await untold.proposed()
    behind = Looks(says=[None], htlcs=Unavailable("GetInfo has no answer"))
    assert (await untold.carry_out(decision, behind)).status == "failed"


async def test_a_node_that_is_away_is_waited_for_until_it_is_long_away(untold: Untold) -> None:
    await untold.wait_for("node_unavailable")
    decision = await untold.proposed()
    away = Looks(says=[Unavailable("connection refused")], htlcs=Unavailable("connection refused"))
    with pytest.raises(Unavailable):
        await untold.carry_out(decision, away)
    await untold.node_is_away()
    with pytest.raises(Unavailable):  # it has had it: nobody can know
        await untold.carry_out(decision, away, may_be_sending=False)
    assert await untold.held_msat() > AMOUNT_MSAT
    assert (await untold.carry_out(decision, away)).status == "failed"
    assert await untold.held_msat() == 0


@pytest.mark.parametrize("reported", ["now", "long ago"])
async def test_a_node_that_answers_is_looked_at_however_long_it_was_away(untold: Untold, reported: str) -> None:
    await untold.wait_for("node_unavailable")
    decision = await untold.proposed()
    if reported == "long ago":
        await untold.node_is_away()
    node = Looks(says=[None])
    assert (await untold.carry_out(decision, node)).status == "failed"
    assert node.looks >= 2


async def test_a_node_that_refuses_our_access_is_mended_first_unless_that_lasts(untold: Untold) -> None:
    await untold.wait_for("node_refuses")
    decision = await untold.proposed()
    broken = Looks(says=[InvariantBroken("permission denied", code="node_refuses")], htlcs=OutcomeUnknown("?"))
    with pytest.raises(EngineError) as refused:
        await untold.carry_out(decision, broken)
    assert refused.value.code == "payment_not_stuck"
    await untold.node_is_away()
    assert (await untold.carry_out(decision, broken)).status == "failed"
