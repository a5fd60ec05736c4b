"""Two operators decide about a deposit: over the API and in the real books, without Temporal and bitcoind."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from activities.deposit.decision import DepositDecisions
from engine.bank.audit import find_proposer_key
from engine.bank.chain.coin import SeenCoin, record_in_tx
from engine.contracts.deposit import DecideDeposit, DepositApproval
from engine.domain.errors import EngineError
from engine.domain.ids import AccountId, DepositDecisionId, DepositId
from engine.ledger.chart import Chart
from engine.ledger.database import transaction
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Json, User, is_problem
from tests.helpers.ledger.deposit import Depositor
from tests.helpers.payer import Payers, running_payers

pytestmark = pytest.mark.integration

PATH = "/v1/admin/deposit-decisions"
SAT = 1_000
FEE_SAT = 7
AMOUNT_SAT = 50_000


@dataclass
class Desk:
    """A user, two operators and the books."""

    payers: Payers
    depositor: Depositor
    alice: User
    carol: User
    dave: User

    def __post_init__(self) -> None:
        self.decisions = DepositDecisions(self.payers.pool, Chart())

    async def propose(self, deposit: str, kind: str, *, by: User | None = None, **more: Any) -> httpx.Response:
        body = {"kind": kind, "reason": "seen the papers", **more}
        return await (by or self.carol).post(f"/v1/admin/deposits/{deposit}/decisions", body)

    async def proposed(self, deposit: str, kind: str, **more: Any) -> Json:
        answer = await self.propose(deposit, kind, **more)
        assert answer.status_code == 201, answer.text
        found: Json = answer.json()
        assert answer.headers["location"] == f"{PATH}/{found['id']}"
        return found

    async def carry_out(self, decision: Json, *, by: User | None = None) -> str:
        """What the deposit's workflow does at the update."""
        approval = DepositApproval(
            decision=DepositDecisionId(decision["id"]),
            operator=AccountId((by or self.dave).id),
            key_id="key_1",
            note="seen",
        )
        asked = DecideDeposit(deposit=DepositId(decision["deposit_id"]), approval=approval)
        return await self.decisions.decide_deposit(asked)

    async def refusal_of(self, decision: Json, *, by: User | None = None) -> str:
        with pytest.raises(EngineError) as refused:
            await self.carry_out(decision, by=by)
        return refused.value.code

    async def show(self, decision: Json) -> Json:
        found: Json = (await self.carol.get(f"{PATH}/{decision['id']}")).json()
        return found

    async def deposit(self, deposit: str) -> Json:
        (found,) = (await self.carol.get("/v1/admin/chain/search", q=deposit)).json()["deposits"]
        assert isinstance(found, dict)
        return found

    async def receivable(self, deposit: str) -> Json:
        (found,) = (await self.carol.get("/v1/admin/chain/search", q=deposit)).json()["receivables"]
        assert isinstance(found, dict)
        return found

    async def has_coin(self, deposit: str) -> None:
        """As the pump records it."""
        found = await self.deposit(deposit)
        coin = SeenCoin(
            txid=found["txid"],
            vout=found["vout"],
            amount_sat=found["amount_sat"],
            address=found["address"],
            change=False,
            block_height=found["block_height"],
        )
        async with transaction(self.payers.pool) as conn:
            await record_in_tx(conn, [coin], [], unmined=[], gone=[])

    async def origins(self, deposit: str) -> list[str]:
        (coin,) = (await self.carol.get("/v1/admin/chain/search", q=deposit)).json()["coins"]
        return list(coin["origins"])

    async def held(self, height: int = 100) -> DepositId:
        found = await self.depositor.see(self.alice, AMOUNT_SAT, over_limit=True)
        assert (await self.depositor.book(found, height)).status == "held"
        return found

    async def unattributed(self, height: int = 100) -> DepositId:
        found = await self.depositor.see(None, AMOUNT_SAT)
        assert (await self.depositor.book(found, height)).status == "unattributed"
        return found

    async def owed(self) -> DepositId:
        """Credited, spent, and taken back: all of it is owed."""
        found = await self.depositor.see(self.alice, AMOUNT_SAT)
        await self.depositor.book(found, 100)
        await self.spend()
        assert await self.depositor.take_back(found) > 0
        return found

    async def spend(self) -> None:
        """Pay everything to somebody else."""
        payee = await self.payers.api.open_account()
        all_msat = await self.alice.available()
        assert await self.payers.outcome(self.alice, payee, all_msat) == "settled"

    async def balance(self, code: str) -> int:
        """In msat, debit +."""
        found = (await self.carol.get(f"/v1/admin/ledger/accounts/{code}/balance")).json()
        return int(found["settled_msat"])

    async def status_of(self, user: User) -> str:
        return str((await self.payers.api.http.get(f"/v1/admin/accounts/{user.id}", headers=ADMIN)).json()["status"])


