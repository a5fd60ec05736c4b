"""Compares the books with every place, and opens a case for each difference, which waits for an operator's explanation.

    run ── books against themselves ─┐
        ── each node against books ──┤
        ── hot wallet against books ─┴─ stored ── a case for each new difference ── waits for an operator's `resolve`

A run only reads. When a place is away, only its part of the run ends: the next run comes within the hour.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from workflows.children import start_child
from workflows.patience import again, in_books, not_yet, side_by_side, until_done
from workflows.policies import RECONCILE

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues, search_attributes
    from engine.contracts.reconciliation import (
        HOT,
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
        RunReport,
        RunStart,
        case_start,
    )
    from engine.domain.ids import NodeName, ReconciliationId

_AWAY_AFTER = timedelta(minutes=10)
_LONGEST_REASON = 1000
_SHOWN = 20


@workflow.defn
class ReconciliationWorkflow:
    """One run over everything. A schedule starts runs, never two at once; others are started on demand."""

    @workflow.run
    async def run(self, reconcile: Reconcile) -> RecordedRun:
        run = ReconciliationId(f"rec_{workflow.info().run_id.replace('-', '')}")
        start = RunStart(
            run=run,
            workflow_id=workflow.info().workflow_id,
            asked_by=reconcile.asked_by,
            key_id=reconcile.key_id,
        )
        plan = await until_done(
            "beginning",
            lambda: in_books(ReconciliationActivities.begin_run, start),
            renew=again(reconcile),
        )
        places = ", ".join([*plan.nodes, *plan.wallets])
        workflow.set_current_details(f"comparing {places or 'nothing but the books'}")
        comparing = asyncio.gather(
            *(_compare_node(node, reconcile) for node in plan.nodes), *map(_compare_chain, plan.wallets)
        )
        of_books, of_places = await _check_books(reconcile), await comparing
        report = RunReport(
            run=run,
            accounts=[account for place in of_places for account in place.accounts],
            findings=[*of_books, *(finding for place in of_places for finding in place.findings)],
        )
        recorded = await until_done(
            "recording",
            lambda: in_books(ReconciliationActivities.record_run, report),
            renew=again(reconcile),
        )
        _show_run(report, recorded)
        await side_by_side(start_child, [case_start(each) for each in recorded.cases])
        return recorded


@workflow.defn
class CaseWorkflow:
    """A difference that waits for an operator without a deadline. No answer moves money."""

    @workflow.init
    def __init__(self, case: OpenCase) -> None:
        self._resolution = case.resolution
        self._kept = False
        self._leaves = False

    @workflow.run
    async def run(self, case: OpenCase) -> CaseResolution:
        workflow.set_current_details(_tell(case))
        await workflow.wait_condition(lambda: self._resolution is not None)
        resolution = self._resolution
        assert resolution is not None  # noqa: S101 - the condition above
        resolve = ResolveCase(case=case.case, resolution=resolution)
        await until_done(
            "resolving",
            lambda: in_books(ReconciliationActivities.resolve_case, resolve),
            renew=lambda: self._renew(case),
        )
        workflow.upsert_search_attributes(
            [search_attributes.STATUS.value_set("explained"), search_attributes.NEEDS_OPERATOR.value_set(False)]
        )
        workflow.set_current_details(f"**explained** by {resolution.operator}: {resolution.reason}")
        self._kept = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        return resolution

    @workflow.update
    async def resolve(self, resolution: CaseResolution) -> CaseResolution:
        """Explain the case. Returns when the explanation is in its trail."""
        if self._resolution is None:
            self._resolution = resolution
        await workflow.wait_condition(lambda: self._kept or self._leaves)
        if not self._kept:
            raise not_yet()
        return resolution

    @resolve.validator
    def _check_resolution(self, resolution: CaseResolution) -> None:
        known = self._resolution
        if known is not None and (known.operator, known.reason) != (resolution.operator, resolution.reason):
            raise ApplicationError(f"resolved already by {known.operator}", type="CaseResolved")
        if not resolution.operator.strip():
            raise ApplicationError("an operator must give a name", type="Invalid")
        if not resolution.reason.strip() or len(resolution.reason) > _LONGEST_REASON:
            raise ApplicationError(f"a reason has 1 to {_LONGEST_REASON} characters", type="Invalid")

    async def _renew(self, case: OpenCase) -> None:
        """Go on in a new run, which knows the explanation. A caller who waits until it is stored must ask again."""
        self._leaves = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(replace(case, resolution=self._resolution))


async def _check_books(reconcile: Reconcile) -> list[Finding]:
    try:
        return await workflow.execute_activity_method(
            ReconciliationActivities.check_books,
            BooksCheck(stuck_after_s=reconcile.stuck_after_s),
            summary="the books against themselves",
            schedule_to_close_timeout=3 * _AWAY_AFTER,
            **RECONCILE,
        )
    except ActivityError as error:
        return [_unreachable("books", "books", error)]


async def _compare_node(node: NodeName, reconcile: Reconcile) -> PlaceReport:
    try:
        return await workflow.execute_activity_method(
            PlaceReconciliationActivities.compare_node,
            NodeComparison(node=node, stuck_after_s=reconcile.stuck_after_s),
            task_queue=queues.lightning_queue(node),
            summary=f"{node} against its accounts",
            schedule_to_close_timeout=_AWAY_AFTER,
            **RECONCILE,
        )
    except ActivityError as error:
        return PlaceReport(place=node, accounts=[], findings=[_unreachable(f"asset:lnd:{node}:", node, error)])


async def _compare_chain(wallet: str) -> PlaceReport:
    try:
        return await workflow.execute_activity_method(
            ChainReconciliationActivities.compare_chain,
            ChainComparison(wallet=wallet),
            task_queue=queues.ONCHAIN,
            summary=f"{wallet} against its account",
            schedule_to_close_timeout=_AWAY_AFTER,
            **RECONCILE,
        )
    except ActivityError as error:
        return PlaceReport(place=wallet, accounts=[], findings=[_unreachable(HOT, wallet, error)])


def _unreachable(account: str, place: str, error: ActivityError) -> Finding:
    return Finding(
        kind=FindingKind.PLACE_UNREACHABLE,
        account=account,
        subject=place,
        amount_msat=0,
        detail=f"{place} could not be read: {error.cause}",
    )


def _show_run(report: RunReport, recorded: RecordedRun) -> None:
    lines = [f"**{recorded.status}**", *(f"- {finding.kind}: {finding.detail}" for finding in report.findings[:_SHOWN])]
    lines += [f"- {each.account}: {each.difference_msat:,} msat" for each in report.accounts]
    workflow.set_current_details("\n".join(lines))
    workflow.upsert_search_attributes(
        [
            search_attributes.STATUS.value_set(str(recorded.status)),
            search_attributes.NEEDS_OPERATOR.value_set(bool(recorded.cases)),
        ]
    )


def _tell(case: OpenCase) -> str:
    lines = [f"**needs an operator**: {case.kind} on `{case.account}`, {case.amount_msat:,} msat", case.detail]
    lines += [f"- {each.kind} `{each.ref}`: {each.amount_msat:,} msat {each.detail}" for each in case.suspects[:_SHOWN]]
    return "\n".join([*lines, "The update `resolve {operator, reason}` ends it. It moves no money."])
