"""A node that was never paid: how its first receipt is noticed, and what looking for it costs the node."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from activities import pump
from engine.clients.lnd import NodeInvoice

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


async def test_what_settled_before_the_stream_was_open_is_found_in_a_list() -> None:
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
