"""Asks a node about overdue invoices, and about receipts that were handed on and are not credited."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress

from temporalio import activity
from temporalio.client import Client

from activities.heartbeat import heartbeats
from activities.receipt_start import start_receive
from engine.bank import invoice
from engine.bank.node import node
from engine.clients.lnd.client import LndNode, NodeInvoice
from engine.contracts.invoice import InvoiceSweepActivities, SweepPage, SweptPage
from engine.domain.errors import EngineError
from engine.domain.ids import InvoiceId, NodeName, PaymentHash
from engine.ledger.database import Pool

_GRACE_S = 30
"""The time from our expiry to the question to the node. By then LND has closed the invoice itself."""
_PAGE = 100
_SIDE_BY_SIDE = 10
_LOOKED_AFTER = 1000
"""How many receipts a sweep checks for their credit."""
_BACKLOG_S = 5


class InvoiceSweep(InvoiceSweepActivities):
    """The node's side; bound to one node."""

    def __init__(self, lnd: LndNode, pool: Pool, client: Client) -> None:
        self._lnd = lnd
        self._pool = pool
        self._client = client

    @activity.defn
    async def sweep_invoices(self, page: SweepPage) -> SweptPage:
        async with heartbeats():
            if not page.after:
                await self._look_after_handed_on(page.node)
            async with self._pool.acquire() as conn:
                overdue = await invoice.list_overdue(
                    conn, page.node, after=InvoiceId(page.after), grace_s=_GRACE_S, limit=_PAGE
                )
            gate = asyncio.Semaphore(_SIDE_BY_SIDE)

            async def look(payment_hash: PaymentHash) -> NodeInvoice | EngineError | None:
                async with gate:
                    try:
                        return await self._lnd.find_invoice(payment_hash)
                    except EngineError as error:
                        return error

            found = await asyncio.gather(*(look(payment_hash) for _, payment_hash in overdue))
            _require_an_answer(overdue, found)
            received = [known for known in found if isinstance(known, NodeInvoice) and known.settled]
            # An invoice that the node does not have cannot be paid there any more.
            expired = [
                payment_hash
                for (_, payment_hash), known in zip(overdue, found, strict=True)
                if known is None or (isinstance(known, NodeInvoice) and known.cancelled)
            ]
            for known in received:
                await start_receive(self._client, page.node, known)
            async with self._pool.acquire() as conn:
                await invoice.mark_expired(conn, expired)
        return SweptPage(
            looked_at=len(overdue),
            received=len(received),
            expired=len(expired),
            next_after=overdue[-1][0] if len(overdue) == _PAGE else None,
        )

    async def _look_after_handed_on(self, name: NodeName) -> None:
        """Start the workflows again of receipts that the pump has handed on and that are not credited.

        Only receipts that had been handed on at the last sweep count. One that is being credited now is credited once.
        """
        async with self._pool.acquire() as conn:
            handed = await node.read_handed(conn, name)
        settled = await self._read_settled(handed.credited_index, handed.handed_on_index)
        async with self._pool.acquire() as conn:
            uncredited = await invoice.list_uncredited(conn, [known.payment_hash for known in settled])
        lost = [known for known in settled if known.payment_hash in uncredited]
        for known in lost:
            activity.logger.warning("%s was handed on and is not credited: begun again", known.payment_hash)
            await start_receive(self._client, name, known)
        credited_index = settled[-1].settle_index if settled else handed.credited_index
        if not settled and credited_index == 0:  # do not list all that the node ever made a second time
            credited_index = handed.handed_on_index
        if lost and len(settled) < _LOOKED_AFTER:  # after a full page go on: each of its workflows calls an operator
            credited_index = lost[0].settle_index - 1
        async with self._pool.acquire() as conn:
            await node.note_handed(conn, name, credited_index=credited_index, handed_on_index=handed.settle_index)

    async def _read_settled(self, after: int, up_to: int) -> list[NodeInvoice]:
        """Invoices with a settle index above `after` and up to `up_to`, in order; at most `_LOOKED_AFTER` of them."""
        if up_to <= after:
            return []
        if after == 0:  # LND gives no backlog for 0
            every = sorted(await self._lnd.list_settled_invoices(), key=lambda known: known.settle_index)
            return [known for known in every if known.settle_index <= up_to][:_LOOKED_AFTER]
        found: list[NodeInvoice] = []
        with suppress(TimeoutError):  # the node may have forgotten the last of them
            async with asyncio.timeout(_BACKLOG_S), aclosing(self._lnd.follow_settled_invoices(after)) as stream:
                async for known in stream:
                    if known.settle_index <= up_to:
                        found.append(known)
                    if known.settle_index >= up_to or len(found) == _LOOKED_AFTER:
                        break
        return found


def _require_an_answer(
    overdue: Sequence[tuple[InvoiceId, PaymentHash]], found: Sequence[NodeInvoice | EngineError | None]
) -> None:
    """Raises when every look failed: the node is away. A single failure is logged, and the next sweep looks again."""
    failures = [each for each in found if isinstance(each, EngineError)]
    if failures and len(failures) == len(found):
        raise failures[0]
    for (_, payment_hash), each in zip(overdue, found, strict=True):
        if isinstance(each, EngineError):
            activity.logger.warning("%s could not be looked up, the next sweep does: %s", payment_hash, each)
