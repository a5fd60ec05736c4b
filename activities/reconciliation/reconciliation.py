"""Compares the books with themselves and with a node, and records what was found.

A look lists all that the node remembers, and from then on follows what ends. Then it makes cuts: the node's balances,
all that had ended by then, the books, and what was booked since. Only the balances, a few calls, must be of one moment.
A cut without a rest is the answer. A rest must be the same in two quiet cuts, and again in another look, before an
operator is called. A node that is never at rest for these few calls is reported as moving, not as correct. Everything
here only reads, apart from reconciliation's own tables, the closing of the books and the removal of old counters.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeat import heartbeats
from activities.part import list_parts
from activities.reconciliation import channel, matching
from activities.reconciliation.findings import (
    as_case,
    broken_rules,
    loose_hold,
    open_case,
    payment_waits,
    place_moving,
)
from engine.bank import lookback
from engine.bank.agreement import AgreedChannel, agree, list_agreed_channels
from engine.bank.audit import Act, record_in_tx
from engine.bank.limit import prune_counters_in_tx
from engine.bank.reconciliation import (
    BooksCut,
    Counterparts,
    NewCase,
    Pending,
    begin_in_tx,
    explain_in_tx,
    find_status_in_tx,
    finish_in_tx,
    is_pending,
    list_loose_holds,
    list_nodes,
    list_open_cases,
    list_overdue_cancellations,
    note_vanished_in_tx,
    read_counterparts,
    see_case_in_tx,
    see_known_in_tx,
)
from engine.clients.lnd.client import LndNode, NodeBalances, NodePaymentStatus
from engine.clients.lnd.history import LndHistory, News
from engine.contracts.reconciliation import (
    OBSERVATIONS,
    AccountComparison,
    BooksCheck,
    Finding,
    FindingKind,
    NodeComparison,
    PlaceReconciliationActivities,
    PlaceReport,
    ReconciliationActivities,
    RecordedRun,
    ResolveCase,
    RunPlan,
    RunReport,
    RunStart,
    RunStatus,
)
from engine.domain.ids import PaymentHash
from engine.ledger import chart, checks
from engine.ledger.closing import close_in_tx
from engine.ledger.database import Pool, transaction

_LOOKS = 3
_CUTS = 20
_PAUSE_S = 0.2
_ORPHANED_AFTER_S = 60
_MANY = 100
"""The most findings that are named one by one. Anything beyond them stays in the rest."""


class Reconciliations(ReconciliationActivities):
    """The books' side."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @activity.defn
    async def begin_run(self, start: RunStart) -> RunPlan:
        async with transaction(self._pool) as conn:
            begun = await begin_in_tx(conn, start.run, start.workflow_id)
            nodes = await list_nodes(conn)
            if begun and start.asked_by is not None:
                await record_in_tx(conn, _act("reconciliation.start", start.run, start.asked_by, start.key_id))
        return RunPlan(nodes=nodes)

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
        return [
            *broken_rules(broken),
            *(loose_hold(FindingKind.HOLD_WITHOUT_PAYMENT, each) for each in holds),
            *(loose_hold(FindingKind.PAYMENT_WITHOUT_HOLD, each) for each in payments),
            *(loose_hold(FindingKind.CANCELLATION_OVERDUE, each) for each in overdue),
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


_SAYS_NOTHING = frozenset({FindingKind.PLACE_UNREACHABLE, FindingKind.PLACE_MOVING})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """Node and books at one moment, matched by name. `quiet` when nothing moved while the node was read."""

    books: BooksCut
    held: NodeBalances
    known: Counterparts
    match: matching.Match
    quiet: bool


@dataclass(frozen=True, slots=True)
class _Look:
    """The result of looking. `moving`: quiet cuts or looks did not agree, so nothing can be said about the node."""

    accounts: list[AccountComparison]
    findings: list[Finding]
    left: dict[str, int]
    held: NodeBalances
    pending: list[Pending]
    moving: bool


class PlaceReconciliations(PlaceReconciliationActivities):
    """A node's side; bound to one node."""

    def __init__(self, lnd: LndNode, history: LndHistory, pool: Pool, client: Client) -> None:
        self._lnd = lnd
        self._history = history
        self._pool = pool
        self._client = client

    @activity.defn
    async def compare_node(self, comparison: NodeComparison) -> PlaceReport:
        """A rest that is the same in two looks is a difference.

        Old cases that operators have explained need no longer look while nothing changes: a rest of exactly their
        amounts is theirs. For any other rest the look reaches back to the oldest of these cases, and names each item.
        """
        async with heartbeats():
            async with self._pool.acquire() as conn:
                window = await lookback.read_window(conn, self._lnd.name)
                agreed = await list_agreed_channels(conn, self._lnd.name)
                explained = await lookback.list_explained(conn, self._lnd.name)
            look = await self._look_often(window.since, agreed, explained)
            if look.left and not look.moving and window.since_explained < window.since:
                look = await self._look_often(window.since_explained, agreed, [])
            findings = look.findings
            if look.moving:
                findings = [*findings, place_moving(self._lnd.name, look.accounts)]
            elif look.left:
                changes = await self._history.list_changes(int(window.adopted_at.timestamp()))
                findings = [*findings, *matching.unexplained(look.left, changes)]
            elif not findings:
                await self._agree(look)
            stuck = await self._stuck(look.pending, comparison.stuck_after_s)
        return PlaceReport(place=self._lnd.name, accounts=look.accounts, findings=[*findings, *stuck])

    async def _look_often(
        self, since: datetime, agreed: Sequence[AgreedChannel], explained: Sequence[NewCase]
    ) -> _Look:
        before: _Look | None = None
        for _ in range(_LOOKS):
            look = await self._look(since, agreed, explained)
            if not look.moving and (not look.left or (before is not None and look.left == before.left)):
                return look
            before = None if look.moving else look
        return replace(look, moving=True)

    async def _look(self, since: datetime, agreed: Sequence[AgreedChannel], explained: Sequence[NewCase]) -> _Look:
        """List the node's memory once. Then cut until one cut leaves no rest, or two quiet ones leave the same.

        The list begins with the next full second after `since`. What was made before that is looked up one by one.
        """
        since_s = int(since.timestamp()) + 1
        seen: list[dict[str, int]] = []
        async with self._history.follow() as news:
            listed = matching.Memory(
                paid_out=await self._history.list_paid_out(since_s),
                paid_in=await self._history.list_paid_in(since_s),
                now_s=int(time.time()),
            )
            for _ in range(_CUTS):
                cut = await self._cut(since, listed, news)
                findings = [*cut.match.findings, *await self._look_for(cut)][:_MANY]
                in_flight = cut.match.in_flight
                accounts = matching.compare(self._lnd.name, cut.books, cut.held, in_flight, findings)
                if matching.rests(accounts, findings):
                    in_flight = [*in_flight, *await list_parts(self._lnd, cut.known.pending.values())]
                    accounts = matching.compare(self._lnd.name, cut.books, cut.held, in_flight, findings)
                left = matching.rests(accounts, findings)
                if left:
                    findings += await self._name_channels(agreed, cut.held, left)
                    left = matching.rests(accounts, findings)
                    whole = [*findings, *matching.standing(explained, findings)]
                    if left and not matching.rests(accounts, whole):
                        findings, left = whole, {}
                look = _Look(accounts, findings, left, cut.held, list(cut.known.pending.values()), moving=False)
                if not left or (cut.quiet and left in seen):
                    return look
                seen += [left] if cut.quiet else []
                await asyncio.sleep(_PAUSE_S)
        return replace(look, moving=True)

    async def _cut(self, since: datetime, listed: matching.Memory, news: News) -> _Cut:
        """Read the node's balances and what had ended by then, then the books and what had ended by that time."""
        heard = news.count()
        held = await self._lnd.read_balances()
        memory = listed.and_then(news)
        quiet = held.steady and heard == news.count()
        async with self._pool.acquire() as conn:
            books, known = await read_counterparts(conn, self._lnd.name, since, matching.refs_of(memory))
        match = matching.match(self._lnd.name, memory, known, listed.and_then(news))
        return _Cut(books=books, held=held, known=known, match=match, quiet=quiet)

    async def _name_channels(
        self, agreed: Sequence[AgreedChannel], held: NodeBalances, left: dict[str, int]
    ) -> list[Finding]:
        """The part of the rest that closed channels and changed fee rates explain."""
        gone = channel.list_gone(agreed, held.channels)
        ends = await self._history.list_ends(gone) if gone else []
        found = channel.name_ends(self._lnd.name, agreed, ends, left)
        beside = {account: left_msat - _sum_on(account, found) for account, left_msat in left.items()}
        return [*found, *channel.name_fees(self._lnd.name, agreed, held.channels, beside)]

    async def _agree(self, look: _Look) -> None:
        """Note the agreement of books and node, channel by channel.

        Not while a commitment fee is on the other of two accounts: such a fee is not the share of a channel.
        """
        escrow = chart.commit_escrow(self._lnd.name)
        if any(each.in_flight for each in look.accounts if each.account == escrow):
            return
        async with self._pool.acquire() as conn:
            await agree(conn, self._lnd.name, [AgreedChannel(**asdict(channel)) for channel in look.held.channels])

    async def _look_for(self, cut: _Cut) -> list[Finding]:
        """Ask the node about each reference that is booked and was not in its list."""
        missing = []
        for ref in cut.match.unmatched[:_MANY]:
            payment_hash = PaymentHash(ref.split(":")[1])
            if ref == matching.settle_ref(payment_hash):
                paid = await self._lnd.find_payment(payment_hash)
                done = paid is not None and paid.status is NodePaymentStatus.SUCCEEDED
            else:
                received = await self._lnd.find_invoice(payment_hash)
                done = received is not None and received.settled
            if not done:
                missing.append(matching.not_at_node(self._lnd.name, ref, cut.known.booked[ref]))
        return missing

    async def _stuck(self, pending: Sequence[Pending], stuck_after_s: int) -> list[Finding]:
        """Payments that have been pending long, with the node's status, and payments without a running workflow."""
        found = []
        for waiting in pending:
            if waiting.age_s < min(stuck_after_s, _ORPHANED_AFTER_S):
                continue
            at_node = await self._lnd.find_payment(waiting.payment_hash)
            state = at_node.status.value if at_node else "not known"
            runs = await self._runs(waiting.workflow_id)
            async with self._pool.acquire() as conn:
                if not await is_pending(conn, waiting.id):
                    continue
            if runs and waiting.age_s < stuck_after_s:
                continue
            kind = FindingKind.PAYMENT_PENDING_LONG if runs else FindingKind.PAYMENT_ORPHANED
            found.append(payment_waits(kind, self._lnd.name, waiting, state))
        return found

    async def _runs(self, workflow_id: str) -> bool:
        try:
            description = await self._client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        return description.status is WorkflowExecutionStatus.RUNNING


def _act(action: str, subject: str, operator: str, key_id: str | None, **detail: object) -> Act:
    return Act(operator=operator, key_id=key_id or "temporal", action=action, subject=subject, detail=detail)


def _sum_on(account: str, findings: Sequence[Finding]) -> int:
    return sum(finding.amount_msat for finding in findings if finding.account == account)


def _status(statuses: list[str], *, incomplete: bool) -> RunStatus:
    if "open" in statuses:
        return RunStatus.DIFFERS
    if incomplete:
        return RunStatus.INCOMPLETE
    return RunStatus.EXPLAINED if statuses else RunStatus.CLEAN
