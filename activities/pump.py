"""Turns a node's streams into workflow starts and signals.

* Settled invoices are handed on in pages. The cursor in Postgres moves only when Temporal has accepted every receipt of
  the page. A single receipt has a workflow of its own; the receipts of a page share one. LND gives no backlog for a
  cursor of 0. So the first receipts of a node that was never paid come from a list, which is read when the stream has
  reported one.
* Outgoing payments: each final update wakes the payment's workflow, which then looks for itself. A payment that its
  send still follows learns its end from the send. It is woken only if it still waits some seconds later. After every
  reconnect the pump asks the node about all waiting payments, because their updates may have come meanwhile. It wakes
  only those with news: each wake adds to a history, and a node may come and go for months. A success for which nothing
  is held starts a reconciliation.
* Tending: invoices settled in the ledger are cancelled at the node within a second. The pump also records that the node
  is alive and how much it can send and receive.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeat import heartbeats
from activities.receipt_start import start_receipts
from engine.bank import invoice, payment, sending
from engine.bank.node import node
from engine.clients.lnd.client import LndNode, NodeInvoice, NodePayment, NodePaymentStatus
from engine.contracts.invoice import MAX_RECEIPTS
from engine.contracts.pump import PumpActivities, PumpInput
from engine.contracts.reconciliation import reconciliation_after_stray_payment
from engine.contracts.workflow_start import start_workflow
from engine.domain.errors import EngineError, InvariantBroken
from engine.domain.ids import PaymentHash
from engine.ledger.database import Pool

_PAGE = MAX_RECEIPTS
_IDLE_S = 0.5
_SEND_TELLS_S = 5
"""How long the send that follows a payment has to report its end, before a workflow that still waits is woken."""
_LONGEST_PAUSE_S = 600
_SIDE_BY_SIDE = 10
_TOLD_AGAIN_AFTER_S = 600
"""How long a woken workflow is not woken again at a reconnect. It looks again by itself."""
_MENDED = ("node_refuses", "node_replaced", "internal_error")
"""Reasons to wait that have ended once this pump could connect."""
_REPORT_EVERY = 4
"""Rounds of tending between two reports of what the node can send and receive."""


class Pump(PumpActivities):
    """Bound to one node. At most `together` receipts share a workflow."""

    def __init__(self, lnd: LndNode, pool: Pool, client: Client, together: int) -> None:
        self._lnd = lnd
        self._pool = pool
        self._client = client
        self._together = together
        self._told: dict[str, float] = {}
        """When each workflow was last woken after a reconnect."""

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
                tasks.create_task(self._wake_those_with_news())

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
        """Called at every connect: another node at the same address must not inherit this node's receipts."""
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
            # List again: only a list that begins after the first invoice has settled is sure to have it.
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
        """Wake the workflows that still wait. After a crash, the next process does so in `_wake_those_with_news`."""
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
        """Start a reconciliation now. One run at a time: the hourly run finds what this one may miss."""
        await start_workflow(self._client, reconciliation_after_stray_payment())

    async def _wake_those_with_news(self) -> None:
        now, after = asyncio.get_running_loop().time(), ""
        self._told = {each: at for each, at in self._told.items() if now < at + _TOLD_AGAIN_AFTER_S}
        while True:
            async with self._pool.acquire() as conn:
                page = await node.list_in_flight(conn, self._lnd.name, after=after, limit=_PAGE)
            if not page:
                return
            for waiting, known in zip(page, await self._look_at(page), strict=True):
                if waiting.workflow_id not in self._told and _has_news(waiting, known):
                    self._told[waiting.workflow_id] = now
                    await self._wake(waiting.workflow_id)
            after = page[-1].id

    async def _look_at(self, page: Sequence[node.InFlight]) -> list[NodePayment | None]:
        """What the node knows of each payment. None also if the node does not answer: that payment looks by itself."""
        gate = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def look(waiting: node.InFlight) -> NodePayment | None:
            async with gate:
                try:
                    return await self._lnd.find_payment(waiting.payment_hash)
                except EngineError as error:
                    activity.logger.warning("%s could not be looked at: %s", waiting.id, error)
                    return None

        return await asyncio.gather(*(look(waiting) for waiting in page))

    async def _wake(self, workflow_id: str) -> None:
        try:
            await self._client.get_workflow_handle(workflow_id).signal("node_reported")
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            activity.logger.error("%s is pending in the books and has no running workflow", workflow_id)

    async def _cancel_settled(self) -> None:
        """Cancel at the node the invoices that were settled in the ledger.

        An invoice that somebody outside has paid as well cannot be cancelled: its receipt comes over the stream. A
        cancellation that fails waits for its own next try. The reconciliation reports it when it is late.
        """
        async with self._pool.acquire() as conn:
            notes = await invoice.list_cancellations(conn, self._lnd.name, _PAGE)
        if not notes:
            return
        gate = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def cancel(payment_hash: PaymentHash) -> str | None:
            async with gate:
                try:
                    await self._lnd.cancel_invoice(payment_hash)
                except EngineError as error:
                    activity.logger.warning("%s could not be cancelled: %s", payment_hash, error)
                    return str(error)
            return None

        problems = dict(zip(notes, await asyncio.gather(*(cancel(each) for each in notes)), strict=True))
        done = [payment_hash for payment_hash, problem in problems.items() if problem is None]
        failed = {payment_hash: problem for payment_hash, problem in problems.items() if problem is not None}
        async with self._pool.acquire() as conn:
            await invoice.mark_cancellations_done(conn, done)
            await invoice.put_cancellations_off(conn, failed)


def _has_news(waiting: node.InFlight, known: NodePayment | None) -> bool:
    """Whether its workflow would find something new: an end, a node that knows the payment again, or access."""
    if waiting.reason in _MENDED:
        return True
    if known is None or known.payment_index <= waiting.known_payment_index:
        return False
    return known.status is not NodePaymentStatus.IN_FLIGHT or waiting.reason == "node_forgot"


async def until_paid(lnd: LndNode) -> None:
    """Return when the node has settled its first invoice.

    The stream reports it at once. An invoice that settled before the node had opened the stream is in a list. The cost
    of a list grows with all invoices of the node, so lists become rare while the stream is open. Raises what breaks the
    stream.
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
