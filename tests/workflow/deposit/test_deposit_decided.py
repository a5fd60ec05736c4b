"""The update by which two operators decide about a deposit, with made-up books: running, ended, refused, repeated."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from api.service import temporal
from engine.contracts import queues, search_attributes
from engine.contracts.deposit import (
    DecideDeposit,
    DepositActivities,
    DepositApproval,
    DepositDecisionActivities,
    DepositPage,
    DepositRef,
    DepositState,
    MovedPage,
    deposit_start,
)
from engine.contracts.workflow_start import WorkflowStart, start_workflow
from engine.domain.deposit import DepositStatus
from engine.domain.deposit_decision import not_waiting
from engine.domain.ids import AccountId, DepositDecisionId, DepositId, Txid
from engine.domain.money import Sat
from workflows.deposit import DepositWorkflow

pytestmark = pytest.mark.workflow

TXID = "ab" * 32
DAVE = DepositApproval(decision=DepositDecisionId("ddec_1"), operator=AccountId("acct_dave"), key_id="key_dave")
HELD = DepositState(
    status=DepositStatus.HELD,
    outpoint=f"{TXID}:0",
    amount_sat=Sat(1000),
    wallet_id="wal_1",
    waits_for="two operators, who decide whose it is",
    ended=False,
    needs_operator=True,
)
OVER = replace(HELD, status=DepositStatus.BELOW_MINIMUM, ended=True, needs_operator=False)


@dataclass
class FakeBooks(DepositActivities, DepositDecisionActivities):
    """A deposit that is as it is, until a decision makes it credited."""

    state: DepositState
    refuses: bool = False
    away: int = 0
    asked: list[str] = field(default_factory=list)
    looked: asyncio.Event = field(default_factory=asyncio.Event)

    @activity.defn
    async def advance_deposit(self, deposit: DepositRef) -> DepositState:
        self.asked.append("advance")
        self.looked.set()
        return self.state

    @activity.defn
    async def advance_deposits(self, page: DepositPage) -> MovedPage:
        raise NotImplementedError

    @activity.defn
    async def decide_deposit(self, decide: DecideDeposit) -> str:
        if self.away > 0:
            self.away -= 1
            raise OSError("the books are away")
        if self.refuses:
            raise not_waiting("it was taken back")
        self.asked.append(f"decide {decide.deposit} {decide.approval.operator}")
        self.state = replace(OVER, status=DepositStatus.CREDITED)
        return "chain:x:release:1"


Start = WorkflowStart[DepositState]


@asynccontextmanager
async def working(environment: WorkflowEnvironment, books: FakeBooks) -> AsyncIterator[Start]:
    worker = Worker(
        environment.client,
        task_queue=queues.PAYMENTS,
        workflows=[DepositWorkflow],
        activities=[books.advance_deposit, books.advance_deposits, books.decide_deposit],
        interceptors=[FailureInterceptor()],
    )
    deposit = DepositId(f"dep_{uuid4().hex}")
    async with worker:
        start = deposit_start(deposit, f"deposit-{deposit}", txid=Txid(TXID), amount_sat=Sat(1000), account=None)
        yield replace(start, result=DepositState)


async def tell(environment: WorkflowEnvironment, start: Start, approval: DepositApproval = DAVE) -> None:
    await temporal.tell(environment.client, start.again(), DepositWorkflow.decide, approval, limit_s=30)


async def test_a_deposit_that_waits_is_credited_and_its_workflow_ends(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks(HELD)
    async with working(skipping_temporal, books) as start:
        handle = await start_workflow(skipping_temporal.client, start)
        await books.looked.wait()
        await tell(skipping_temporal, start)
        assert (await handle.result()).status == "credited"
        known = (await handle.describe()).typed_search_attributes
        assert (known.get(search_attributes.STATUS), known.get(search_attributes.NEEDS_OPERATOR)) == ("credited", False)
    assert [asked.split()[0] for asked in books.asked] == ["advance", "decide", "advance"]


async def test_a_workflow_that_has_ended_begins_again_for_the_decision(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks(OVER)
    async with working(skipping_temporal, books) as start:
        handle = await start_workflow(skipping_temporal.client, start)
        assert (await handle.result()).status == "below_minimum"
        for _ in range(2):  # the second finds it ended once more
            await tell(skipping_temporal, start)
            await skipping_temporal.client.get_workflow_handle(start.id).result()
    deposit = start.id.removeprefix("deposit-")
    assert books.asked.count(f"decide {deposit} acct_dave") == 2


async def test_a_refusal_reaches_the_operator_and_the_workflow_goes_on(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks(HELD, refuses=True)
    async with working(skipping_temporal, books) as start:
        handle = await start_workflow(skipping_temporal.client, start)
        with pytest.raises(ApplicationError, match="taken back") as refused:
            await tell(skipping_temporal, start)
        assert refused.value.details[0]["code"] == "deposit_not_waiting"
        books.refuses = False
        await tell(skipping_temporal, start)
        assert (await handle.result()).status == "credited"


async def test_a_decision_waits_for_books_that_are_away(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks(HELD, away=2)
    async with working(skipping_temporal, books) as start:
        await tell(skipping_temporal, start)
        assert (
            await skipping_temporal.client.get_workflow_handle(start.id, result_type=DepositState).result()
        ).status == "credited"


async def test_operators_who_approve_at_once_are_all_answered(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks(OVER)
    async with working(skipping_temporal, books) as start:
        others = [replace(DAVE, operator=AccountId(f"acct_{number}")) for number in range(5)]
        await asyncio.gather(*(tell(skipping_temporal, start, each) for each in others))
        await skipping_temporal.client.get_workflow_handle(start.id).result()
    assert len({asked for asked in books.asked if asked.startswith("decide")}) == 5


@pytest.mark.parametrize("changed", [{"operator": " "}, {"key_id": ""}, {"note": "x" * 1001}])
async def test_an_approval_without_a_name_or_with_a_book_for_a_note_is_refused(
    skipping_temporal: WorkflowEnvironment, changed: dict[str, str]
) -> None:
    books = FakeBooks(HELD)
    async with working(skipping_temporal, books) as start:
        with pytest.raises(ApplicationError) as refused:
            await tell(skipping_temporal, start, replace(DAVE, **changed))  # type: ignore[arg-type]
        assert refused.value.type == "Invalid"
        await skipping_temporal.client.get_workflow_handle(start.id).terminate()
    assert [asked for asked in books.asked if asked.startswith("decide")] == []
