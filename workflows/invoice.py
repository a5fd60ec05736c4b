"""Credits an invoice that was paid from outside, and the sweep that finds what was missed.

An open invoice has no workflow: it is a row and a promise. `ReceiveWorkflow` begins when money has arrived, is named by
the payment hash, and credits once. The pump makes that quick. The sweep, which asks the node about every overdue
invoice, makes it certain. Receipts that arrive together share `ReceiptPageWorkflow`; a special one among them gets a
`ReceiveWorkflow` of its own.
"""

from collections import Counter

from temporalio import workflow

from workflows.children import start_child
from workflows.patience import again, in_books, side_by_side, until_done
from workflows.policies import NODE

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues, search_attributes, workflow_ids
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
        receive_start,
    )

_LISTED = 100
"""How many receipts that were left alone the details of a page name. Their kind finds the others."""


@workflow.defn
class ReceiveWorkflow:
    """Credits what was really paid. The pump, the sweep and a page start it; the id lets only one start through."""

    @workflow.run
    async def run(self, receipt: Receipt) -> CreditedReceipt:
        credited = await until_done(
            "crediting",
            lambda: in_books(InvoiceActivities.credit_receipt, receipt),
            renew=again(receipt),
        )
        if credited.paid_twice:
            details = "**paid twice**: one of our users and somebody outside; both credited, the payee should be told"
        elif credited.wallet_id is None:
            details = (
                "**not ours**: no invoice of an open account has this hash: booked to suspense until an operator looks"
            )
        else:
            details = f"**{receipt.received_msat:,} msat credited** to `{credited.wallet_id}`"
        workflow.set_current_details(details)
        workflow.upsert_search_attributes(
            [
                search_attributes.STATUS.value_set("settled"),
                search_attributes.NEEDS_OPERATOR.value_set(credited.paid_twice or credited.wallet_id is None),
            ]
        )
        return credited


@workflow.defn
class ReceiptPageWorkflow:
    """Credits receipts that arrived together, each by itself. After a crash a repeat finds each one credited or not."""

    @workflow.run
    async def run(self, page: ReceiptPage) -> CreditedPage:
        credited = await until_done(
            "crediting",
            lambda: in_books(InvoiceActivities.credit_receipts, page),
            renew=again(page),
        )
        alone = [
            receipt
            for receipt, verdict in zip(page.receipts, credited.verdicts, strict=True)
            if verdict is ReceiptVerdict.LEFT_ALONE
        ]
        await side_by_side(start_child, [receive_start(each) for each in alone])
        ends = Counter(credited.verdicts)
        lines = [", ".join(f"**{count} {verdict}**" for verdict, count in sorted(ends.items())) + ": final"]
        lines += [f"- left alone: `{workflow_ids.receive(receipt.payment_hash)}`" for receipt in alone[:_LISTED]]
        workflow.set_current_details("\n".join(lines))
        workflow.upsert_search_attributes([search_attributes.STATUS.value_set("settled")])
        return credited


@workflow.defn
class InvoiceSweepWorkflow:
    """One walk over a node's overdue invoices, page by page. Started by a schedule; never two at once."""

    @workflow.run
    async def run(self, page: SweepPage) -> SweptPage:
        looked_at = received = expired = 0
        while True:
            swept = await workflow.execute_activity_method(
                InvoiceSweepActivities.sweep_invoices, page, task_queue=queues.lightning_queue(page.node), **NODE
            )
            looked_at, received = looked_at + swept.looked_at, received + swept.received
            expired += swept.expired
            workflow.set_current_details(f"looked at {looked_at}, received {received}, expired {expired}")
            if swept.next_after is None:
                return SweptPage(looked_at=looked_at, received=received, expired=expired, next_after=None)
            page = SweepPage(node=page.node, after=swept.next_after)
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(page)
