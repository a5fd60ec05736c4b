"""Compares the books with one node: what its looks find (`look.py`), and payments that wait too long."""

from collections.abc import Sequence
from dataclasses import asdict

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeat import heartbeats
from activities.reconciliation import look, matching
from activities.reconciliation.findings import payment_waits, place_moving
from engine.bank import agreement, lookback
from engine.bank.reconciliation import Pending, is_pending
from engine.clients.lnd.client import LndNode
from engine.clients.lnd.history import LndHistory
from engine.contracts.reconciliation import (
    Finding,
    FindingKind,
    NodeComparison,
    PlaceReconciliationActivities,
    PlaceReport,
)
from engine.ledger import chart
from engine.ledger.database import Pool

_ORPHANED_AFTER_S = 60


class PlaceReconciliations(PlaceReconciliationActivities):
    """A node's side; bound to one node."""

    def __init__(self, lnd: LndNode, history: LndHistory, pool: Pool, client: Client) -> None:
        self._lnd = lnd
        self._history = history
        self._pool = pool
        self._client = client
        self._looker = look.Looker(lnd, history, pool)

    @activity.defn
    async def compare_node(self, comparison: NodeComparison) -> PlaceReport:
        """A rest that is the same in two looks is a difference.

        Old cases that operators have explained need no longer look while nothing changes: a rest of exactly their
        amounts is theirs. For any other rest the look reaches back to the oldest of these cases, and names each item.
        """
        async with heartbeats():
            async with self._pool.acquire() as conn:
                window = await lookback.read_window(conn, self._lnd.name)
                agreed = await agreement.list_agreed_channels(conn, self._lnd.name)
                explained = await lookback.list_explained(conn, f"asset:lnd:{self._lnd.name}:")
            seen = await self._looker.look_often(window.since, agreed, explained)
            if seen.left and not seen.moving and window.since_explained < window.since:
                seen = await self._looker.look_often(window.since_explained, agreed, [])
            findings = seen.findings
            if seen.moving:
                findings = [*findings, place_moving(self._lnd.name, seen.accounts)]
            elif seen.left:
                changes = await self._history.list_changes(int(window.adopted_at.timestamp()))
                findings = [*findings, *matching.unexplained(seen.left, changes)]
            elif not findings:
                await self._agree(seen)
            stuck = await self._stuck(seen.pending, comparison.stuck_after_s)
        return PlaceReport(place=self._lnd.name, accounts=seen.accounts, findings=[*findings, *stuck])

    async def _agree(self, seen: look.Look) -> None:
        """Note the agreement of books and node, channel by channel.

        Not while a commitment fee is on the other of two accounts: such a fee is not the share of a channel.
        """
        escrow = chart.commit_escrow(self._lnd.name)
        if any(each.in_flight for each in seen.accounts if each.account == escrow):
            return
        async with self._pool.acquire() as conn:
            channels = [agreement.AgreedChannel(**asdict(channel)) for channel in seen.held.channels]
            await agreement.agree(conn, self._lnd.name, channels)

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
