"""The story of a proposal: two operators, one decision, with made-up books and on a clock that skips."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError, WorkflowUpdateStage
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts import search_attributes, workflow_ids
from engine.contracts.correction import (
    CorrectionActivities,
    CorrectionOutcome,
    DecideCorrection,
    Decision,
    Proposal,
)
from engine.contracts.payment import Refusal
from engine.domain.correction import CorrectionKind, CorrectionStatus
from engine.domain.errors import InvariantBroken
from engine.domain.ids import AccountId, CorrectionId
from engine.domain.money import Msat
from workflows.correction import CorrectionWorkflow

pytestmark = pytest.mark.workflow

Handle = WorkflowHandle[CorrectionWorkflow, CorrectionOutcome]
CAROL, DAVE, ERIN = AccountId("acct_carol"), AccountId("acct_dave"), AccountId("acct_erin")
TOO_LITTLE = Refusal(code="insufficient_funds", detail="too little")


@dataclass
class FakeBooks(CorrectionActivities):
    """Remembers what it was asked, in order."""

    key_taken: bool = False
    refusal: Refusal | None = None
    broken: int = 0
    broken_before: int = 0
    broken_after: int = 0
    asked: list[str] = field(default_factory=list)
    decided: list[DecideCorrection] = field(default_factory=list)

    @activity.defn
    async def propose_correction(self, proposal: Proposal) -> CorrectionOutcome:
        self.asked.append("propose")
        return CorrectionOutcome(status=None if self.key_taken else CorrectionStatus.PROPOSED)

    @activity.defn
    async def decide_correction(self, decide: DecideCorrection) -> CorrectionOutcome:
        if self.broken_before > 0:
            self.broken_before -= 1
            raise InvariantBroken("there is no such correction")
        self.asked.append("decide")
        self.decided.append(decide)
        approve = decide.decision.approve
        return CorrectionOutcome(status=CorrectionStatus.APPROVED if approve else CorrectionStatus.REJECTED)

    @activity.defn
    async def post_correction(self, correction: CorrectionId) -> CorrectionOutcome:
        self.asked.append("post")
        if self.broken > 0:
            self.broken -= 1
            raise InvariantBroken("there is no such account")
        status = CorrectionStatus.REFUSED if self.refusal else CorrectionStatus.POSTED
        return CorrectionOutcome(status=status, refusal=self.refusal)

    @activity.defn
    async def expire_correction(self, correction: CorrectionId) -> CorrectionOutcome:
        self.asked.append("expire")
        if self.broken_after > 0:
            self.broken_after -= 1
            raise InvariantBroken("there is no such correction")
        return CorrectionOutcome(status=CorrectionStatus.EXPIRED)


@asynccontextmanager
async def proposed(
    environment: WorkflowEnvironment, books: FakeBooks, *, runs_ahead: bool = False
) -> AsyncIterator[Handle]:
    """A worker, and Carol's proposal. Its time passes as usual, until a test lets it run ahead."""
    name, correction = uuid4().hex, CorrectionId(f"corr_{uuid4().hex}")
    worker = Worker(
        environment.client,
        task_queue=name,
        workflows=[CorrectionWorkflow],
        activities=[
            books.propose_correction,
            books.decide_correction,
            books.post_correction,
            books.expire_correction,
        ],
        interceptors=[FailureInterceptor()],
    )
    proposal = Proposal(
        correction=correction,
        kind=CorrectionKind.CORRECTION,
        debit="suspense:in",
        credit="liab:user:wal_x",
        amount_msat=Msat(1_000),
        reason="paid by hand",
        operator=CAROL,
        key_id="key_carol",
        idempotency_key="k",
        body_hash="00" * 32,
    )
    async with worker:
        with nullcontext() if runs_ahead else environment.with_time_skipping_disabled():
            handle = await environment.client.start_workflow(
                CorrectionWorkflow.run, proposal, id=workflow_ids.correction(correction), task_queue=name
            )
        yield handle


def word(operator: AccountId, *, approve: bool = True, note: str = "seen") -> Decision:
    return Decision(operator=operator, key_id=f"key_of_{operator}", approve=approve, note=note)


async def refusal_of(handle: Handle, decision: Decision) -> str | None:
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await handle.execute_update(CorrectionWorkflow.decide, decision)
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause.type


async def told(handle: Handle) -> tuple[str | None, bool | None]:
    known = (await handle.describe()).typed_search_attributes
    return known.get(search_attributes.STATUS), known.get(search_attributes.NEEDS_OPERATOR)