@pytest_asyncio.fixture
async def desk(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Desk]:
    async with running_payers(ledger_db, tmp_path) as payers:
        depositor = Depositor(payers.pool)
        await depositor.reach(99)
        await depositor.charge([{"flat_msat": FEE_SAT * SAT}])
        alice = await payers.api.open_account()
        carol, dave = [await payers.api.open_account(scopes=("finance",)) for _ in range(2)]
        yield Desk(payers, depositor, alice, carol, dave)


async def test_two_operators_release_a_held_deposit_once(desk: Desk) -> None:
    deposit = await desk.held()
    decision = await desk.proposed(deposit, "release")
    assert (decision["status"], decision["proposed_by"]) == ("proposed", desk.carol.id)
    assert decision["amount_msat"] == AMOUNT_SAT * SAT
    assert await desk.alice.available() == 0
    ref = await desk.carry_out(decision)
    assert await desk.carry_out(decision) == ref
    assert await desk.alice.available() == (AMOUNT_SAT - FEE_SAT) * SAT
    found = await desk.deposit(deposit)
    assert (found["status"], found["place"], found["release_ref"]) == ("credited", "pending", ref)
    assert (found["fee_msat"], found["fee_version"]) == (FEE_SAT * SAT, 2)
    done = await desk.show(decision)
    assert (done["status"], done["decided_by"], done["note"], done["ref"]) == ("done", desk.dave.id, "seen", ref)
    is_problem(await desk.propose(deposit, "release"), 409, "deposit_not_waiting")


async def test_a_deposit_below_the_minimum_is_released_even_when_it_lies_deep(desk: Desk) -> None:
    deposit = await desk.depositor.see(desk.alice, 100, below_minimum=True)
    assert (await desk.depositor.book(deposit, 100)).status == "below_minimum"
    await desk.depositor.reach(200)
    await desk.carry_out(await desk.proposed(deposit, "release"))
    assert await desk.alice.available() == (100 - FEE_SAT) * SAT


async def test_two_operators_attribute_what_is_nobodys(desk: Desk) -> None:
    deposit = await desk.unattributed()
    await desk.has_coin(deposit)
    assert await desk.origins(deposit) == ["unknown"]
    decision = await desk.proposed(deposit, "attribute", wallet_id=desk.alice.wallet_id)
    await desk.carry_out(decision)
    assert await desk.origins(deposit) == [desk.alice.id]
    assert await desk.alice.available() == (AMOUNT_SAT - FEE_SAT) * SAT
    found = await desk.deposit(deposit)
    assert (found["account_id"], found["wallet_id"], found["place"]) == (
        desk.alice.id,
        desk.alice.wallet_id,
        "suspense",
    )
    (own,) = (await desk.alice.get("/v1/deposits")).json()["items"]
    assert (own["id"], own["status"]) == (deposit, "credited")


async def test_a_decision_that_a_deposit_does_not_need_is_refused(desk: Desk) -> None:
    held, unattributed = await desk.held(), await desk.unattributed()
    waiting = await desk.depositor.see(desk.alice, AMOUNT_SAT)
    credited = await desk.depositor.see(desk.alice, AMOUNT_SAT)
    await desk.depositor.book(credited, 100)
    named: Json = {"wallet_id": desk.alice.wallet_id}
    for deposit, kind, more in (
        (held, "attribute", named),
        (held, "forgive", {}),
        (unattributed, "release", {}),
        (waiting, "release", {}),
        (credited, "release", {}),
    ):
        is_problem(await desk.propose(deposit, kind, **more), 409, "deposit_not_waiting")
    for deposit, kind, more in (
        (unattributed, "attribute", {}),
        (held, "release", named),
        (held, "release", {"reason": " "}),
        (held, "give", {}),
    ):
        is_problem(await desk.propose(deposit, kind, **more), 422, "invalid_request")
    is_problem(await desk.propose("dep_none", "release"), 404, "not_found")
    is_problem(await desk.propose(unattributed, "attribute", wallet_id="wal_none"), 404, "not_found")
    is_problem(await desk.propose(held, "release", by=desk.alice), 403, "forbidden")


