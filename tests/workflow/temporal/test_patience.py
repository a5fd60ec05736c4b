"""Every workflow that waits for a step: for books that are away, and for books that contradict themselves for months.

One activity stands in for all of them, so that whatever a workflow calls is refused as often as a test wants.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from engine.contracts import queues, search_attributes, update_failure
from engine.contracts.batch import BatchOutcome, BatchRequest
from engine.contracts.correction import CorrectionOutcome, Decision, Proposal
from engine.contracts.invoice import CreditedPage, CreditedReceipt, Receipt, ReceiptPage, ReceiptVerdict
from engine.contracts.lane import LaneOutcome, LaneRequest
from engine.contracts.node import AdoptNode, NodePosition
from engine.contracts.payment import (
    Approval,
    AttemptReport,
    LightningAttempt,
    NodeVerdict,
    OpenedPayment,
    PaymentOutcome,
    PaymentRequest,
    PaymentStatus,
)
from engine.contracts.reconciliation import CaseResolution, OpenCase, Reconcile, RecordedRun, RunPlan, RunStatus
from engine.domain.correction import CorrectionKind, CorrectionStatus
from engine.domain.ids import (
    AccountId,
    ApiKeyId,
    BatchId,
    CaseId,
    CorrectionId,
    DecisionId,
    NodeName,
    PaymentHash,
    PaymentId,
    ReconciliationId,
    WalletId,
)
from engine.domain.money import Msat
from tests.fixtures.stack import eventually
from workflows.batch import BatchWorkflow
from workflows.correction import CorrectionWorkflow
from workflows.invoice import ReceiptPageWorkflow, ReceiveWorkflow
from workflows.lane import LaneWorkflow
from workflows.node import AdoptNodeWorkflow
from workflows.payment import PaymentWorkflow
from workflows.reconciliation import CaseWorkflow, ReconciliationWorkflow

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(120)]

NODE, HASH, BODY_HASH = NodeName("lnd-1"), PaymentHash("cd" * 32), "ab" * 32
PAYMENT = PaymentRequest(
    payment_id=PaymentId("pay_1"),
    account_id=AccountId("acct_1"),
    wallet_id=WalletId("wal_1"),
    idempotency_key="k",
    body_hash=BODY_HASH,
    destination="lnbcrt1…",
    amount_msat=Msat(1_000),
    max_fee_msat=Msat(0),
)
ATTEMPT = LightningAttempt(
    payment_id=PAYMENT.payment_id,
    node=NODE,
    bolt11="lnbcrt1…",
    payment_hash=HASH,
    amount_msat=Msat(1_000),
    amount_in_invoice=True,
    max_fee_msat=Msat(0),
    attempt=1,
)
SETTLED = PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.SETTLED)
FAILED = PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.FAILED)
HELD = OpenedPayment(outcome=PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.PENDING), attempt=ATTEMPT)
PAID = AttemptReport(verdict=NodeVerdict.SUCCEEDED, preimage="ef" * 32, payment_index=7)
NO_ROUTE = AttemptReport(verdict=NodeVerdict.FAILED, failure_code="no_route", failure_detail="none", payment_index=7)
RECEIPT = Receipt(payment_hash=HASH, node=NODE, received_msat=Msat(1_000))
BATCH = BatchRequest(
    batch_id=BatchId("batch_1"),
    account_id=AccountId("acct_1"),
    wallet_id=WalletId("wal_1"),
    idempotency_key="k",
    body_hash=BODY_HASH,
    api_key_id=ApiKeyId("key_1"),
    items=[],
)
PROPOSAL = Proposal(
    correction=CorrectionId("corr_1"),
    kind=CorrectionKind.CORRECTION,
    debit="a",
    credit="b",
    amount_msat=Msat(1),
    reason="why",
    operator=AccountId("acct_1"),
    key_id="key_1",
    idempotency_key="k",
    body_hash=BODY_HASH,
)
CASE = OpenCase(
    case=CaseId("case_1"), kind="difference", account="a", subject="1", amount_msat=1, detail="", suspects=[]
)
POSITION = NodePosition(
    node=NODE,
    pubkey="02" + "ab" * 32,
    channels_msat=Msat(0),
    commit_escrow_msat=Msat(0),
    onchain_msat=Msat(0),
    settle_index=0,
)
RUN = RecordedRun(run=ReconciliationId("rec_1"), status=RunStatus.CLEAN, findings=0, cases=[])


@dataclass
class Story:
    """A workflow, what its steps give, and the step that is in trouble. `word` is an update that it waits for."""

    workflow: Any
    asked: object
    step: str
    gives: dict[str, object]
    word: tuple[Any, object] | None = None
    at_node: Sequence[str] = ()


STORIES = {
    "payment opened": Story(PaymentWorkflow, PAYMENT, "open_payment", {"open_payment": OpenedPayment(outcome=SETTLED)}),
    "payment settled": Story(
        PaymentWorkflow,
        PAYMENT,
        "settle_payment",
        {"open_payment": HELD, "send_payment": PAID, "settle_payment": SETTLED},
    ),
    "payment released": Story(
        PaymentWorkflow,
        PAYMENT,
        "release_payment",
        {"open_payment": HELD, "send_payment": NO_ROUTE, "release_payment": FAILED},
    ),
    "lane": Story(
        LaneWorkflow,
        LaneRequest(items=[PAYMENT]),
        "open_lane",
        {"open_lane": LaneOutcome(outcomes=[SETTLED])},
    ),
    "batch": Story(BatchWorkflow, BATCH, "open_batch", {"open_batch": BatchOutcome(body_hash=BODY_HASH)}),
    "receipt": Story(
        ReceiveWorkflow, RECEIPT, "credit_receipt", {"credit_receipt": CreditedReceipt(credited=True, wallet_id="w")}
    ),
    "receipts": Story(
        ReceiptPageWorkflow,
        ReceiptPage(receipts=[RECEIPT]),
        "credit_receipts",
        {"credit_receipts": CreditedPage(verdicts=[ReceiptVerdict.CREDITED])},
    ),
    "run begun": Story(
        ReconciliationWorkflow,
        Reconcile(),
        "begin_run",
        {"begin_run": RunPlan(nodes=[]), "check_books": [], "record_run": RUN},
    ),
    "run recorded": Story(
        ReconciliationWorkflow,
        Reconcile(),
        "record_run",
        {"begin_run": RunPlan(nodes=[]), "check_books": [], "record_run": RUN},
    ),
    "correction proposed": Story(
        CorrectionWorkflow,
        PROPOSAL,
        "propose_correction",
        {"propose_correction": CorrectionOutcome(status=CorrectionStatus.POSTED)},
    ),
    "correction found approved": Story(
        CorrectionWorkflow,
        PROPOSAL,
        "post_correction",
        {
            "propose_correction": CorrectionOutcome(status=CorrectionStatus.APPROVED),
            "post_correction": CorrectionOutcome(status=CorrectionStatus.POSTED),
        },
    ),
    "correction decided": Story(
        CorrectionWorkflow,
        PROPOSAL,
        "decide_correction",
        {
            "propose_correction": CorrectionOutcome(status=CorrectionStatus.PROPOSED),
            "decide_correction": CorrectionOutcome(status=CorrectionStatus.REJECTED),
        },
        word=(
            CorrectionWorkflow.decide,
            Decision(operator=AccountId("acct_2"), key_id="key_2", approve=False, note="no"),
        ),
    ),
    "case": Story(
        CaseWorkflow,
        CASE,
        "resolve_case",
        {"resolve_case": True},
        word=(CaseWorkflow.resolve, CaseResolution(operator="acct_2", reason="known")),
    ),
    "node adopted": Story(
        AdoptNodeWorkflow, AdoptNode(node=NODE), "book_opening", {"read_position": POSITION, "book_opening": True}
    ),
}
FOR_GOOD = {name: story for name, story in STORIES.items() if name != "node adopted"}
"""A node that cannot be adopted is tried anew by every worker, each minute, in a workflow of its own."""


@dataclass
class Steps:
    """Does every step of a story, and refuses the one in trouble until `mended`."""

    story: Story
    refuses: Callable[[], Exception]
    mended: bool = False
    tries: int = 0
    by_the_server: int = 0
    others: list[str] = field(default_factory=list)

    @activity.defn(dynamic=True)
    async def do(self, _args: Sequence[RawValue]) -> Any:
        info = activity.info()
        if info.activity_type != self.story.step:
            self.others.append(info.activity_type)
        elif not self.mended:
            self.tries += 1
            self.by_the_server += not info.is_local
            raise self.refuses()
        return self.story.gives[info.activity_type]


@asynccontextmanager
async def living(
    environment: WorkflowEnvironment, steps: Steps
) -> AsyncIterator[tuple[WorkflowHandle[Any, Any], "asyncio.Task[object] | None"]]:
    """The story's workflow under way, and its update, if it waits for one."""
    client, name = environment.client, uuid4().hex
    mine = Worker(client, task_queue=name, workflows=[steps.story.workflow], activities=[steps.do])
    node = Worker(client, task_queue=queues.lightning_queue(NODE), activities=[steps.do])
    async with mine, node:
        handle = await client.start_workflow(steps.story.workflow.run, steps.story.asked, id=name, task_queue=name)
        telling = asyncio.create_task(_tell(handle, steps.story.word)) if steps.story.word else None
        yield handle, telling


