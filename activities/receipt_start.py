"""Starts the workflows that credit receipts: of one receipt, or of a page of them."""

import asyncio
from collections.abc import Sequence

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError

from engine.clients.lnd.client import NodeInvoice
from engine.contracts.invoice import Receipt, ReceiptPage, receipts_start, receive_start
from engine.contracts.workflow_start import start_workflow
from engine.domain.ids import NodeName


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