async def test_one_proposal_is_open_at_a_time(desk: Desk) -> None:
    deposit = await desk.unattributed()
    wallet_id = desk.alice.wallet_id
    first = await desk.proposed(deposit, "attribute", wallet_id=wallet_id)
    assert (await desk.proposed(deposit, "attribute", wallet_id=wallet_id))["id"] == first["id"]
    other = await desk.payers.api.open_account()
    answer = await desk.propose(deposit, "attribute", wallet_id=other.wallet_id)
    is_problem(answer, 409, "decision_open")
    is_problem(await desk.propose(deposit, "attribute", wallet_id=wallet_id, by=desk.dave), 409, "decision_open")
    for _ in range(2):
        rejected = await desk.carol.post(f"{PATH}/{first['id']}/reject", {"reason": "the wrong wallet"})
        assert rejected.json()["status"] == "rejected", rejected.text
    is_problem(await desk.dave.post(f"{PATH}/{first['id']}/approve", {}), 409, "decision_made")
    is_problem(await desk.dave.post(f"{PATH}/{first['id']}/reject", {"reason": "no"}), 409, "decision_made")
    assert await desk.refusal_of(first) == "decision_made"
    await desk.carry_out(await desk.proposed(deposit, "attribute", wallet_id=other.wallet_id))
    assert (await other.available(), await desk.alice.available()) == ((AMOUNT_SAT - FEE_SAT) * SAT, 0)


