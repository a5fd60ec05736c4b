"""Receipts, the sweep, the adoption of a node and its pump, with fakes behind the real contracts."""

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
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
)
from engine.contracts.node import AdoptNode, NodeActivities, NodePosition, NodePositionActivities
from engine.contracts.pump import PumpActivities, PumpInput
from engine.domain.errors import InvariantBroken, Unavailable
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat
from tests.fixtures.stack import eventually
from tests.helpers.event_loop import until
from workflows.invoice import InvoiceSweepWorkflow, ReceiptPageWorkflow, ReceiveWorkflow
from workflows.node import AdoptNodeWorkflow
from workflows.pump import LndPumpWorkflow

pytestmark = pytest.mark.workflow

NODE = NodeName("lnd-1")
RECEIPT = Receipt(payment_hash=PaymentHash("ab" * 32), node=NODE, received_msat=Msat(1_000))
CREDITED, KNOWN, LEFT_ALONE = ReceiptVerdict.CREDITED, ReceiptVerdict.KNOWN, ReceiptVerdict.LEFT_ALONE


@dataclass
class FakeBooks(InvoiceActivities, NodeActivities):
    """Fails as often as it is told, then answers."""

    credited: CreditedReceipt = field(default_factory=lambda: CreditedReceipt(credited=True, wallet_id="wal_1"))
    broken: int = 0
    verdicts: list[ReceiptVerdict] = field(default_factory=list)
    alone: list[PaymentHash] = field(default_factory=list)
    booked: list[NodePosition] = field(default_factory=list)

    @activity.defn
    async def credit_receipt(self, receipt: Receipt) -> CreditedReceipt:
        if self.broken > 0:
            self.broken -= 1
            raise InvariantBroken("the books contradict themselves")
        self.alone.append(receipt.payment_hash)
        return self.credited

    @activity.defn
    async def credit_receipts(self, page: ReceiptPage) -> CreditedPage:
        if self.broken > 0:
            self.broken -= 1
            raise InvariantBroken("the books contradict themselves")
        return CreditedPage(verdicts=self.verdicts)

    @activity.defn
    async def book_opening(self, position: NodePosition) -> bool:
        self.booked.append(position)
        return True


@dataclass
class FakeNode(InvoiceSweepActivities, NodePositionActivities, PumpActivities):
    """Three pages of invoices, a position that is at rest the second time, and streams that end when told."""

    pages: list[str] = field(default_factory=list)
    restless: int = 0
    wrong_macaroon: bool = False
    streams: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @activity.defn
    async def sweep_invoices(self, page: SweepPage) -> SweptPage:
        self.pages.append(page.after)
        following = {"": "inv_1", "inv_1": "inv_2"}.get(page.after)
        return SweptPage(looked_at=100, received=1, expired=2, next_after=following)

    @activity.defn
    async def read_position(self, adopt: AdoptNode) -> NodePosition:
        if self.restless > 0:
            self.restless -= 1
            raise Unavailable("something is in flight")
        return NodePosition(
            node=adopt.node,
            pubkey="02" + "ab" * 32,
            channels_msat=Msat(10),
            commit_escrow_msat=Msat(3),
            onchain_msat=Msat(7),
            settle_index=4,
        )

    @activity.defn
    async def pump_invoices(self, pump: PumpInput) -> None:
        await self._stream()

    @activity.defn
    async def pump_payments(self, pump: PumpInput) -> None:
        await self._stream()

    @activity.defn
    async def tend_node(self, pump: PumpInput) -> None:
        if self.wrong_macaroon:
            self.wrong_macaroon = False
            raise InvariantBroken("permission denied")
        await self._stream()

    async def _stream(self) -> None:
        self.streams += 1
        while not self.over.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.02)


def _workers(client: Client, queue: str, books: FakeBooks, node: FakeNode) -> tuple[Worker, Worker]:
    ledger = Worker(
        client,
        task_queue=queue,
        workflows=[ReceiveWorkflow, ReceiptPageWorkflow, InvoiceSweepWorkflow, AdoptNodeWorkflow, LndPumpWorkflow],
        activities=[books.credit_receipt, books.credit_receipts, books.book_opening],
        interceptors=[FailureInterceptor()],
    )
    lightning = Worker(
        client,
        task_queue=queues.lightning_queue(NODE),
        activities=[
            node.sweep_invoices,
            node.read_position,
            node.pump_invoices,
            node.pump_payments,
            node.tend_node,
        ],
        interceptors=[FailureInterceptor()],
    )
    return ledger, lightning


async def _needs_operator(handle: WorkflowHandle[Any, Any]) -> bool | None:
    return (await handle.describe()).typed_search_attributes.get(search_attributes.NEEDS_OPERATOR)


