"""Compares the books with themselves, and records what was found in them and at the nodes (`place.py`).

Reconciliation only reads, apart from its own tables, the closing of the books and the removal of old counters.
"""

from dataclasses import asdict
from datetime import timedelta

from temporalio import activity

from activities.heartbeat import heartbeats
from activities.reconciliation.findings import as_case, broken_rules, loose_hold, open_case
from engine.bank.audit import Act, record_in_tx
from engine.bank.chain.check import list_loose_deposits, list_not_as_booked
from engine.bank.chain.cut import list_wallets
from engine.bank.limit import prune_counters_in_tx
from engine.bank.reconciliation import (
    begin_in_tx,
    explain_in_tx,
    find_status_in_tx,
    finish_in_tx,
    list_loose_holds,
    list_nodes,
    list_open_cases,
    list_overdue_cancellations,
    note_vanished_in_tx,
    see_case_in_tx,
    see_known_in_tx,
)
from engine.contracts.reconciliation import (
    OBSERVATIONS,
    BooksCheck,
    Finding,
    FindingKind,
    ReconciliationActivities,
    RecordedRun,
    ResolveCase,
    RunPlan,
    RunReport,
    RunStart,
    RunStatus,
)
from engine.ledger import checks
from engine.ledger.closing import close_in_tx
from engine.ledger.database import Pool, transaction

_SAYS_NOTHING = frozenset({FindingKind.PLACE_UNREACHABLE, FindingKind.PLACE_MOVING})


class Reconciliations(ReconciliationActivities):
    """The books' side."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @activity.defn
    async def begin_run(self, start: RunStart) -> RunPlan:
        async with transaction(self._pool) as conn:
            begun = await begin_in_tx(conn, start.run, start.workflow_id)
            plan = RunPlan(nodes=await list_nodes(conn), wallets=await list_wallets(conn))
            if begun and start.asked_by is not None:
                await record_in_tx(conn, _act("reconciliation.start", start.run, start.asked_by, start.key_id))
        return plan

    @activity.defn
    async def check_books(self, check: BooksCheck) -> list[Finding]:
        async with heartbeats(), transaction(self._pool) as conn:
            if await close_in_tx(conn) is None:
                activity.logger.info("the books are not closed at this hour yet: somebody is posting")
        async with heartbeats():
            await self._prune_counters()
        async with heartbeats(), self._pool.acquire() as conn:
            broken = await checks.find_broken_rules(conn)
            holds, payments = await list_loose_holds(conn)
            overdue = await list_overdue_cancellations(conn, timedelta(seconds=check.stuck_after_s))
            incoming, deposits = await list_loose_deposits(conn)
            not_as_booked = await list_not_as_booked(conn)
        return [
            *broken_rules(broken),
            *(loose_hold(FindingKind.HOLD_WITHOUT_PAYMENT, each) for each in holds),
            *(loose_hold(FindingKind.PAYMENT_WITHOUT_HOLD, each) for each in payments),
            *(loose_hold(FindingKind.CANCELLATION_OVERDUE, each) for each in overdue),
            *(loose_hold(FindingKind.HOLD_WITHOUT_DEPOSIT, each) for each in incoming),
            *(loose_hold(FindingKind.DEPOSIT_WITHOUT_HOLD, each) for each in deposits),
            *(loose_hold(FindingKind.DEPOSIT_NOT_AS_BOOKED, each) for each in not_as_booked),
        ]

    async def _prune_counters(self) -> None:
        more = True
        while more:
            async with transaction(self._pool) as conn:
                more = await prune_counters_in_tx(conn)

    @activity.defn
    async def record_run(self, report: RunReport) -> RecordedRun:
        async with transaction(self._pool) as conn:
            known = await find_status_in_tx(conn, report.run)
            if known == RunStatus.RUNNING:
                found = [as_case(finding) for finding in report.findings if finding.kind not in OBSERVATIONS]
                known_cases = await see_known_in_tx(conn, report.run, [case.name for case in found])
                statuses = [
                    known_cases.get(case.name) or await see_case_in_tx(conn, report.run, case) for case in found
                ]
                unseen = [each.account for each in report.findings if each.kind in _SAYS_NOTHING]
                await note_vanished_in_tx(conn, report.run, unseen=unseen)
                known = _status(statuses, incomplete=bool(unseen))
                await finish_in_tx(
                    conn,
                    report.run,
                    status=known,
                    report={
                        "accounts": [asdict(account) for account in report.accounts],
                        "findings": [asdict(finding) for finding in report.findings],
                    },
                )
            cases = await list_open_cases(conn)
        return RecordedRun(
            run=report.run,
            status=RunStatus(known or RunStatus.INCOMPLETE),
            findings=len(report.findings),
            cases=[open_case(case) for case in cases],
        )

    @activity.defn
    async def resolve_case(self, resolve: ResolveCase) -> bool:
        async with transaction(self._pool) as conn:
            word = resolve.resolution
            new = await explain_in_tx(conn, resolve.case, operator=word.operator, reason=word.reason)
            if new:
                act = _act("case.resolve", resolve.case, word.operator, word.key_id, reason=word.reason)
                await record_in_tx(conn, act)
        return new


def _act(action: str, subject: str, operator: str, key_id: str | None, **detail: object) -> Act:
    return Act(operator=operator, key_id=key_id or "temporal", action=action, subject=subject, detail=detail)


def _status(statuses: list[str], *, incomplete: bool) -> RunStatus:
    if "open" in statuses:
        return RunStatus.DIFFERS
    if incomplete:
        return RunStatus.INCOMPLETE
    return RunStatus.EXPLAINED if statuses else RunStatus.CLEAN