async def test_proposals_at_once_are_one(desk: Desk) -> None:
    deposit = await desk.held()
    answers = await asyncio.gather(*(desk.propose(deposit, "release", by=desk.carol) for _ in range(8)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len((await desk.carol.get(PATH)).json()["items"]) == 1


async def test_nobody_approves_an_own_proposal(desk: Desk) -> None:
    decision = await desk.proposed(await desk.held(), "release")
    is_problem(await desk.carol.post(f"{PATH}/{decision['id']}/approve", {}), 403, "own_proposal")
    assert await desk.refusal_of(decision, by=desk.carol) == "own_proposal"
    assert (await desk.show(decision))["status"] == "proposed"


async def test_the_api_does_not_say_done_while_temporal_is_away(desk: Desk) -> None:
    decision = await desk.proposed(await desk.held(), "release")
    is_problem(await desk.dave.post(f"{PATH}/{decision['id']}/approve", {}), 503, "temporarily_unavailable")
    await desk.carry_out(decision)
    answer = await desk.dave.post(f"{PATH}/{decision['id']}/approve", {})
    assert answer.json()["status"] == "done", answer.text
    is_problem(await desk.dave.post(f"{PATH}/{decision['id']}/reject", {"reason": "no"}), 409, "decision_made")


async def test_one_of_two_approvals_at_once_counts(desk: Desk) -> None:
    erin = await desk.payers.api.open_account(scopes=("finance",))
    decision = await desk.proposed(await desk.held(), "release")

    async def approve(by: User) -> str:
        try:
            return (await desk.carry_out(decision, by=by)).split(":")[0]
        except EngineError as refused:
            return refused.code

    answers = await asyncio.gather(*(approve(by) for by in (desk.dave, erin) for _ in range(6)))
    assert sorted(answers) == ["chain"] * 6 + ["decision_made"] * 6
    assert await desk.alice.available() == (AMOUNT_SAT - FEE_SAT) * SAT


async def test_a_deposit_taken_back_meanwhile_is_not_released(desk: Desk) -> None:
    deposit = await desk.held()
    decision = await desk.proposed(deposit, "release")
    await desk.depositor.take_back(deposit)
    assert await desk.refusal_of(decision) == "deposit_not_waiting"
    assert (await desk.show(decision))["status"] == "proposed"
    assert (await desk.depositor.book(deposit, 105)).status == "credited"  # no real limit holds it
    assert await desk.refusal_of(decision) == "deposit_not_waiting"
    assert await desk.alice.available() == (AMOUNT_SAT - FEE_SAT) * SAT


async def test_a_deposit_that_the_books_have_not_taken_back_yet_is_not_released(desk: Desk) -> None:
    deposit = await desk.held()
    decision = await desk.proposed(deposit, "release")
    async with desk.payers.pool.acquire() as conn:
        await conn.execute(
            "UPDATE bank.deposits SET sight = 'mempool', block_height = NULL, block_hash = NULL WHERE id = $1", deposit
        )
    assert await desk.refusal_of(decision) == "deposit_not_waiting"


async def test_releases_and_reorganisations_at_once_leave_the_books_right(desk: Desk) -> None:
    deposits = [await desk.held() for _ in range(6)]
    decisions = [await desk.proposed(deposit, "release") for deposit in deposits]
    releases = [asyncio.create_task(desk.carry_out(decision)) for decision in decisions]
    await asyncio.gather(*(desk.depositor.take_back(deposit) for deposit in deposits))
    ends = await asyncio.gather(*releases, return_exceptions=True)
    assert all(isinstance(end, str) or getattr(end, "code", "") == "deposit_not_waiting" for end in ends), ends
    assert await desk.alice.available() == 0
    assert await desk.balance("asset:hot") == 0


async def test_a_released_deposit_that_is_spent_and_taken_back_is_owed_and_repaid(desk: Desk) -> None:
    deposit = await desk.held()
    await desk.carry_out(await desk.proposed(deposit, "release"))
    await desk.spend()
    assert await desk.depositor.take_back(deposit) == (AMOUNT_SAT - FEE_SAT) * SAT
    assert await desk.status_of(desk.alice) == "locked"
    assert (await desk.depositor.book(deposit, 110)).status == "credited"
    assert (await desk.receivable(deposit))["status"] == "repaid"
    assert (await desk.balance("exp:loss"), await desk.alice.available()) == (0, 0)


async def test_a_second_release_repays_what_the_first_left(desk: Desk) -> None:
    deposit = await desk.depositor.see(desk.alice, 900, below_minimum=True)
    await desk.depositor.book(deposit, 100)
    await desk.carry_out(await desk.proposed(deposit, "release"))
    await desk.spend()
    assert await desk.depositor.take_back(deposit) == (900 - FEE_SAT) * SAT
    await desk.depositor.book(deposit, 110)
    await desk.carry_out(await desk.proposed(deposit, "release"))
    assert (await desk.receivable(deposit))["status"] == "repaid"
    assert (await desk.balance("exp:loss"), await desk.alice.available()) == (0, 0)
    assert await desk.depositor.take_back(deposit) == (900 - FEE_SAT) * SAT
    assert (await desk.balance("asset:hot"), await desk.alice.available()) == (0, 0)


async def test_two_operators_forgive_a_receivable_and_the_account_stays_locked(desk: Desk) -> None:
    deposit = await desk.owed()
    owed_msat = (await desk.receivable(deposit))["amount_msat"]
    decision = await desk.proposed(deposit, "forgive")
    assert (decision["amount_msat"], decision["receivable_id"]) == (owed_msat, (await desk.receivable(deposit))["id"])
    for _ in range(2):
        assert await desk.carry_out(decision) == ""
    ended = await desk.receivable(deposit)
    assert (ended["status"], ended["ended_by"]) == ("forgiven", desk.dave.id)
    assert await desk.balance("exp:loss") == owed_msat
    assert await desk.status_of(desk.alice) == "locked"
    state = await desk.depositor.drop(deposit)
    assert (state.needs_operator, state.ended) == (False, True)


async def test_a_receivable_is_not_forgiven_while_its_deposit_may_repay_it(desk: Desk) -> None:
    deposit = await desk.owed()
    decision = await desk.proposed(deposit, "forgive")
    await desk.depositor.show_again(deposit)
    assert await desk.refusal_of(decision) == "deposit_not_waiting"
    assert (await desk.depositor.book(deposit, 110)).status == "credited"
    assert (await desk.receivable(deposit))["status"] == "repaid"
    assert await desk.refusal_of(decision) == "deposit_not_waiting"


async def test_an_account_that_is_closed_meanwhile_gets_nothing(desk: Desk) -> None:
    bob = await desk.payers.api.open_account()
    deposit = await desk.unattributed()
    decision = await desk.proposed(deposit, "attribute", wallet_id=bob.wallet_id)
    closed = await desk.payers.api.http.patch(f"/v1/admin/accounts/{bob.id}", json={"status": "closed"}, headers=ADMIN)
    assert closed.status_code == 200, closed.text
    assert await desk.refusal_of(decision) == "payee_closed"
    assert (await desk.show(decision))["status"] == "proposed"
    await desk.dave.post(f"{PATH}/{decision['id']}/reject", {"reason": "closed"})
    is_problem(await desk.propose(deposit, "attribute", wallet_id=bob.wallet_id), 409, "payee_closed")


async def test_a_decision_is_carried_out_for_its_own_deposit_only(desk: Desk) -> None:
    first, second = await desk.held(), await desk.held()
    decision = await desk.proposed(first, "release")
    assert await desk.refusal_of({**decision, "deposit_id": second}) == "decision_made"
    assert await desk.refusal_of({**decision, "id": "ddec_none"}) == "decision_made"


async def test_both_operators_stand_in_the_audit_trail(desk: Desk) -> None:
    decision = await desk.proposed(await desk.held(), "release")
    await desk.carry_out(decision)
    lines = (await desk.carol.get("/v1/admin/audit", account=desk.alice.id)).json()["items"][:2]
    assert [(line["action"], line["operator"], line["subject"]) for line in lines] == [
        ("deposit_decision.approve", desk.dave.id, decision["id"]),
        ("deposit_decision.propose", desk.carol.id, decision["id"]),
    ]
    assert lines[0]["detail"]["ref"] == (await desk.show(decision))["ref"]
    async with desk.payers.pool.acquire() as conn:
        assert await find_proposer_key(conn, decision["id"]) == lines[1]["key_id"]
