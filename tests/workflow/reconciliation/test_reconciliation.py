"""The story of a run and of its case: with made-up books and nodes behind the real contracts, on a clock that skips."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateStage,
)
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.reconciliation import (
    AccountComparison,
    BooksCheck,
    CaseResolution,
    ChainComparison,
    ChainReconciliationActivities,
    Finding,
    FindingKind,
    NodeComparison,
    OpenCase,
    PlaceReconciliationActivities,
    PlaceReport,
    Reconcile,
    ReconciliationActivities,
    RecordedRun,
    ResolveCase,
    RunPlan,
    RunReport,
    RunStart,
    RunStatus,
)
from engine.domain.errors import Unavailable
from engine.domain.ids import CaseId, NodeName
from workflows.reconciliation import CaseWorkflow, ReconciliationWorkflow

pytestmark = pytest.mark.workflow

ACCOUNT, HOT = "asset:lnd:lnd-1:channels", "asset:hot"
WORD = CaseResolution(operator="carol", reason="paid by hand")


def a_case() -> OpenCase:
    return OpenCase(
        case=CaseId(f"case_{uuid4().hex}"),
        kind="payment_not_in_books",
        account=ACCOUNT,
        subject="ab" * 32,
        amount_msat=-7,
        detail="lnd-1 has paid 7 msat",
        suspects=[],
    )


@dataclass
class FakeBooks(ReconciliationActivities):
    """Remembers what it was told to keep."""

    cases: list[OpenCase] = field(default_factory=list)
    broken: bool = False
    reports: list[RunReport] = field(default_factory=list)
    resolved: list[ResolveCase] = field(default_factory=list)

    @activity.defn
    async def begin_run(self, start: RunStart) -> RunPlan:
        return RunPlan(nodes=[NodeName("lnd-1")], wallets=["hot"])

    @activity.defn
    async def check_books(self, check: BooksCheck) -> list[Finding]:
        if self.broken:
            raise Unavailable("Postgres is away")
        return []

    @activity.defn
    async def record_run(self, report: RunReport) -> RecordedRun:
        self.reports.append(report)
        status = RunStatus.DIFFERS if self.cases else RunStatus.CLEAN
        return RecordedRun(run=report.run, status=status, findings=len(report.findings), cases=self.cases)

    @activity.defn
    async def resolve_case(self, resolve: ResolveCase) -> bool:
        self.resolved.append(resolve)
        return True


@dataclass
class FakePlace(PlaceReconciliationActivities):
    """A node with one account; away for as many looks as told."""

    away: int = 0

    @activity.defn
    async def compare_node(self, comparison: NodeComparison) -> PlaceReport:
        if self.away > 0:
            self.away -= 1
            raise Unavailable("connection refused")
        account = AccountComparison(account=ACCOUNT, books_msat=5, place_msat=5, in_flight=[], difference_msat=0)
        return PlaceReport(place=comparison.node, accounts=[account], findings=[])


@dataclass
class FakeWallet(ChainReconciliationActivities):
    """A wallet of bitcoind with one coin; away for as many looks as told."""

    away: int = 0

    @activity.defn
    async def compare_chain(self, comparison: ChainComparison) -> PlaceReport:
        if self.away > 0:
            self.away -= 1
            raise Unavailable("bitcoind is behind")
        account = AccountComparison(account=HOT, books_msat=7, place_msat=7, in_flight=[], difference_msat=0)
        return PlaceReport(place=comparison.wallet, accounts=[account], findings=[])


@asynccontextmanager
async def working(
    environment: WorkflowEnvironment, books: FakeBooks, place: FakePlace, wallet: FakeWallet | None = None
) -> AsyncIterator[str]:
    """Workers for all queues; gives the name of the first."""
    client, name = environment.client, uuid4().hex
    books_worker = Worker(
        client,
        task_queue=name,
        workflows=[ReconciliationWorkflow, CaseWorkflow],
        activities=[books.begin_run, books.check_books, books.record_run, books.resolve_case],
        interceptors=[FailureInterceptor()],
    )
    place_worker = Worker(
        client,
        task_queue=queues.lightning_queue(NodeName("lnd-1")),
        activities=[place.compare_node],
        interceptors=[FailureInterceptor()],
    )
    chain_worker = Worker(
        client,
        task_queue=queues.ONCHAIN,
        activities=[(wallet or FakeWallet()).compare_chain],
        interceptors=[FailureInterceptor()],
    )
    async with books_worker, place_worker, chain_worker:
        yield name


async def run(client: Client, name: str) -> RecordedRun:
    return await client.execute_workflow(
        ReconciliationWorkflow.run, Reconcile(), id=f"reconciliation-{uuid4().hex}", task_queue=name
    )


async def open_case(client: Client, name: str, case: OpenCase) -> WorkflowHandle[CaseWorkflow, CaseResolution]:
    return await client.start_workflow(CaseWorkflow.run, case, id=workflow_ids.case(case.case), task_queue=name)


async def test_a_run_that_finds_nothing_keeps_its_accounts(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks()
    async with working(skipping_temporal, books, FakePlace(away=2)) as name:
        assert (await run(skipping_temporal.client, name)).status is RunStatus.CLEAN
    (report,) = books.reports
    assert [account.account for account in report.accounts] == [ACCOUNT, HOT]
    assert report.findings == []


async def test_a_place_that_is_away_for_long_is_named_and_ends_no_run(skipping_temporal: WorkflowEnvironment) -> None:
    books = FakeBooks(broken=True)
    async with working(skipping_temporal, books, FakePlace(away=1000), FakeWallet(away=1000)) as name:
        await run(skipping_temporal.client, name)
    assert [(each.kind, each.subject, each.account) for each in books.reports[0].findings] == [
        (FindingKind.PLACE_UNREACHABLE, "books", "books"),
        (FindingKind.PLACE_UNREACHABLE, "lnd-1", "asset:lnd:lnd-1:"),
        (FindingKind.PLACE_UNREACHABLE, "hot", HOT),
    ]


async def test_a_difference_gets_one_case_however_often_it_is_found(skipping_temporal: WorkflowEnvironment) -> None:
    case = a_case()
    books = FakeBooks(cases=[case])
    async with working(skipping_temporal, books, FakePlace()) as name:
        client = skipping_temporal.client
        for _ in range(2):
            assert (await run(client, name)).status is RunStatus.DIFFERS
        handle = client.get_workflow_handle(workflow_ids.case(case.case), result_type=CaseResolution)
        description = await handle.describe()
        assert description.status is WorkflowExecutionStatus.RUNNING
        assert description.typed_search_attributes[search_attributes.NEEDS_OPERATOR] is True
        await handle.execute_update(CaseWorkflow.resolve, WORD)
        assert await handle.result() == WORD
        await run(client, name)
    assert books.resolved == [ResolveCase(case=case.case, resolution=WORD)]


async def test_a_case_waits_for_days_and_takes_one_word_only(skipping_temporal: WorkflowEnvironment) -> None:
    books, case = FakeBooks(), a_case()
    async with working(skipping_temporal, books, FakePlace()) as name:
        handle = await open_case(skipping_temporal.client, name, case)
        await skipping_temporal.fast_forward(handle, timedelta(days=9))
        assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        for word in (
            CaseResolution(operator=" ", reason="paid by hand"),
            CaseResolution(operator="carol", reason=" "),
            CaseResolution(operator="carol", reason="x" * 1001),
        ):
            with pytest.raises(WorkflowUpdateFailedError):
                await handle.execute_update(CaseWorkflow.resolve, word)
        assert books.resolved == []
        assert await handle.execute_update(CaseWorkflow.resolve, WORD) == WORD
        assert await handle.result() == WORD
        assert (await handle.describe()).typed_search_attributes[search_attributes.NEEDS_OPERATOR] is False
    assert len(books.resolved) == 1


async def test_a_second_word_while_the_first_is_kept_is_refused(skipping_temporal: WorkflowEnvironment) -> None:
    books, case = FakeBooks(), a_case()
    async with working(skipping_temporal, books, FakePlace()) as name:
        handle = await open_case(skipping_temporal.client, name, case)
        await handle.start_update(CaseWorkflow.resolve, WORD, wait_for_stage=WorkflowUpdateStage.ACCEPTED)
        with pytest.raises((WorkflowUpdateFailedError, RPCError)):
            await handle.execute_update(CaseWorkflow.resolve, CaseResolution(operator="dave", reason="no"))
        assert await handle.result() == WORD
    assert [each.resolution.operator for each in books.resolved] == ["carol"]
