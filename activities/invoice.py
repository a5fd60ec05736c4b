"""Credits receipts, each once, however often it is reported.

A single receipt and a page of receipts follow the same rules. The invoice's row is locked first, and it says whether
money has come from outside before. So a page, a single receipt and an internal payment come one after the other.
"""

from dataclasses import dataclass

from temporalio import activity

from engine.bank import fee_schedule, invoice
from engine.contracts import workflow_ids
from engine.contracts.invoice import (
    CreditedPage,
    CreditedReceipt,
    InvoiceActivities,
    Receipt,
    ReceiptPage,
    ReceiptVerdict,
)
from engine.domain.errors import EngineError, InvariantBroken, Refused
from engine.ledger import chart
from engine.ledger.book import Posting
from engine.ledger.database import Connection, Pool, transaction
from engine.ledger.postings.receipt import credited
from engine.ledger.postings.suspense import unclaimed
from engine.ledger.store import post_in_tx, post_new_batch_in_tx, post_new_in_tx


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
