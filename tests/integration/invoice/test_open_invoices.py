"""Ten thousand open invoices cost nothing: what pump and sweep ask the node for does not grow with them.

The invoices are written by SQL, and the node is made up and counts what it is asked.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities.invoice_sweep import InvoiceSweep
from activities.pump import Pump
from engine.clients.lnd.client import NodeIdentity, NodeInvoice, NodePayment
from engine.clients.lnd.inbound import NodeRoom
from engine.contracts.invoice import SweepPage, SweptPage
from engine.contracts.pump import PumpInput
from engine.domain.errors import OutcomeUnknown
from engine.domain.ids import PaymentHash
from engine.domain.money import Msat
from tests.fixtures.postgres import Database
from tests.helpers.payer import NODE, Payers, running_payers

pytestmark = pytest.mark.integration

OPEN, OVERDUE, PAID = 10_000, 250, 3
CURSOR = 41


class MadeUpNode:
    """Has no news, and of the invoices only those that were paid."""

    name = NODE

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.paid: set[PaymentHash] = set()
        self.broken: set[PaymentHash] = set()
        """Of these it cannot tell."""
        self.at_once = self.most_at_once = 0

    async def get_identity(self) -> NodeIdentity:
        self.asked["get_identity"] += 1
        return NodeIdentity(pubkey="02" + "ab" * 32, active_channels=1, synced=True)

    async def read_room(self) -> NodeRoom:
        self.asked["read_room"] += 1
        return NodeRoom(outbound_msat=Msat(10**15), inbound_msat=Msat(7), announced_inbound_msat=Msat(5))

    async def list_settled_invoices(self) -> list[NodeInvoice]:
        self.asked["list_settled_invoices"] += 1
        return []

    async def follow_settled_invoices(self, after_index: int) -> AsyncGenerator[NodeInvoice, None]:
        self.asked[f"follow_settled_invoices({after_index})"] += 1
        await asyncio.Event().wait()
        yield cast("NodeInvoice", None)

    async def follow_payments(self) -> AsyncGenerator[NodePayment, None]:
        self.asked["follow_payments"] += 1
        await asyncio.Event().wait()
        yield cast("NodePayment", None)

    async def cancel_invoice(self, payment_hash: PaymentHash) -> bool:
        self.asked["cancel_invoice"] += 1
        return payment_hash not in self.paid

    async def find_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        self.asked["find_invoice"] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if payment_hash in self.broken:
            raise OutcomeUnknown("the node says: invoice record is corrupt")
        if payment_hash not in self.paid:
            return None
        return NodeInvoice(
            payment_hash=payment_hash, settled=True, cancelled=False, received_msat=Msat(1_000), settle_index=CURSOR
        )


class MadeUpTemporal:
    """Notes which workflows are started."""

    def __init__(self) -> None:
        self.started: list[str] = []

    async def start_workflow(self, _name: str, _message: object, *, id: str, **_: object) -> None:  # noqa: A002 - the SDK's name
        self.started.append(id)


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    """A bank whose one user has asked for money ten thousand times."""
    async with running_payers(ledger_db, tmp_path_factory.mktemp("api")) as payers:
        alice = await payers.api.open_account()
        await payers.api.database.execute(
            """INSERT INTO bank.invoices(id, account_id, wallet_id, node, bolt11, payment_hash, amount_msat, expires_at)
               SELECT 'inv_' || lpad(n::text, 8, '0'), $1, $2, $3, 'lnbcrt' || n, md5('a' || n) || md5('b' || n), 1000,
                      clock_timestamp() + CASE WHEN n % 40 = 0 THEN interval '-1 hour' ELSE interval '1 day' END
                 FROM generate_series(1, $4::int) n""",
            alice.id,
            alice.wallet_id,
            NODE,
            OPEN,
        )
        await payers.api.database.execute(
            "UPDATE bank.nodes SET settle_index = $1, handed_on_index = $1, credited_index = $1", CURSOR
        )
        yield payers


async def test_pump_and_start_ask_the_node_as_if_there_were_none(bank: Payers) -> None:
    node = MadeUpNode()
    pump = Pump(cast("Any", node), bank.pool, cast("Any", MadeUpTemporal()), together=100)
    streams = [
        asyncio.create_task(ActivityEnvironment().run(stream, PumpInput(node=NODE)))
        for stream in (pump.pump_invoices, pump.pump_payments, pump.tend_node)
    ]
    expected = {"get_identity", f"follow_settled_invoices({CURSOR})", "follow_payments", "read_room"}
    async with asyncio.timeout(30):
        while not expected <= set(node.asked) or node.asked["read_room"] < 2:
            await asyncio.sleep(0.01)
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    assert set(node.asked) == expected
    assert node.asked["get_identity"] == 3
    assert node.asked[f"follow_settled_invoices({CURSOR})"] == node.asked["follow_payments"] == 1


async def test_the_sweep_asks_for_what_is_overdue_page_by_page_and_for_nothing_else(bank: Payers) -> None:
    node, temporal = MadeUpNode(), MadeUpTemporal()
    overdue = await bank.api.database.fetch(
        "SELECT payment_hash FROM bank.invoices WHERE expires_at < clock_timestamp() ORDER BY id"
    )
    assert len(overdue) == OVERDUE
    node.paid = {PaymentHash(row["payment_hash"]) for row in overdue[:: OVERDUE // PAID][:PAID]}

    async def walk() -> list[SweptPage]:
        sweep = InvoiceSweep(cast("Any", node), bank.pool, cast("Any", temporal))
        pages: list[SweptPage] = []
        after = ""
        while not pages or pages[-1].next_after is not None:
            page: SweptPage = await ActivityEnvironment().run(sweep.sweep_invoices, SweepPage(node=NODE, after=after))
            pages.append(page)
            after = page.next_after or ""
        return pages

    assert [page.looked_at for page in await walk()] == [100, 100, 50]
    assert node.asked == {"find_invoice": OVERDUE}
    assert node.most_at_once <= 10
    assert sorted(temporal.started) == sorted(f"receive-{payment_hash}" for payment_hash in node.paid)
    expired = await bank.api.database.fetchval("SELECT count(*) FROM bank.invoices WHERE status = 'expired'")
    assert expired == OVERDUE - PAID
    node.asked.clear()
    assert [page.looked_at for page in await walk()] == [PAID], "what is known to be closed is not asked for again"
    assert node.asked == {"find_invoice": PAID}


async def test_an_invoice_that_its_node_cannot_look_up_holds_no_other_up(bank: Payers) -> None:
    node, temporal = MadeUpNode(), MadeUpTemporal()
    overdue = await bank.api.database.fetch(
        "SELECT payment_hash FROM bank.invoices WHERE expires_at < clock_timestamp() ORDER BY id"
    )
    first, paid = PaymentHash(overdue[0]["payment_hash"]), PaymentHash(overdue[1]["payment_hash"])
    node.broken, node.paid = {first}, {paid}
    sweep = InvoiceSweep(cast("Any", node), bank.pool, cast("Any", temporal))
    page = await ActivityEnvironment().run(sweep.sweep_invoices, SweepPage(node=NODE))
    assert (page.looked_at, page.received, page.expired) == (100, 1, 98)
    assert temporal.started == [f"receive-{paid}"]
    status = "SELECT status FROM bank.invoices WHERE payment_hash = $1"
    assert await bank.api.database.fetchval(status, first) == "open"
    node.broken = {PaymentHash(row["payment_hash"]) for row in overdue}
    with pytest.raises(OutcomeUnknown):
        await ActivityEnvironment().run(sweep.sweep_invoices, SweepPage(node=NODE))