async def test_a_correction_waits_for_a_second_operator_and_is_posted(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks()
    async with proposed(skipping_temporal, books) as handle:
        await skipping_temporal.fast_forward(handle, timedelta(days=6))
        assert await told(handle) == ("proposed", True)
        assert books.asked == ["propose"]
        assert await refusal_of(handle, word(CAROL)) == "OwnProposal"
        assert books.asked == ["propose"]
        outcome = await handle.execute_update(CorrectionWorkflow.decide, word(DAVE))
        assert outcome == CorrectionOutcome(status=CorrectionStatus.POSTED)
        assert await handle.result() == outcome
        assert await told(handle) == ("posted", False)
    assert books.asked == ["propose", "decide", "post"]
    assert books.decided[0].decision == word(DAVE)


async def test_a_correction_expires_after_seven_days(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks()
    async with proposed(skipping_temporal, books) as handle:
        await skipping_temporal.fast_forward(handle, timedelta(days=6, hours=23))
        assert await told(handle) == ("proposed", True)
        await skipping_temporal.fast_forward(handle)
        assert (await handle.result()).status is CorrectionStatus.EXPIRED
        assert await told(handle) == ("expired", False)
        with pytest.raises(RPCError):
            await handle.execute_update(CorrectionWorkflow.decide, word(DAVE))
    assert books.asked == ["propose", "expire"]


async def test_a_refusal_by_the_books_ends_a_correction_and_says_why(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks(refusal=TOO_LITTLE)
    async with proposed(skipping_temporal, books) as handle:
        outcome = await handle.execute_update(CorrectionWorkflow.decide, word(DAVE))
        assert outcome == CorrectionOutcome(status=CorrectionStatus.REFUSED, refusal=TOO_LITTLE)
        await handle.result()
        assert await told(handle) == ("refused", False)


async def test_the_proposer_may_take_it_back_and_nobody_can_then_approve(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    books = FakeBooks()
    async with proposed(skipping_temporal, books) as handle:
        taken_back = word(CAROL, approve=False, note="my mistake")
        assert await refusal_of(handle, word(CAROL, approve=False, note=" ")) == "Invalid"
        assert (await handle.execute_update(CorrectionWorkflow.decide, taken_back)).status is CorrectionStatus.REJECTED
        await handle.result()
    assert books.asked == ["propose", "decide"]


@pytest.mark.parametrize("note", ["", "x" * 1001], ids=["no reason", "too long"])
async def test_a_no_has_a_reason_of_a_bearable_length(skipping_temporal: WorkflowEnvironment, note: str) -> None:
    books = FakeBooks()
    async with proposed(skipping_temporal, books) as handle:
        assert await refusal_of(handle, word(DAVE, approve=False, note=note)) == "Invalid"
        assert await refusal_of(handle, word(AccountId(" "))) == "Invalid"
        await handle.execute_update(CorrectionWorkflow.decide, word(DAVE, approve=False))


async def test_one_of_many_decisions_at_once_counts_and_its_repeat_is_a_repeat(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    """The books are broken meanwhile, so that the first word is being carried out while the others come."""
    books = FakeBooks(broken_before=1)
    async with proposed(skipping_temporal, books) as handle:
        words = [word(DAVE), word(DAVE), word(ERIN), word(ERIN, approve=False), word(DAVE, approve=False)]
        heard = WorkflowUpdateStage.ACCEPTED
        telling = await asyncio.gather(
            *(handle.start_update(CorrectionWorkflow.decide, each, wait_for_stage=heard) for each in words)
        )
        await skipping_temporal.fast_forward(handle)
        answers = await asyncio.gather(*(each.result() for each in telling), return_exceptions=True)
        kept = [each for each in answers if isinstance(each, CorrectionOutcome)]
        refused = [each for each in answers if isinstance(each, WorkflowUpdateFailedError)]
        assert len(kept) + len(refused) == 5
        assert len({each.status for each in kept}) == 1
        assert {getattr(each.cause, "type", None) for each in refused} == {"CorrectionDecided"}
        await handle.result()
    assert len(books.decided) == 1
    same = [each for each in words if each == books.decided[0].decision]
    assert len(kept) == len(same)


async def test_books_that_contradict_themselves_call_an_operator_and_are_tried_again(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    books = FakeBooks(broken=2)
    async with proposed(skipping_temporal, books) as handle:
        telling = asyncio.create_task(handle.execute_update(CorrectionWorkflow.decide, word(DAVE)))
        while "post" not in books.asked:
            await asyncio.sleep(0.01)
        await skipping_temporal.fast_forward(handle)
        assert (await telling).status is CorrectionStatus.POSTED
        await handle.result()
        assert await told(handle) == ("posted", False)
    assert books.asked == ["propose", "decide", "post", "post", "post"]


async def test_a_key_of_another_request_proposes_nothing(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks(key_taken=True)
    async with proposed(skipping_temporal, books) as handle:
        assert await handle.result() == CorrectionOutcome(status=None)
        assert await told(handle) == ("refused", False)
    assert books.asked == ["propose"]


async def test_an_expired_correction_is_not_open_again_in_a_new_run(short_temporal: WorkflowEnvironment) -> None:
    """The books refuse the end for so long that the history grows long: the seven days do not begin anew."""
    books = FakeBooks(broken_after=15)
    async with proposed(short_temporal, books, runs_ahead=True) as handle:
        first = (await handle.describe()).run_id
        assert (await handle.result()).status is CorrectionStatus.EXPIRED
        last = await handle.describe()
        waits = [
            event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
            for event in (await handle.fetch_history()).events
            if event.HasField("timer_started_event_attributes")
        ]
    assert last.run_id != first
    assert all(wait < timedelta(hours=1) for wait in waits)
