"""Credits receipts, each once, however often it is reported; and looks at overdue invoices.

A single receipt and a page of receipts follow the same rules. The invoice's row is locked first, and it says whether
money has come from outside before. So a page, a single receipt and an internal payment come one after the other.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.heartbeat import heartbeats
from engine.bank import fee_schedule, invoice
from engine.bank.node import node
from engine.clients.lnd.client import LndNode, NodeInvoice
from engine.contracts import workflow_ids
from engine.contracts.invoice import (
    CreditedPage,
    CreditedReceipt,
    InvoiceActivities,
    InvoiceSweepActivities,
    Receipt,
    ReceiptPage,
    ReceiptVerdict,
    SweepPage,
    SweptPage,
    receipts_start,
    receive_start,
)
from engine.contracts.workflow_start import start_workflow
from engine.domain.errors import EngineError, InvariantBroken, Refused
from engine.domain.ids import InvoiceId, NodeName, PaymentHash
from engine.ledger import chart
from engine.ledger.book import Posting
from engine.ledger.database import Connection, Pool, transaction
from engine.ledger.postings.receipt import credited
from engine.ledger.postings.suspense import unclaimed
from engine.ledger.store import post_in_tx, post_new_batch_in_tx, post_new_in_tx

_GRACE_S = 30
"""The time from our expiry to the question to the node. By then LND has closed the invoice itself."""
_PAGE = 100
_SIDE_BY_SIDE = 10
_LOOKED_AFTER = 1000
"""How many receipts a sweep checks for their credit."""
_BACKLOG_S = 5


@dataclass(frozen=True, slots=True)
class _Plan:
    """A receipt that a page can credit, as far as is known."""

    place: int
    posting: Posting
    received: invoice.Received


class Receipts(InvoiceActivities):
    """The ledger's side."""

    def __init__(self, pool: Pool, ids: chart.Chart) -> None:
        self._pool = pool
        self._ids = ids
        self._fees = fee_schedule.FeeBook()

    @activity.defn
    async def credit_receipt(self, receipt: Receipt) -> CreditedReceipt:
        """Money from outside is credited even if one of our users has paid the invoice; the answer flags that.

        Our fee is computed once: a repeat finds the row received and reads no schedule. A closed account gets nothing
        any more: the money waits in suspense, as if the invoice were not ours.
        """
        try:
            return await self._credit(receipt)
        except Refused as refused:
            if refused.code != "account_closed":
                raise
            return await self._credit(receipt)  # the account was closed meanwhile: the second call sees it

    @activity.defn
    async def credit_receipts(self, page: ReceiptPage) -> CreditedPage:
        """A special or refused receipt leaves no trace here: a workflow of its own books it or calls an operator."""
        workflow_id = activity.info().workflow_id or ""
        async with transaction(self._pool) as conn:
            rows = await invoice.find_rows_in_tx(conn, [receipt.payment_hash for receipt in page.receipts])
            verdicts = [_verdict(rows.get(receipt.payment_hash)) for receipt in page.receipts]
            plans: list[_Plan] = []
            firsts: dict[Receipt, int] = {}
            for place, receipt in enumerate(page.receipts):
                if verdicts[place] is ReceiptVerdict.CREDITED and firsts.setdefault(receipt, place) == place:
                    try:
                        received = await self._received(conn, rows[receipt.payment_hash], receipt)
                        posting = await self._posting(conn, receipt, received, workflow_id)
                    except InvariantBroken as error:
                        verdicts[place] = _left_alone(receipt, error)
                    else:
                        plans.append(_Plan(place, posting, received))
            results = await post_new_batch_in_tx(conn, [plan.posting for plan in plans]) if plans else []
            for plan, result in zip(plans, results, strict=True):
                if result is not None:
                    verdicts[plan.place] = _left_alone(page.receipts[plan.place], result)
            credited = [plan.received for plan in plans if verdicts[plan.place] is ReceiptVerdict.CREDITED]
            await invoice.mark_received_in_tx(conn, credited)
        # A receipt that is in the page twice is credited once and has one verdict.
        return CreditedPage(verdicts=[verdicts[firsts.get(each, at)] for at, each in enumerate(page.receipts)])

    async def _credit(self, receipt: Receipt) -> CreditedReceipt:
        async with transaction(self._pool) as conn:
            ours = await invoice.find_row_in_tx(conn, receipt.payment_hash)
            paid_inside = ours is not None and ours.paid_by is not None
            if ours is not None and ours.outside_msat > 0:
                return CreditedReceipt(credited=False, wallet_id=ours.wallet_id, paid_twice=paid_inside)
            received = None if ours is None or ours.payee_closed else await self._received(conn, ours, receipt)
            workflow_id = workflow_ids.receive(receipt.payment_hash)
            posting = await self._posting(conn, receipt, received, workflow_id, beside_internal=paid_inside)
            if received is None:  # no row says whether the money has come before
                return CreditedReceipt(credited=(await post_in_tx(conn, posting)).fresh)
            await post_new_in_tx(conn, posting)
            await invoice.mark_received_in_tx(conn, [received])
        return CreditedReceipt(credited=True, wallet_id=received.invoice.wallet_id, paid_twice=paid_inside)

    async def _received(self, conn: Connection, ours: invoice.InvoiceRow, receipt: Receipt) -> invoice.Received:
        charge = await self._fees.charge(
            conn, "lightning_in", receipt.received_msat, level=ours.level, version=ours.fees_in_force
        )
        return invoice.Received(invoice=ours, amount_msat=receipt.received_msat, charge=charge)

    async def _posting(
        self,
        conn: Connection,
        receipt: Receipt,
        received: invoice.Received | None,
        workflow_id: str,
        *,
        beside_internal: bool = False,
    ) -> Posting:
        ids, channels = await self._ids.load(conn), await self._ids.load_channels(conn, receipt.node)
        if received is None:
            return unclaimed(
                ids,
                payment_hash=receipt.payment_hash,
                amount_msat=receipt.received_msat,
                channels=channels,
                beside_internal=beside_internal,
                workflow_id=workflow_id,
            )
        return credited(
            ids,
            payment_hash=receipt.payment_hash,
            amount_msat=receipt.received_msat,
            channels=channels,
            payee=received.invoice.ledger_account_id,
            charge=received.charge,
            beside_internal=beside_internal,
            workflow_id=workflow_id,
        )


