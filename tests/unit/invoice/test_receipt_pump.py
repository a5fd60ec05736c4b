"""A node that was never paid: how its first receipt is noticed, and what looking for it costs the node. And which
receipts go together."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from activities import pump
from activities.receipt_start import start_receipts
from engine.clients.lnd.client import NodeInvoice
from engine.contracts.invoice import Receipt, ReceiptPage
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat

pytestmark = pytest.mark.unit


class MadeUpNode:
    """Counts how often its invoices are listed."""

    def __init__(self) -> None:
        self.settled: list[NodeInvoice] = []
        self.lists = 0
        self.told = asyncio.Event()
        self.broken = False

    async def follow_settled_invoices(self, after_index: int) -> AsyncGenerator[NodeInvoice, None]:
        assert after_index == 0
        await self.told.wait()
        if self.broken:
            raise ConnectionResetError("gone")
        yield self.settled[0]

    async def list_settled_invoices(self) -> list[NodeInvoice]:
        self.lists += 1
        return self.settled


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "_IDLE_S", 0.001)


async def test_the_stream_alone_is_enough() -> None:
    node = MadeUpNode()
    waiting = asyncio.create_task(pump.until_paid(cast("Any", node)))
    while node.lists < 5:
        await asyncio.sleep(0)
    assert not waiting.done()
    node.told.set()
    node.settled = [cast("Any", object())]
    await waiting


async def test_an_invoice_settled_before_the_stream_was_open_is_found_in_a_list() -> None:
    node = MadeUpNode()
    waiting = asyncio.create_task(pump.until_paid(cast("Any", node)))
    while not node.lists:
        await asyncio.sleep(0)
    node.settled = [cast("Any", object())]
    await waiting


async def test_the_looks_become_rare() -> None:
    node = MadeUpNode()
    waiting = asyncio.create_task(pump.until_paid(cast("Any", node)))
    await asyncio.wait({waiting}, timeout=0.2)
    assert 2 <= node.lists <= 8, "after 1, 2, 4 … 128 ms"
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_broken_stream_is_no_receipt() -> None:
    node = MadeUpNode()
    node.broken = True
    node.told.set()
    with pytest.raises(ConnectionResetError):
        await pump.until_paid(cast("Any", node))


class MadeUpTemporal:
    """Notes what is started."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str, Receipt | ReceiptPage]] = []

    async def start_workflow(self, name: str, message: Receipt | ReceiptPage, *, id: str, **_: object) -> None:  # noqa: A002 - the SDK's name
        self.started.append((name, id, message))


def settled(*numbers: int) -> list[NodeInvoice]:
    """Invoices with these settle indexes."""
    return [
        NodeInvoice(
            payment_hash=PaymentHash(f"{number:064x}"),
            settled=True,
            cancelled=False,
            received_msat=Msat(1_000 + number),
            settle_index=number,
        )
        for number in numbers
    ]


async def started(*numbers: int, together: int = 100) -> list[tuple[str, str, Receipt | ReceiptPage]]:
    temporal = MadeUpTemporal()
    await start_receipts(cast("Any", temporal), NodeName("lnd-1"), settled(*numbers), together=together)
    return temporal.started


@pytest.mark.parametrize("numbers", [(7,), (7, 7, 7)], ids=["once", "told three times"])
async def test_a_receipt_that_comes_alone_has_a_workflow_of_its_own(numbers: tuple[int, ...]) -> None:
    ((name, workflow_id, receipt),) = await started(*numbers)
    assert (name, workflow_id) == ("ReceiveWorkflow", f"receive-{7:064x}")
    assert receipt == Receipt(payment_hash=PaymentHash(f"{7:064x}"), node=NodeName("lnd-1"), received_msat=Msat(1_007))


async def test_receipts_that_come_together_share_one_and_none_is_in_it_twice() -> None:
    ((name, workflow_id, page),) = await started(5, 6, 5, 7, 6)
    assert isinstance(page, ReceiptPage)
    assert (name, workflow_id.startswith("receipts-lnd-1-")) == ("ReceiptPageWorkflow", True)
    assert [receipt.received_msat for receipt in page.receipts] == [1_005, 1_006, 1_007]


async def test_a_page_has_another_name_when_it_holds_anything_else() -> None:
    """One that is told again, with more or with what was missing, must not be taken for the first."""
    pages = [(5, 7), (5, 6, 7), (5, 6, 7, 8), (6, 7)]
    names = {(await started(*numbers))[0][1] for numbers in pages}
    assert len(names) == len(pages)
    assert (await started(5, 7))[0][1] == (await started(5, 7))[0][1]


async def test_no_more_share_one_than_is_set() -> None:
    shared = await started(*range(1, 8), together=3)
    assert [name for name, *_ in shared] == ["ReceiptPageWorkflow", "ReceiptPageWorkflow", "ReceiveWorkflow"]
    alone = await started(*range(1, 4), together=1)
    assert [name for name, *_ in alone] == ["ReceiveWorkflow"] * 3
