"""A node's streams, turned into workflow starts and signals.

* Settled invoices: handed on in pages; the cursor in Postgres moves only when Temporal has accepted every receipt of
  the page. One that comes alone has a workflow of its own and waits for nobody; those of a page share one. LND gives no
  backlog for a cursor of 0, so of a node that was never paid the first receipts are taken from a list, which is asked
  for when the stream has told of one.
* Outgoing payments: each final update wakes the payment's workflow, which looks for itself. A payment that its send
  still follows is told by that: it is woken only if it still waits some seconds later. After every reconnect all that
  wait are woken once, because their updates may have come while nobody listened. A success for which nothing is held
  starts a reconciliation.
* Tending: invoices settled in the ledger are cancelled at the node within a second, and the node reports that it is
  alive and how much it can send and receive.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from temporalio import activity
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeat import heartbeats
from activities.invoice import start_receipts
from engine.clients.lnd import LndNode, NodeInvoice, NodePayment, NodePaymentStatus
from engine.contracts import queues
from engine.contracts.invoice import MAX_RECEIPTS
from engine.contracts.pump import PumpActivities, PumpInput
from engine.contracts.reconciliation import Reconcile
from engine.domain.errors import InvariantBroken
from engine.ledger import invoice, node, payment, sending
from engine.ledger.database import Pool

_PAGE = MAX_RECEIPTS
_IDLE_S = 0.5
_SEND_TELLS_S = 5
"""How long the send that follows a payment has to tell its workflow: one that knows already needs no signal."""
_LONGEST_PAUSE_S = 600
_REPORT_EVERY = 4
"""Rounds of tending between two reports of what the node can send and receive."""


class Pump(PumpActivities):
    """Bound to one node. At most `together` receipts share a workflow."""

    def __init__(self, lnd: LndNode, pool: Pool, client: Client, together: int) -> None:
        self._lnd = lnd
        self._pool = pool
        self._client = client
        self._together = together

    @activity.defn
    async def pump_invoices(self, pump: PumpInput) -> None:
        async with heartbeats():
            await self._require_adopted_node()
            cursor = await self._find_start()
            queue: asyncio.Queue[NodeInvoice] = asyncio.Queue(maxsize=_PAGE)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_fill(queue, self._lnd.follow_settled_invoices(cursor)))
                tasks.create_task(self._hand_on(queue))

    @activity.defn
    async def pump_payments(self, pump: PumpInput) -> None:
        async with heartbeats():
            await self._require_adopted_node()
            followed: asyncio.Queue[tuple[float, NodePayment]] = asyncio.Queue()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._wake_final(followed))
                tasks.create_task(self._wake_late(followed))
                tasks.create_task(self._wake_all())

    @activity.defn
    async def tend_node(self, pump: PumpInput) -> None:
        async with heartbeats():
            await self._require_adopted_node()
            while True:
                room = await self._lnd.read_room()
                async with self._pool.acquire() as conn:
                    await node.report_room(
                        conn, self._lnd.name, room.outbound_msat, room.inbound_msat, room.announced_inbound_msat
                    )
                for _ in range(_REPORT_EVERY):
                    await self._cancel_settled()
                    await asyncio.sleep(_IDLE_S)

    async def _require_adopted_node(self) -> None:
        """Asked at every connect: another node at the same address must not inherit this one's receipts."""
        identity = await self._lnd.get_identity()
        async with self._pool.acquire() as conn:
            adopted = await node.find_pubkey(conn, self._lnd.name)
        if identity.pubkey != adopted:
            raise InvariantBroken(f"{self._lnd.name} was adopted as {adopted}, and {identity.pubkey} answers")

    async def _find_start(self) -> int:
        """The cursor to subscribe from: never 0, for which LND gives no backlog."""
        while True:
            async with self._pool.acquire() as conn:
                cursor = await node.read_cursor(conn, self._lnd.name)
            if cursor > 0:
                return cursor
            await until_paid(self._lnd)
            # Listed once more: what settled first is in a list that began after something had settled.
            settled = await self._lnd.list_settled_invoices()
            await start_receipts(self._client, self._lnd.name, settled, together=self._together)
            async with self._pool.acquire() as conn:
                await node.move_cursor(conn, self._lnd.name, 1)

    async def _hand_on(self, queue: asyncio.Queue[NodeInvoice]) -> None:
        while True:
            page = [await queue.get()]
            while len(page) < _PAGE and not queue.empty():
                page.append(queue.get_nowait())
            await start_receipts(self._client, self._lnd.name, page, together=self._together)
            async with self._pool.acquire() as conn:
                await node.move_cursor(conn, self._lnd.name, max(known.settle_index for known in page))

    async def _wake_final(self, followed: asyncio.Queue[tuple[float, NodePayment]]) -> None:
        now = asyncio.get_running_loop().time
        async with aclosing(self._lnd.follow_payments()) as updates:
            async for update in updates:
                if update.status is NodePaymentStatus.IN_FLIGHT:
                    continue
                async with self._pool.acquire() as conn:
                    watched = await sending.has_wait(conn, update.payment_hash)
                if watched:
                    await self._tell(update)
                else:
                    followed.put_nowait((now() + _SEND_TELLS_S, update))
        raise ConnectionResetError(f"{self._lnd.name} closed its stream of payments")

    async def _wake_late(self, followed: asyncio.Queue[tuple[float, NodePayment]]) -> None:
        """What is lost with this process is made good by the next one's `_wake_all`."""
        while True:
            due, update = await followed.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            await self._tell(update)

    async def _tell(self, update: NodePayment) -> None:
        async with self._pool.acquire() as conn:
            workflow_id = await payment.find_waiting_workflow(conn, update.payment_hash)
            unheld = (
                workflow_id is None
                and update.status is NodePaymentStatus.SUCCEEDED
                and await payment.find_live_status(conn, update.payment_hash) is None
            )
        if workflow_id is not None:
            await self._wake(workflow_id)
        elif unheld:
            activity.logger.error("%s has paid %s, for which nothing is held", self._lnd.name, update.payment_hash)
            await self._reconcile()

    async def _reconcile(self) -> None:
        """Have the books held against the nodes at once. One run at a time: the hourly one finds what it may miss."""
        await self._client.start_workflow(
            "ReconciliationWorkflow",
            Reconcile(),
            id=queues.RECONCILIATION_NOW,
            task_queue=queues.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary="hold the books against every node: one has paid what nobody asked for",
            search_attributes=TypedSearchAttributes([SearchAttributePair(queues.KIND, "reconciliation")]),
        )

    async def _wake_all(self) -> None:
        async with self._pool.acquire() as conn:
            waiting = await payment.list_in_flight(conn, self._lnd.name)
        for workflow_id in waiting:
            await self._wake(workflow_id)

    async def _wake(self, workflow_id: str) -> None:
        try:
            await self._client.get_workflow_handle(workflow_id).signal("node_reported")
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            activity.logger.error("%s is pending in the books and has no running workflow", workflow_id)

    async def _cancel_settled(self) -> None:
        """An invoice that somebody outside has paid as well cannot be cancelled: its receipt comes over the stream."""
        async with self._pool.acquire() as conn:
            notes = await invoice.list_cancellations(conn, self._lnd.name, _PAGE)
        if not notes:
            return
        await asyncio.gather(*(self._lnd.cancel_invoice(payment_hash) for payment_hash in notes))
        async with self._pool.acquire() as conn:
            await invoice.mark_cancellations_done(conn, notes)


async def until_paid(lnd: LndNode) -> None:
    """Return when the node has settled its first invoice.

    The stream tells at once. What settled before the node had opened the stream is in a list; a list costs the node
    as much as it ever made invoices, so the looks become rare while the stream is open. Raises what breaks the stream.
    """
    async with aclosing(lnd.follow_settled_invoices(0)) as stream:
        told = asyncio.create_task(_first(stream))
        pause_s = _IDLE_S
        try:
            while not told.done() and not await lnd.list_settled_invoices():
                await asyncio.wait({told}, timeout=pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if told.done():
                told.result()  # raises what broke the stream
        finally:
            told.cancel()
            await asyncio.wait({told})


async def _first(stream: AsyncGenerator[NodeInvoice, None]) -> NodeInvoice:
    async for known in stream:
        return known
    raise ConnectionResetError("the node closed its stream of invoices")


async def _fill(queue: asyncio.Queue[NodeInvoice], stream: AsyncGenerator[NodeInvoice, None]) -> None:
    async with aclosing(stream) as settled:
        async for known in settled:
            await queue.put(known)
    raise ConnectionResetError("the node closed its stream of invoices")