def _verdict(ours: invoice.InvoiceRow | None) -> ReceiptVerdict:
    """The verdict by the row alone. A closed payee, an unknown hash and a second payer need a workflow of their own."""
    if ours is not None and ours.outside_msat > 0:
        return ReceiptVerdict.KNOWN
    if ours is None or ours.payee_closed or ours.paid_by is not None:
        return ReceiptVerdict.LEFT_ALONE
    return ReceiptVerdict.CREDITED


def _left_alone(receipt: Receipt, error: EngineError) -> ReceiptVerdict:
    activity.logger.error("left out of a page: %s: %s", receipt.payment_hash, error)
    return ReceiptVerdict.LEFT_ALONE


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


async def start_receive(client: Client, node: NodeName, known: NodeInvoice) -> None:
    """Start the receipt's workflow of a settled invoice, or find it started. Returns when Temporal has accepted it."""
    try:
        await start_workflow(client, receive_start(_receipt(node, known)))
    except WorkflowAlreadyStartedError:
        activity.logger.debug("receipt of %s is done", known.payment_hash)


async def start_receipts(client: Client, node: NodeName, settled: Sequence[NodeInvoice], *, together: int) -> None:
    """Start the workflows of receipts, with at most `together` in each. Returns when Temporal has accepted all.

    A single receipt starts as in `start_receive`. A receipt that is here twice, or started elsewhere, is credited once.
    """
    known = list({each.payment_hash: each for each in settled}.values())
    pages = [known[at : at + together] for at in range(0, len(known), together)]
    await asyncio.gather(
        *(start_receive(client, node, page[0]) if len(page) == 1 else _start_page(client, node, page) for page in pages)
    )


async def _start_page(client: Client, node: NodeName, page: Sequence[NodeInvoice]) -> None:
    receipts = ReceiptPage(receipts=[_receipt(node, each) for each in page])
    try:
        await start_workflow(client, receipts_start(node, receipts))
    except WorkflowAlreadyStartedError:
        activity.logger.debug("this page of %s receipts is done", len(page))


def _receipt(node: NodeName, known: NodeInvoice) -> Receipt:
    return Receipt(payment_hash=known.payment_hash, node=node, received_msat=known.received_msat)
