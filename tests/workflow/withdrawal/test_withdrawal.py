"""Withdrawals with fakes behind the real contracts: approved, batched, cancelled, refused, and books that are away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts import queues, search_attributes
from engine.contracts.batcher import Batcher, BatcherActivities, Formed
from engine.contracts.payment import Refusal
from engine.contracts.withdrawal import (
    DecideWithdrawal,
    OpenedWithdrawal,
    WithdrawalActivities,
    WithdrawalApproval,
    WithdrawalRef,
    WithdrawalRequest,
    WithdrawalState,
)
from engine.domain.errors import EngineError, Refused, Unavailable
from engine.domain.ids import AccountId, WalletId, WithdrawalDecisionId, WithdrawalId
from engine.domain.money import Sat
from engine.domain.withdrawal.withdrawal import Speed, WithdrawalStatus
from tests.fixtures.stack import eventually
from tests.helpers.event_loop import until
from workflows.batcher import BatcherWorkflow
from workflows.withdrawal import WithdrawalWorkflow

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(120)]

APPROVAL = WithdrawalApproval(decision=WithdrawalDecisionId("wdec_1"), operator=AccountId("acct_2"), key_id="key_2")
QUEUED = WithdrawalState(
    status=WithdrawalStatus.QUEUED, speed=Speed.FAST, amount_sat=Sat(50_000), waits_for="its turn", joins=True
)
UNAPPROVED = replace(QUEUED, joins=False, needs_operator=True, approve_in_s=3600.0)
CONFIRMED = replace(QUEUED, status=WithdrawalStatus.CONFIRMED, joins=False)
CANCELLED = replace(QUEUED, status=WithdrawalStatus.CANCELLED, joins=False)


@dataclass
class FakeBooks(WithdrawalActivities, BatcherActivities):
    """Shows `now` at each look. While `refuses` is set, each step meets that error."""

    now: WithdrawalState = QUEUED
    refusal: Refusal | None = None
    refuses: EngineError | None = None
    looks: int = 0
    formed: int = 0
    decided: list[DecideWithdrawal] = field(default_factory=list)

    @activity.defn
    async def open_withdrawal(self, request: WithdrawalRequest) -> OpenedWithdrawal:
        if self.refuses is not None:
            raise self.refuses
        if self.refusal is not None:
            return OpenedWithdrawal(body_hash=request.body_hash, refusal=self.refusal)
        return OpenedWithdrawal(body_hash=request.body_hash, state=self.now)

    @activity.defn
    async def advance_withdrawal(self, withdrawal: WithdrawalRef) -> WithdrawalState:
        self.looks += 1
        return self.now

    @activity.defn
    async def cancel_withdrawal(self, withdrawal: WithdrawalRef) -> WithdrawalState:
        if self.refuses is not None:
            raise self.refuses
        self.now = CANCELLED
        return self.now

    @activity.defn
    async def decide_withdrawal(self, decide: DecideWithdrawal) -> WithdrawalState:
        self.decided.append(decide)
        self.now = QUEUED
        return self.now

    @activity.defn
    async def form_payouts(self, batcher: Batcher) -> Formed:
        self.formed += 1
        return Formed()


@dataclass
class Stage:
    """The workflow and a batcher, on queues of their own."""

    environment: WorkflowEnvironment
    books: FakeBooks
    queue: str

    async def begin(self) -> WorkflowHandle[Any, Any]:
        request = WithdrawalRequest(
            withdrawal_id=WithdrawalId(f"wd_{self.queue}"),
            account_id=AccountId("acct_1"),
            wallet_id=WalletId("wal_1"),
            idempotency_key=self.queue,
            body_hash="ab" * 32,
            hot_wallet=f"hot-{self.queue[:8]}",
            address="bcrt1q",
            script="00",
            amount_sat=Sat(50_000),
            fee_from="balance",
            speed=Speed.FAST,
            alone=False,
            unlinked=False,
            max_fee_sat=None,
            fee_cap_sat=Sat(1000),
        )
        return await self.environment.client.start_workflow(
            WithdrawalWorkflow.run, request, id=f"withdrawal-{self.queue}", task_queue=self.queue
        )


@asynccontextmanager
async def staged(environment: WorkflowEnvironment, books: FakeBooks) -> AsyncIterator[Stage]:
    queue = uuid4().hex
    ours = Worker(
        environment.client,
        task_queue=queue,
        workflows=[WithdrawalWorkflow, BatcherWorkflow],
        activities=[
            *(books.open_withdrawal, books.advance_withdrawal, books.cancel_withdrawal, books.decide_withdrawal),
        ],
        interceptors=[FailureInterceptor()],
    )
    onchain = Worker(environment.client, task_queue=queues.ONCHAIN, activities=[books.form_payouts])
    async with ours, onchain:
        yield Stage(environment, books, queue)


async def _needs_operator(handle: WorkflowHandle[Any, Any], wanted: bool) -> None:  # noqa: FBT001 - what is shown
    async def shown() -> bool | None:
        attributes = (await handle.describe()).typed_search_attributes
        return True if attributes.get(search_attributes.NEEDS_OPERATOR) is wanted else None

    await eventually(shown, "whether it needs an operator")


async def test_a_withdrawal_joins_its_batcher_and_ends_when_a_block_has_it(
    plain_temporal: WorkflowEnvironment,
) -> None:
    async with staged(plain_temporal, FakeBooks()) as stage:
        handle = await stage.begin()
        await until(lambda: stage.books.formed > 0)
        stage.books.now = CONFIRMED
        await handle.signal(WithdrawalWorkflow.payout_moved)
        assert (await handle.result()).state == CONFIRMED


async def test_a_refused_withdrawal_ends_at_once(plain_temporal: WorkflowEnvironment) -> None:
    refusal = Refusal(code="insufficient_funds", detail="too little")
    async with staged(plain_temporal, FakeBooks(refusal=refusal)) as stage:
        handle = await stage.begin()
        ended = await handle.result()
        assert (ended.state, ended.refusal) == (None, refusal)
        assert stage.books.formed == 0


async def test_a_withdrawal_is_cancelled_while_it_is_queued(plain_temporal: WorkflowEnvironment) -> None:
    async with staged(plain_temporal, FakeBooks()) as stage:
        handle = await stage.begin()
        assert (await handle.execute_update(WithdrawalWorkflow.cancel)).status is WithdrawalStatus.CANCELLED
        assert (await handle.result()).state == CANCELLED


async def test_a_withdrawal_that_is_batched_is_not_cancelled(plain_temporal: WorkflowEnvironment) -> None:
    async with staged(plain_temporal, FakeBooks()) as stage:
        handle = await stage.begin()
        await until(lambda: stage.books.formed > 0)
        stage.books.refuses = Refused("it is batched", code="already_batched")
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await handle.execute_update(WithdrawalWorkflow.cancel)
        assert "it is batched" in str(failed.value.cause)
        stage.books.now = CONFIRMED
        await handle.signal(WithdrawalWorkflow.payout_moved)
        assert (await handle.result()).state == CONFIRMED


async def test_a_large_withdrawal_waits_for_an_operator(plain_temporal: WorkflowEnvironment) -> None:
    async with staged(plain_temporal, FakeBooks(now=UNAPPROVED)) as stage:
        handle = await stage.begin()
        await _needs_operator(handle, wanted=True)
        assert stage.books.formed == 0
        await handle.execute_update(WithdrawalWorkflow.decide, APPROVAL)
        await until(lambda: stage.books.formed > 0)
        await _needs_operator(handle, wanted=False)
        assert [each.approval for each in stage.books.decided] == [APPROVAL]
        stage.books.now = CONFIRMED
        await handle.signal(WithdrawalWorkflow.payout_moved)
        await handle.result()


async def test_nobody_approves_in_time(plain_temporal: WorkflowEnvironment) -> None:
    async with staged(plain_temporal, FakeBooks(now=replace(UNAPPROVED, approve_in_s=2.0))) as stage:
        handle = await stage.begin()
        await _needs_operator(handle, wanted=True)
        stage.books.now = replace(CANCELLED, status=WithdrawalStatus.FAILED, failure="approval_expired")
        ended = await handle.result()
        assert ended.state is not None
        assert ended.state.failure == "approval_expired"


async def test_an_approval_without_a_name_is_refused(plain_temporal: WorkflowEnvironment) -> None:
    async with staged(plain_temporal, FakeBooks(now=UNAPPROVED)) as stage:
        handle = await stage.begin()
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(WithdrawalWorkflow.decide, replace(APPROVAL, key_id=" "))
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(WithdrawalWorkflow.decide, replace(APPROVAL, note="x" * 2000))
        stage.books.now = CONFIRMED
        await handle.signal(WithdrawalWorkflow.payout_moved)
        await handle.result()


async def test_the_books_are_away_when_it_is_asked(plain_temporal: WorkflowEnvironment) -> None:
    async with staged(plain_temporal, FakeBooks(refuses=Unavailable("away"))) as stage:
        handle = await stage.begin()
        await until(lambda: stage.books.refuses is not None)
        stage.books.refuses, stage.books.now = None, CONFIRMED
        assert (await handle.result()).state == CONFIRMED
