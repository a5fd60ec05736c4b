"""Notes "settled in the ledger, cancel at the node": one that fails holds no other up, on real Postgres.

The node is made up, behind the interface of LndNode.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities import pump as pumps
from activities.pump import Pump
from engine.bank.reconciliation import list_overdue_cancellations
from engine.clients.lnd.client import LndNode
from engine.domain.errors import EngineError, InvariantBroken, Unavailable
from engine.domain.ids import NodeName, PaymentHash
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, running_api
from tests.helpers.teller import NODE, Teller, open_teller

pytestmark = pytest.mark.integration


@dataclass
class FakeLnd:
    """Cancels what it can, and says why not."""

    name: NodeName = NODE
    broken: dict[PaymentHash, EngineError] = field(default_factory=dict)
    cancelled: list[PaymentHash] = field(default_factory=list)

    async def cancel_invoice(self, payment_hash: PaymentHash) -> bool:
        if payment_hash in self.broken:
            raise self.broken[payment_hash]
        self.cancelled.append(payment_hash)
        return True


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        yield api


@pytest_asyncio.fixture
async def teller(api: Api) -> Teller:
    return await open_teller(api)


async def _note(api: Api, teller: Teller, count: int) -> list[PaymentHash]:
    """Invoices that one of our users has paid inside, the oldest first."""
    alice, bob = await api.open_account(), await api.open_account()
    await teller.receive(alice, 5_000_000)
    for number in range(count):
        await teller.pay_user(alice, bob, 1_000 + number, by_invoice=True)
    rows = await api.database.fetch(
        "SELECT payment_hash FROM bank.node_cancellations WHERE done_at IS NULL ORDER BY created_at"
    )
    return [PaymentHash(row["payment_hash"]) for row in rows]


async def _tend(teller: Teller, lnd: FakeLnd) -> None:
    pump = Pump(cast("LndNode", lnd), teller.pool, cast("Client", None), together=1)
    await ActivityEnvironment().run(pump._cancel_settled)


async def _open(api: Api) -> list[str]:
    rows = await api.database.fetch("SELECT payment_hash FROM bank.node_cancellations WHERE done_at IS NULL")
    return sorted(row["payment_hash"] for row in rows)


@pytest.mark.parametrize("error", [InvariantBroken("no such bucket"), Unavailable("it does not answer")])
async def test_one_that_fails_does_not_hold_up_its_page(api: Api, teller: Teller, error: EngineError) -> None:
    notes = await _note(api, teller, 5)
    lnd = FakeLnd(broken={notes[0]: error, notes[3]: error})
    await _tend(teller, lnd)
    assert sorted(lnd.cancelled) == sorted({*notes} - {notes[0], notes[3]})
    assert await _open(api) == sorted([notes[0], notes[3]])


async def test_a_page_of_those_that_fail_does_not_hold_up_the_next(
    api: Api, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest fill the page; those behind them have their turn in the next round."""
    monkeypatch.setattr(pumps, "_PAGE", 3)
    notes = await _note(api, teller, 7)
    lnd = FakeLnd(broken={each: InvariantBroken("no such bucket") for each in notes[:3]})
    for _ in range(3):
        await _tend(teller, lnd)
    assert sorted(lnd.cancelled) == sorted(notes[3:])


async def test_one_that_fails_waits_ever_longer_and_is_told(api: Api, teller: Teller) -> None:
    (note,) = await _note(api, teller, 1)
    lnd = FakeLnd(broken={note: InvariantBroken("no such bucket")})
    delays = []
    for _ in range(15):
        await _tend(teller, lnd)
        row = await api.database.fetchrow(
            "SELECT tries, due_at - clock_timestamp() AS delay, problem FROM bank.node_cancellations"
        )
        assert row is not None
        assert "no such bucket" in row["problem"]
        delays.append(row["delay"])
        await api.database.execute("UPDATE bank.node_cancellations SET due_at = clock_timestamp()")
    assert await api.database.fetchval("SELECT tries FROM bank.node_cancellations") == 15
    assert delays[:12] == sorted(delays[:12])
    assert delays[-1] <= timedelta(minutes=30)
    assert delays[10] > timedelta(minutes=10)
    async with teller.pool.acquire() as conn:
        (told,) = await list_overdue_cancellations(conn, timedelta(0))
    assert "no such bucket" in told.detail
    lnd.broken.clear()
    await _tend(teller, lnd)
    assert (lnd.cancelled, await _open(api)) == ([note], [])