async def _tell(handle: WorkflowHandle[Any, Any], word: tuple[Any, object]) -> object:
    """As a caller of the API does it: again, while the answer is 503."""
    update, said = word
    while True:
        try:
            return await handle.execute_update(update, said)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            if (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING:
                return None  # it has ended by this word; else its run was closed by the next one at this moment
        except WorkflowUpdateFailedError as failed:
            if not isinstance(failed.cause, ApplicationError) or failed.cause.type != update_failure.NOT_YET:
                raise


async def _length(handle: WorkflowHandle[Any, Any]) -> int:
    """Of the history, without what tells only of the clock that runs ahead."""
    events = [EventType.Name(event.event_type) for event in (await handle.fetch_history()).events]
    return sum("TIME_SKIPPING" not in event for event in events)


@pytest.mark.parametrize("name", STORIES)
async def test_a_history_does_not_grow_while_the_books_are_away(
    skipping_temporal: WorkflowEnvironment, name: str
) -> None:
    """An hour's outage is some 360 tries by the server."""
    steps = Steps(STORIES[name], refuses=lambda: ApplicationError("the books are away", type="Unavailable"))

    async def tried(times: int) -> bool | None:
        return True if steps.by_the_server >= times else None

    async with living(skipping_temporal, steps) as (handle, telling):
        await eventually(lambda: tried(5), "the server to try", limit_s=30)
        before = await _length(handle)
        await eventually(lambda: tried(40), "the server to try again", limit_s=60)
        assert await _length(handle) == before
        steps.mended = True
        await handle.result()
        if telling is not None:
            await telling
        assert await _length(handle) < 45


@pytest.mark.parametrize("name", FOR_GOOD)
async def test_a_payment_broken_for_months_goes_on_in_new_runs(short_temporal: WorkflowEnvironment, name: str) -> None:
    """Temporal ends a history at 150 events here; so many tries make seven times as many."""
    steps = Steps(
        STORIES[name], refuses=lambda: ApplicationError("the books contradict themselves", non_retryable=True)
    )

    async def tried() -> bool | None:
        return True if steps.tries >= 30 else None

    async with living(short_temporal, steps) as (handle, telling):
        first = (await handle.describe()).run_id
        await eventually(tried, "30 tries", limit_s=60)
        assert await _needs_operator(handle)
        steps.mended = True
        await handle.result()
        if telling is not None:
            await telling
        told = await handle.describe()
    assert (told.run_id == first, told.history_length < 150) == (False, True)
    assert told.typed_search_attributes.get(search_attributes.NEEDS_OPERATOR) is False
    if "payment" in name:
        assert steps.others.count("send_payment") <= 1, "what was sent is not sent again by a new run"


@pytest.mark.parametrize("name", FOR_GOOD)
async def test_an_error_that_nobody_foresaw_is_seen_by_operators(
    short_temporal: WorkflowEnvironment, name: str
) -> None:
    """It is tried again all the same, because the part that raised it may be mended meanwhile."""
    steps = Steps(STORIES[name], refuses=lambda: TypeError("a bug"))

    async with living(short_temporal, steps) as (handle, telling):

        async def seen() -> bool | None:
            return await _needs_operator(handle) or None

        await eventually(seen, "operators to be called", limit_s=60)
        assert steps.by_the_server == 0
        steps.mended = True
        await handle.result()
        if telling is not None:
            await telling
        assert not await _needs_operator(handle)


async def _needs_operator(handle: WorkflowHandle[Any, Any]) -> bool:
    return (await handle.describe()).typed_search_attributes.get(search_attributes.NEEDS_OPERATOR) is True


IN_FLIGHT = Story(
    PaymentWorkflow,
    PAYMENT,
    "watch_payment",
    {
        "open_payment": HELD,
        "send_payment": AttemptReport(verdict=NodeVerdict.IN_FLIGHT),
        "watch_payment": PAID,
        "settle_payment": SETTLED,
        "carry_out_decision": FAILED,
    },
)


async def _renewed(handle: WorkflowHandle[Any, Any], steps: Steps) -> None:
    """A node that comes and goes wakes the payment, until it goes on in a new run."""
    first = (await handle.describe()).run_id
    while (await handle.describe()).run_id == first:
        looks = steps.by_the_server
        await handle.signal(PaymentWorkflow.node_reported)

        async def looked(looks: int = looks) -> bool | None:
            return True if steps.by_the_server > looks else None

        await eventually(looked, "a look")


async def test_news_that_come_for_ever_do_not_end_a_payment(short_temporal: WorkflowEnvironment) -> None:
    """Each time adds to the history."""
    steps = Steps(IN_FLIGHT, refuses=lambda: ApplicationError("still in flight"))
    async with living(short_temporal, steps) as (handle, _):
        await _renewed(handle, steps)
        steps.mended = True
        assert await handle.result() == SETTLED
        assert steps.others.count("send_payment") == 1


async def test_a_decision_of_two_operators_reaches_the_new_run(short_temporal: WorkflowEnvironment) -> None:
    approval = Approval(decision=DecisionId("dec_1"), operator=AccountId("acct_2"), key_id="key_2")
    steps = Steps(IN_FLIGHT, refuses=lambda: ApplicationError("still in flight"))
    async with living(short_temporal, steps) as (handle, _):
        await _renewed(handle, steps)
        assert await _tell(handle, (PaymentWorkflow.decide, approval)) in {FAILED, None}
        assert await handle.result() == FAILED
