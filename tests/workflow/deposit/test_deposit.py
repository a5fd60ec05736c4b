"""Deposits, alone and in pages, with fakes behind the real contracts: books that are away, refuse, and wait."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts import search_attributes
from engine.contracts.deposit import (
    DecideDeposit,
    DepositActivities,
    DepositApproval,
    DepositDecisionActivities,
    DepositPage,
    DepositRef,
    DepositState,
    LeftAlone,
    MovedPage,
    deposit_again,
    deposit_start,
)
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.deposit import DepositStatus
from engine.domain.errors import InvariantBroken, Refused, Unavailable
from engine.domain.ids import AccountId, DepositDecisionId, DepositId, Txid
from engine.domain.money import Sat
from tests.fixtures.stack import eventually
from tests.helpers.event_loop import until
from workflows.deposit import DepositPageWorkflow, DepositWorkflow

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(120)]

TXID = Txid("ab" * 32)
APPROVAL = DepositApproval(decision=DepositDecisionId("ddec_1"), operator=AccountId("acct_2"), key_id="key_2")


def state(status: DepositStatus, *, ended: bool = False, needs_operator: bool = False) -> DepositState:
    return DepositState(
        status=status,
        outpoint=f"{TXID}:0",
        amount_sat=Sat(50_000),
        wallet_id="wal_1",
        waits_for="a block",
        ended=ended,
        needs_operator=needs_operator,
    )


INCOMING = state(DepositStatus.PENDING)
CREDITED = state(DepositStatus.CREDITED)
DEEP = state(DepositStatus.CREDITED, ended=True)
HELD = state(DepositStatus.HELD, needs_operator=True)


@dataclass
class FakeBooks(DepositActivities, DepositDecisionActivities):
    """Shows `now` at each step. While `refuses` is set, each step meets that error."""

    now: DepositState = INCOMING
    refuses: Callable[[], Exception] | None = None
    left_alone: list[LeftAlone] = field(default_factory=list)
    tries: int = 0
    by_the_server: int = 0
    alone: list[DepositId] = field(default_factory=list)
    decided: list[DecideDeposit] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    @activity.defn
    async def advance_deposit(self, deposit: DepositRef) -> DepositState:
        shown = self.now
        self._try()
        self.alone.append(deposit.deposit)
        await self.gate.wait()
        return shown

    @activity.defn
    async def advance_deposits(self, page: DepositPage) -> MovedPage:
        self._try()
        return MovedPage(moved=len(page.deposits), left_alone=self.left_alone)

    @activity.defn
    async def decide_deposit(self, decide: DecideDeposit) -> str:
        self._try()
        self.decided.append(decide)
        self.now = replace(CREDITED, ended=True)
        return "release:1"

    def _try(self) -> None:
        self.tries += 1
        self.by_the_server += not activity.info().is_local
        if self.refuses is not None:
            raise self.refuses()


@dataclass
class Stage:
    """Both workflows on a queue of their own."""

    environment: WorkflowEnvironment
    books: FakeBooks
    queue: str

    async def begin(self) -> WorkflowHandle[Any, Any]:
        """As the pump does, at each look at which the deposit is due."""
        deposit = DepositId(f"dep_{self.queue}")
        start = deposit_start(deposit, self.queue, txid=TXID, amount_sat=Sat(50_000), account=None)
        return await self.start(start, signal="chain_moved")

    async def start(self, start: WorkflowStart[Any], *, signal: str | None = None) -> WorkflowHandle[Any, Any]:
        """By the policies of the contract. The handle is of the newest run."""
        client = self.environment.client
        await client.start_workflow(
            start.workflow,
            start.argument,
            id=start.id,
            task_queue=self.queue,
            id_conflict_policy=start.conflict_policy,
            id_reuse_policy=start.reuse_policy,
            search_attributes=start.attributes,
            start_signal=signal,
        )
        return client.get_workflow_handle(start.id, result_type=DepositState)

    async def page(self, deposits: list[DepositId]) -> WorkflowHandle[Any, MovedPage]:
        page = DepositPage(deposits=deposits, height=100)
        return await self.environment.client.start_workflow(
            DepositPageWorkflow.run, page, id=f"page-{self.queue}", task_queue=self.queue
        )


@asynccontextmanager
async def staged(environment: WorkflowEnvironment, books: FakeBooks) -> AsyncIterator[Stage]:
    queue = uuid4().hex
    worker = Worker(
        environment.client,
        task_queue=queue,
        workflows=[DepositWorkflow, DepositPageWorkflow],
        activities=[books.advance_deposit, books.advance_deposits, books.decide_deposit],
        interceptors=[FailureInterceptor()],
    )
    async with worker:
        yield Stage(environment, books, queue)


async def _told(handle: WorkflowHandle[Any, Any]) -> tuple[object, object]:
    """Its status and whether it needs an operator."""
    attributes = (await handle.describe()).typed_search_attributes
    return attributes.get(search_attributes.STATUS), attributes.get(search_attributes.NEEDS_OPERATOR)


async def _shows(handle: WorkflowHandle[Any, Any], status: str, *, needs_operator: bool = False) -> None:
    async def shown() -> bool | None:
        return True if await _told(handle) == (status, needs_operator) else None

    await eventually(shown, f"{status} to be shown")


async def _events(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """Without what tells only of the clock that runs ahead."""
    events = [EventType.Name(event.event_type) for event in (await handle.fetch_history()).events]
    return [event.removeprefix("EVENT_TYPE_") for event in events if "TIME_SKIPPING" not in event]


async def test_a_deposit_follows_the_chain_until_it_lies_deep(skipping_temporal: WorkflowEnvironment) -> None:
    async with staged(skipping_temporal, FakeBooks()) as stage:
        handle = await stage.begin()
        for now in (INCOMING, CREDITED, INCOMING, HELD):
            stage.books.now = now
            await stage.begin()
            await _shows(handle, str(now.status), needs_operator=now.needs_operator)
        stage.books.now = DEEP
        await stage.begin()
        assert await handle.result() == DEEP
        assert await _told(handle) == ("credited", False)
        assert len(set(stage.books.alone)) == 1


async def test_a_signal_that_comes_during_a_step_is_answered_by_another_one(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    async with staged(skipping_temporal, FakeBooks(now=DEEP)) as stage:
        stage.books.gate.clear()
        handle = await stage.begin()
        await until(lambda: stage.books.tries == 1)
        stage.books.now = replace(DEEP, amount_sat=Sat(1))
        await stage.begin()
        stage.books.gate.set()
        assert (await handle.result()).amount_sat == 1, "the chain moved before its end"


async def test_a_deposit_that_has_ended_begins_again_after_a_deeper_reorganisation(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    async with staged(skipping_temporal, FakeBooks(now=DEEP)) as stage:
        first = await stage.begin()
        await first.result()
        run = (await first.describe()).run_id
        stage.books.now = state(DepositStatus.REVERSED)
        again = await stage.begin()
        await _shows(again, "reversed")
        assert (await again.describe()).run_id != run
        await again.terminate()


async def test_a_deposit_that_was_terminated_by_hand_begins_again_where_the_books_are(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    async with staged(skipping_temporal, FakeBooks()) as stage:
        handle = await stage.begin()
        await _shows(handle, "pending")
        await handle.terminate()
        stage.books.now = DEEP
        assert await (await stage.begin()).result() == DEEP


async def test_a_history_of_a_deposit_does_not_grow_while_the_books_are_away(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    books = FakeBooks(now=DEEP, refuses=lambda: Unavailable("the books are away"))
    async with staged(skipping_temporal, books) as stage:
        for handle in (await stage.begin(), await stage.page([DepositId("dep_1")])):
            before = books.by_the_server

            async def tried(times: int, before: int = before) -> bool | None:
                return True if books.by_the_server >= before + times else None

            await eventually(lambda: tried(5), "the server to try", limit_s=30)
            length = len(await _events(handle))
            await eventually(lambda: tried(40), "the server to try again", limit_s=60)
            assert len(await _events(handle)) == length


async def test_each_signal_to_a_deposit_that_the_books_refuse_is_one_try(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    """The pump tells it again and again. Between two tries lies a pause, or a signal."""
    books = FakeBooks(refuses=lambda: InvariantBroken("the books contradict themselves"))
    async with staged(skipping_temporal, books) as stage:
        handle = await stage.begin()
        await until(lambda: books.tries >= 1)
        await stage.begin()
        await until(lambda: books.tries >= 12)
        await _shows(handle, "pending", needs_operator=True)
        books.refuses, books.now = None, DEEP
        assert await handle.result() == DEEP
        assert (await _told(handle))[1] is False
        events = await _events(handle)
        pauses, signals = (events.count(each) for each in ("TIMER_FIRED", "WORKFLOW_EXECUTION_SIGNALED"))
        assert books.tries <= pauses + signals + 1


@pytest.mark.parametrize("why", ["for good", "unforeseen"])
@pytest.mark.parametrize("kind", ["alone", "page"])
async def test_a_deposit_that_is_refused_for_months_goes_on_in_new_runs(
    short_temporal: WorkflowEnvironment, kind: str, why: str
) -> None:
    """Temporal ends a history at 150 events here."""
    refuses = {"for good": lambda: InvariantBroken("a contradiction"), "unforeseen": lambda: TypeError("a bug")}
    books = FakeBooks(now=DEEP, refuses=refuses[why])
    async with staged(short_temporal, books) as stage:
        handle = await stage.begin() if kind == "alone" else await stage.page([DepositId("dep_1")])
        first = (await handle.describe()).run_id
        latest = short_temporal.client.get_workflow_handle(handle.id)
        await until(lambda: books.tries >= 80 if why == "unforeseen" else books.tries >= 30)
        assert (await _told(latest))[1] is True
        books.refuses = None
        await latest.result()
        assert (await latest.describe()).run_id != first
        assert (await _told(latest))[1] is False


async def test_signals_that_come_for_ever_do_not_end_a_deposit(short_temporal: WorkflowEnvironment) -> None:
    async with staged(short_temporal, FakeBooks()) as stage:
        handle = await stage.begin()
        first = (await handle.describe()).run_id
        while (await handle.describe()).run_id == first:
            tries = stage.books.tries
            await stage.begin()
            await until(lambda tries=tries: stage.books.tries > tries)  # type: ignore[misc]
        stage.books.now = DEEP
        await stage.begin()
        assert await handle.result() == DEEP


async def test_two_operators_decide_a_held_deposit_once(skipping_temporal: WorkflowEnvironment) -> None:
    async with staged(skipping_temporal, FakeBooks(now=HELD)) as stage:
        handle = await stage.begin()
        await _shows(handle, "held", needs_operator=True)
        assert await handle.execute_update(DepositWorkflow.decide, APPROVAL) == "release:1"
        assert (await handle.result()).status is DepositStatus.CREDITED
        assert [decided.approval for decided in stage.books.decided] == [APPROVAL]
        assert await _told(handle) == ("credited", False)


async def test_a_decision_that_the_books_refuse_leaves_the_deposit_waiting(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    async with staged(skipping_temporal, FakeBooks(now=HELD)) as stage:
        handle = await stage.begin()
        await _shows(handle, "held", needs_operator=True)
        stage.books.refuses = lambda: Refused("It does not wait.", code="deposit_not_waiting")
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update(DepositWorkflow.decide, APPROVAL)
        assert isinstance(refused.value.cause, ApplicationError)
        assert refused.value.cause.type == "Refused"
        assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        for wrong in (replace(APPROVAL, operator=AccountId(" ")), replace(APPROVAL, note="x" * 10_000)):
            with pytest.raises(WorkflowUpdateFailedError):
                await handle.execute_update(DepositWorkflow.decide, wrong)
        stage.books.refuses, stage.books.now = None, DEEP
        await stage.begin()
        await handle.result()


def _left(deposits: list[DepositId]) -> Iterator[LeftAlone]:
    for deposit in deposits:
        txid = Txid(secrets.token_hex(32))
        yield LeftAlone(deposit=deposit, workflow_id=f"deposit-{txid}-0", txid=txid, amount_sat=Sat(50_000))


async def test_a_page_gives_what_it_leaves_alone_a_workflow_of_its_own(skipping_temporal: WorkflowEnvironment) -> None:
    deposits = [DepositId(f"dep_{number}") for number in range(100)]
    left = list(_left(deposits[:70]))
    books = FakeBooks(now=HELD, left_alone=left)
    async with staged(skipping_temporal, books) as stage:
        begun = await stage.start(deposit_again(left[0]))
        await _shows(begun, "held", needs_operator=True)
        run = (await begun.describe()).run_id
        moved = await (await stage.page(deposits)).result()
        assert moved == MovedPage(moved=100, left_alone=left)
        await until(lambda: set(books.alone) == set(deposits[:70]))
        assert (await begun.describe()).run_id == run, "it was under way, and goes on"
        for each in left:
            await skipping_temporal.client.get_workflow_handle(each.workflow_id).terminate()