async def test_a_receipt_is_credited_also_when_the_books_are_broken_for_a_while(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    client, name, books = skipping_temporal.client, uuid4().hex, FakeBooks(broken=3)
    ledger, lightning = _workers(client, name, books, FakeNode())
    async with ledger, lightning:
        credited = await client.execute_workflow(ReceiveWorkflow.run, RECEIPT, id=name, task_queue=name)
    assert credited == books.credited


@pytest.mark.parametrize(
    ("credited", "needs_operator"),
    [
        (CreditedReceipt(credited=True, wallet_id="wal_1"), False),
        (CreditedReceipt(credited=True, wallet_id="wal_1", paid_twice=True), True),
        (CreditedReceipt(credited=True, wallet_id=None), True),
    ],
    ids=["plain", "paid twice", "not ours"],
)
async def test_an_operator_is_called_for_what_only_a_person_can_explain(
    skipping_temporal: WorkflowEnvironment, *, credited: CreditedReceipt, needs_operator: bool
) -> None:
    client, name = skipping_temporal.client, uuid4().hex
    ledger, lightning = _workers(client, name, FakeBooks(credited=credited), FakeNode())
    async with ledger, lightning:
        handle = await client.start_workflow(ReceiveWorkflow.run, RECEIPT, id=name, task_queue=name)
        await handle.result()
        assert await _needs_operator(handle) is needs_operator


def page_of(*verdicts: ReceiptVerdict) -> ReceiptPage:
    """Receipts of hashes that no other test has."""
    hashes = [PaymentHash(secrets.token_hex(32)) for _ in verdicts]
    return ReceiptPage(receipts=[Receipt(payment_hash=each, node=NODE, received_msat=Msat(1_000)) for each in hashes])


async def test_only_a_special_receipt_of_a_page_gets_a_workflow_of_its_own(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    client, name = skipping_temporal.client, uuid4().hex
    verdicts = [CREDITED, LEFT_ALONE, KNOWN, LEFT_ALONE, CREDITED]
    page = page_of(*verdicts)
    books = FakeBooks(verdicts=verdicts, credited=CreditedReceipt(credited=True))
    ledger, lightning = _workers(client, name, books, FakeNode())
    hashes = [page.receipts[1].payment_hash, page.receipts[3].payment_hash]
    async with ledger, lightning:
        handle = await client.start_workflow(ReceiptPageWorkflow.run, page, id=name, task_queue=name)
        assert (await handle.result()).verdicts == verdicts
        for payment_hash in hashes:
            alone = client.get_workflow_handle(workflow_ids.receive(payment_hash))
            await alone.result()
            told = await alone.describe()
            assert await _needs_operator(alone)
            assert told.typed_search_attributes.get(search_attributes.PAYMENT_HASH) == payment_hash
        assert not await _needs_operator(handle)
    assert sorted(books.alone) == sorted(hashes)


async def test_a_receipt_that_is_under_way_already_is_not_begun_again_by_its_page(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    client, name = skipping_temporal.client, uuid4().hex
    page = page_of(LEFT_ALONE, CREDITED)
    books = FakeBooks(verdicts=[LEFT_ALONE, CREDITED])
    ledger, lightning = _workers(client, name, books, FakeNode())
    begun = workflow_ids.receive(page.receipts[0].payment_hash)
    async with ledger, lightning:
        await client.execute_workflow(ReceiveWorkflow.run, page.receipts[0], id=begun, task_queue=name)
        await client.execute_workflow(ReceiptPageWorkflow.run, page, id=name, task_queue=name)
    assert books.alone == [page.receipts[0].payment_hash]


async def test_a_page_is_credited_also_when_the_books_are_broken_for_a_while(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    client, name, books = skipping_temporal.client, uuid4().hex, FakeBooks(broken=3, verdicts=[CREDITED, CREDITED])
    page = page_of(*books.verdicts)
    ledger, lightning = _workers(client, name, books, FakeNode())
    async with ledger, lightning:
        credited = await client.execute_workflow(ReceiptPageWorkflow.run, page, id=name, task_queue=name)
    assert credited.verdicts == books.verdicts


async def test_the_sweep_walks_all_pages_in_order(skipping_temporal: WorkflowEnvironment) -> None:
    client, name, node = skipping_temporal.client, uuid4().hex, FakeNode()
    ledger, lightning = _workers(client, name, FakeBooks(), node)
    async with ledger, lightning:
        swept = await client.execute_workflow(InvoiceSweepWorkflow.run, SweepPage(node=NODE), id=name, task_queue=name)
    assert node.pages == ["", "inv_1", "inv_2"]
    assert (swept.looked_at, swept.received, swept.expired, swept.next_after) == (300, 3, 6, None)


async def test_a_node_is_adopted_only_at_rest(skipping_temporal: WorkflowEnvironment) -> None:
    client, name, books, node = skipping_temporal.client, uuid4().hex, FakeBooks(), FakeNode(restless=5)
    ledger, lightning = _workers(client, name, books, node)
    async with ledger, lightning:
        assert await client.execute_workflow(AdoptNodeWorkflow.run, AdoptNode(node=NODE), id=name, task_queue=name)
    assert [position.settle_index for position in books.booked] == [4]


async def test_a_pump_whose_stream_fails_for_good_calls_an_operator_and_begins_anew(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    client, name, node = skipping_temporal.client, uuid4().hex, FakeNode(wrong_macaroon=True)
    ledger, lightning = _workers(client, name, FakeBooks(), node)
    async with ledger, lightning:
        first = await client.start_workflow(LndPumpWorkflow.run, PumpInput(node=NODE), id=name, task_queue=name)
        latest = client.get_workflow_handle(name)
        await until(lambda: node.streams == 2)
        await eventually(lambda: _needs_operator(latest), "an operator to be called")
        node.over.set()  # the clock does not skip while activities run

        async def begun_anew() -> bool | None:
            return True if (await latest.describe()).run_id != first.first_execution_run_id else None

        await eventually(begun_anew, "the pump to begin anew")
        await latest.terminate()
