"""What differences cost that operators have explained and that stay: nothing of a node's memory, however old they are.

The books are real. The node is made up, behind the interfaces of LndNode and LndHistory: it counts what it is asked.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

import asyncpg
import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.reconciliation.place import PlaceReconciliations
from activities.reconciliation.reconciliation import Reconciliations
from engine.bank import lookback, reconciliation
from engine.clients.lnd.balance import NodeBalances
from engine.clients.lnd.client import LndNode, NodePayment, NodePaymentStatus
from engine.clients.lnd.history import LndHistory, News, NodeChange, PaidIn, PaidOut
from engine.contracts.reconciliation import FindingKind, NodeComparison, PlaceReport, RunReport, RunStart, RunStatus
from engine.domain.ids import PaymentHash, ReconciliationId
from engine.domain.money import Msat
from engine.ledger import chart
from engine.ledger.account import get_account_id, open_account_in_tx
from engine.ledger.book import Posting, credit, debit
from engine.ledger.database import Pool, open_pool, transaction
from engine.ledger.store import post_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.teller import CAPITAL_MSAT, NODE, Teller

pytestmark = pytest.mark.integration

PAID_MSAT = 7_000
LONG_AGO = timedelta(days=200)
FIRST = ReconciliationId("rec_0")


def hash_of(number: int) -> PaymentHash:
    return PaymentHash(f"{number:064x}")


@dataclass
class FakeNode:
    """Has paid so often, long ago, what the books know nothing of."""

    payments: int
    name: str = NODE
    looked_back_to: list[datetime] = field(default_factory=list)

    async def read_balances(self) -> NodeBalances:
        return NodeBalances(
            pubkey="02" + "ab" * 32,
            channels_msat=Msat(CAPITAL_MSAT - self.payments * PAID_MSAT),
            commit_escrow_msat=Msat(2_180_000),
            onchain_msat=Msat(300_000_000),
            in_flight=False,
            htlc_fees_msat=Msat(0),
            channels=(),
            steady=True,
        )

    async def find_payment(self, payment_hash: PaymentHash) -> NodePayment:
        return NodePayment(
            payment_hash=payment_hash,
            status=NodePaymentStatus.SUCCEEDED,
            fee_msat=Msat(0),
            preimage="ef" * 32,
            failure_reason="FAILURE_REASON_NONE",
            payment_index=1,
            created_at=datetime.now(UTC) - LONG_AGO,
        )

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[News]:
        yield News()

    async def list_paid_out(self, since_s: int) -> list[PaidOut]:
        since = datetime.fromtimestamp(since_s, UTC)
        self.looked_back_to.append(since)
        seen = since < datetime.now(UTC) - LONG_AGO
        return [
            PaidOut(payment_hash=hash_of(each), total_msat=Msat(PAID_MSAT)) for each in range(self.payments) if seen
        ]

    async def list_paid_in(self, _since_s: int) -> list[PaidIn]:
        return []

    async def list_changes(self, _after_s: int) -> list[NodeChange]:
        return []


@pytest_asyncio.fixture
async def pool(ledger_db: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_db.app_dsn, min_size=0, max_size=2)
    await Teller(pool).adopt()
    yield pool
    await pool.close()


async def explain(database: Database, count: int) -> None:
    """A node adopted a year ago, and so many cases that an operator has explained."""
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute("UPDATE bank.nodes SET adopted_at = now() - interval '1 year'")
    await owner.execute("INSERT INTO bank.reconciliations(id, workflow_id) VALUES ($1, 'w')", FIRST)
    await owner.executemany(
        """INSERT INTO bank.cases(id, kind, account, subject, amount_msat, detail, suspects, status, run, last_seen,
                                  note, resolved_by, resolved_at, created_at)
           VALUES ($1, 'payment_not_in_books', $2, $3, $4, 'made up', '[]', 'explained', $5, $5, 'by hand', 'carol',
                   now(), now() - $6::interval)""",
        [(f"case_{each}", chart.channels(NODE), hash_of(each), PAID_MSAT, FIRST, LONG_AGO) for each in range(count)],
    )
    await owner.close()


async def compare(pool: Pool, node: FakeNode) -> PlaceReport:
    places = PlaceReconciliations(cast("LndNode", node), cast("LndHistory", node), pool, cast("Client", None))
    asked = NodeComparison(node=NODE, stuck_after_s=3600)
    report: PlaceReport = await ActivityEnvironment().run(places.compare_node, asked)
    return report


async def keep(pool: Pool, run: str, report: PlaceReport) -> RunStatus:
    books = Reconciliations(pool)
    await books.begin_run(RunStart(run=ReconciliationId(run), workflow_id="w"))
    told = RunReport(run=ReconciliationId(run), accounts=report.accounts, findings=report.findings)
    return (await books.record_run(told)).status


@pytest.mark.parametrize("count", [1, 150])
async def test_an_explained_difference_that_stays_needs_no_look_at_the_past(
    ledger_db: Database, pool: Pool, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    await explain(ledger_db, count)
    node = FakeNode(payments=count)
    report = await compare(pool, node)
    assert len(node.looked_back_to) == 1, "one list, whatever is explained"
    assert node.looked_back_to[0] > datetime.now(UTC) - timedelta(days=40)
    assert {(each.kind, each.amount_msat) for each in report.findings} == {
        (FindingKind.PAYMENT_NOT_IN_BOOKS, PAID_MSAT)
    }
    one_by_one: list[reconciliation.NewCase] = []
    see = reconciliation.see_case_in_tx

    async def counted(conn: asyncpg.Connection, run: ReconciliationId, case: reconciliation.NewCase) -> str:
        one_by_one.append(case)
        return await see(conn, run, case)

    monkeypatch.setattr(reconciliation, "see_case_in_tx", counted)
    assert await keep(pool, "rec_1", report) is RunStatus.EXPLAINED
    assert one_by_one == [], "all of them with one statement"
    async with pool.acquire() as conn:
        assert len(await lookback.list_explained(conn, f"asset:lnd:{NODE}:")) == count


async def test_when_one_of_them_changes_all_are_looked_at_by_name(ledger_db: Database, pool: Pool) -> None:
    """The first was booked since, as the node's; the others stay."""
    await explain(ledger_db, 3)
    async with transaction(pool) as conn:
        await open_account_in_tx(conn, "suspense:test", "liability", mode="append")
        legs = [
            debit(await get_account_id(conn, "suspense:test"), PAID_MSAT),
            credit(await get_account_id(conn, chart.channels(NODE)), PAID_MSAT),
        ]
        ref = f"ln:{hash_of(0)}:settle"
        await post_in_tx(conn, Posting(ref=ref, template="test", phase="post", actor="test", legs=legs))
    node = FakeNode(payments=3)
    report = await compare(pool, node)
    assert min(node.looked_back_to) < datetime.now(UTC) - LONG_AGO
    assert sorted(each.subject for each in report.findings) == [hash_of(1), hash_of(2)]
    assert await keep(pool, "rec_1", report) is RunStatus.EXPLAINED
    async with pool.acquire() as conn:
        rows = await conn.fetch("SELECT id, status FROM bank.cases ORDER BY id")
    assert [row["status"] for row in rows] == ["closed", "explained", "explained"]


async def test_a_new_difference_beside_them_is_found(ledger_db: Database, pool: Pool) -> None:
    await explain(ledger_db, 3)
    node = FakeNode(payments=4)  # one more than is explained, and as old
    report = await compare(pool, node)
    assert sorted(each.subject for each in report.findings) == [hash_of(each) for each in range(4)]
    assert await keep(pool, "rec_1", report) is RunStatus.DIFFERS


async def test_a_case_that_nobody_has_explained_is_looked_back_to(ledger_db: Database, pool: Pool) -> None:
    await explain(ledger_db, 1)
    owner = await asyncpg.connect(ledger_db.owner_dsn)
    await owner.execute(
        """INSERT INTO bank.cases(id, kind, account, subject, amount_msat, detail, suspects, run, last_seen, created_at)
           VALUES ('case_open', 'broken_rule', 'books', 'x', 0, '', '[]', $1, $1, now() - interval '90 days')""",
        FIRST,
    )
    await owner.close()
    async with pool.acquire() as conn:
        window = await lookback.read_window(conn, NODE)
    now = datetime.now(UTC)
    assert timedelta(days=120) < now - window.since < timedelta(days=130)
    assert now - window.since_explained > LONG_AGO
