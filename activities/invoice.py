"""Receipts: credit once, whoever tells of it and however often; and the look at invoices that are overdue."""

import asyncio

from temporalio import activity
from temporalio.client import Client
from temporalio.common import SearchAttributePair as Pair
from temporalio.common import TypedSearchAttributes, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.heartbeat import heartbeats
from engine.clients.lnd import LndNode, NodeInvoice
from engine.contracts import queues
from engine.contracts.invoice import (
    CreditedReceipt,
    InvoiceActivities,
    InvoiceSweepActivities,
    Receipt,
    SweepPage,
    SweptPage,
)
from engine.domain.errors import Refused
from engine.domain.ids import InvoiceId, NodeName, PaymentHash
from engine.domain.money import Msat, msat_to_sat_floor
from engine.ledger import chart, invoice
from engine.ledger.database import Connection, Pool, transaction
from engine.ledger.fees import Charge, FeeBook
from engine.ledger.store import post_in_tx

_GRACE_S = 30
"""After our expiry, before the node is asked: LND has then closed the invoice itself."""
_PAGE = 100
_SIDE_BY_SIDE = 10


class Receipts(InvoiceActivities):
    """The ledger's side."""

    def __init__(self, pool: Pool, ids: chart.Chart) -> None:
        self._pool = pool
        self._ids = ids
        self._fees = FeeBook()

    @activity.defn
    async def credit_receipt(self, receipt: Receipt) -> CreditedReceipt:
        """What came from outside is credited also when one of our users had paid; that is flagged.

        Our fee is computed once: a repeat finds the row received and asks for no schedule. An account that is closed
        gets nothing any more: the money waits in suspense, as if the invoice were not ours.
        """
        try:
            return await self._credit(receipt)
        except Refused as refused:
            if refused.code != "account_closed":
                raise
            return await self._credit(receipt)  # closed at this very moment: the second look sees it

    async def _credit(self, receipt: Receipt) -> CreditedReceipt:
        async with transaction(self._pool) as conn:
            ours = await invoice.find_row_in_tx(conn, receipt.payment_hash)
            payee = ours if ours is not None and not ours.payee_closed else None
            wallet_id = payee.wallet_id if payee else None
            paid_inside = ours is not None and ours.paid_by is not None
            if ours is not None and ours.outside_msat > 0:
                return CreditedReceipt(credited=False, wallet_id=ours.wallet_id, paid_twice=paid_inside)
            charge = await self._charge(conn, payee, receipt.received_msat) if payee else None
            posting = await invoice.received(
                conn,
                self._ids,
                payment_hash=receipt.payment_hash,
                node=receipt.node,
                amount_msat=receipt.received_msat,
                payee_account=payee.ledger_account_id if payee else None,
                beside_internal=paid_inside,
                charge=charge,
            )
            posted = await post_in_tx(conn, posting)
            if payee is not None:
                await invoice.mark_received_in_tx(conn, payee, receipt.received_msat, charge)
        return CreditedReceipt(credited=posted.fresh, wallet_id=wallet_id, paid_twice=paid_inside and payee is not None)

    async def _charge(self, conn: Connection, ours: invoice.InvoiceRow, received_msat: Msat) -> Charge:
        return await self._fees.charge(
            conn, "lightning_in", received_msat, level=ours.level, version=ours.fees_in_force
        )


class InvoiceSweep(InvoiceSweepActivities):
    """The node's side; bound to one node."""

    def __init__(self, lnd: LndNode, pool: Pool, client: Client) -> None:
        self._lnd = lnd
        self._pool = pool
        self._client = client

    @activity.defn
    async def sweep_invoices(self, page: SweepPage) -> SweptPage:
        async with heartbeats():
            async with self._pool.acquire() as conn:
                overdue = await invoice.list_overdue(
                    conn, page.node, after=InvoiceId(page.after), grace_s=_GRACE_S, limit=_PAGE
                )
            gate = asyncio.Semaphore(_SIDE_BY_SIDE)

            async def look(payment_hash: PaymentHash) -> NodeInvoice | None:
                async with gate:
                    return await self._lnd.find_invoice(payment_hash)

            found = await asyncio.gather(*(look(payment_hash) for _, payment_hash in overdue))
            received = [known for known in found if known and known.settled]
            # What the node does not have cannot be paid there any more.
            expired = [
                payment_hash
                for (_, payment_hash), known in zip(overdue, found, strict=True)
                if known is None or known.cancelled
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


async def start_receive(client: Client, node: NodeName, known: NodeInvoice) -> None:
    """Begin the receipt of a settled invoice, or find it begun. Returns when Temporal has accepted it."""
    try:
        await client.start_workflow(
            "ReceiveWorkflow",
            Receipt(payment_hash=known.payment_hash, node=node, received_msat=known.received_msat),
            id=queues.receive_workflow_id(known.payment_hash),
            task_queue=queues.PAYMENTS,
            task_timeout=queues.TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            static_summary=f"receive {msat_to_sat_floor(known.received_msat):,} sat over {node}",
            search_attributes=TypedSearchAttributes(
                [
                    Pair(queues.KIND, "receive"),
                    Pair(queues.STATUS, "received"),
                    Pair(queues.PAYMENT_HASH, known.payment_hash),
                    Pair(queues.AMOUNT_SAT, msat_to_sat_floor(known.received_msat)),
                    Pair(queues.NEEDS_OPERATOR, value=False),
                ]
            ),
        )
    except WorkflowAlreadyStartedError:
        activity.logger.debug("receipt of %s is done", known.payment_hash)
