"""An operation costs what it touches: pages read for a payment, a list or a balance, with a history and ten times it.

Counted are the pages of PostgreSQL's cache that a database was asked for, in whatever way: by statements, functions,
triggers and foreign keys. The least of a few tries, so that what a connection does for the first time does not count.
"""

import itertools
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from activities.invoice import Receipts
from activities.payment import Payments
from engine.bank import invoice, janitor, payment, reconciliation, sending
from engine.bank.node import node
from engine.contracts.invoice import Receipt
from engine.contracts.payment import PaymentRequest, ReleasePayment, SettlePayment
from engine.domain.ids import AccountId, InvoiceId, NodeName, PaymentHash, PaymentId, WalletId
from engine.domain.money import Msat
from engine.ledger.chart import Chart
from engine.ledger.checks import find_broken_rules
from engine.ledger.closing import close_in_tx
from engine.ledger.database import Pool, open_pool, transaction
from engine.views import balance, metrics
from tests.fixtures.postgres import Database, copy_of_template
from tests.helpers.api import ADMIN, Api, bearer, running_api
from tests.helpers.history import KEY, NODE, write_history
from tests.helpers.ledger.bank import run_as

pytestmark = pytest.mark.integration

SMALL, LARGE = 1_500, 15_000
SCAN = "a scan, to show that what grows is seen"
TRIES = 4
_numbers = itertools.count(1)
Operation = Callable[[], Awaitable[object]]


@dataclass
class Meter:
    """Counts pages. It asks from another database, so that its own questions do not count."""

    watch: asyncpg.Connection
    database: str
    pools: list[Pool]
    counts: dict[str, int] = field(default_factory=dict)

    async def total(self) -> int:
        for pool in self.pools:
            await pool.fetch("SELECT pg_stat_force_next_flush()")
        found = await self.watch.fetchval(
            "SELECT pg_stat_get_db_blocks_fetched(oid) FROM pg_database WHERE datname = $1", self.database
        )
        return int(found)

    async def measure(self, name: str, operation: Operation) -> None:
        least = None
        for _ in range(TRIES):
            before = await self.total()
            await operation()
            pages = await self.total() - before
            least = pages if least is None else min(least, pages)
        assert least is not None
        self.counts[name] = least


def request(number: int) -> PaymentRequest:
    return PaymentRequest(
        payment_id=PaymentId(f"pay_new{number}"),
        account_id=AccountId("acct_g0"),
        wallet_id=WalletId("wal_g0"),
        idempotency_key=f"new{number}",
        body_hash="00" * 32,
        destination="lnbcrt1",
        bolt11="lnbcrt1",
        payment_hash=PaymentHash(f"{number:064x}"),
        amount_msat=Msat(1_000),
        max_fee_msat=Msat(10),
    )


def writing(pool: Pool, api: Api) -> dict[str, Operation]:
    payments, receipts = Payments(pool, Chart()), Receipts(pool, Chart())

    async def pay_and_settle() -> None:
        asked = request(next(_numbers))
        opened = await payments.open_payment(asked)
        assert opened.attempt is not None
        await payments.settle_payment(
            SettlePayment(
                payment_id=asked.payment_id,
                fee_msat=Msat(5),
                preimage="cd" * 32,
                payment_index=1,
                body_hash=asked.body_hash,
            )
        )

    async def pay_and_release() -> None:
        asked = request(next(_numbers))
        await payments.open_payment(asked)
        await payments.release_payment(
            ReleasePayment(
                payment_id=asked.payment_id,
                failure_code="no_route",
                failure_detail="no route",
                payment_index=1,
                body_hash=asked.body_hash,
            )
        )

    async def create_invoice_and_receive() -> None:
        body = {"wallet_id": "wal_g0", "amount_msat": 1_000}
        made = (await api.http.post("/v1/invoices", json=body, headers=bearer(KEY))).json()
        receipt = Receipt(
            payment_hash=PaymentHash(made["payment_hash"]), node=NodeName(NODE), received_msat=Msat(1_000)
        )
        assert (await receipts.credit_receipt(receipt)).credited

    return {each.__name__: each for each in (pay_and_settle, pay_and_release, create_invoice_and_receive)}


def asking(api: Api, since: datetime) -> dict[str, Operation]:
    """Requests over HTTP, the look-up of the key included."""

    def get(path: str, headers: dict[str, str] | None = None, **query: str) -> Operation:
        async def ask() -> None:
            answer = await api.http.get(path, params=query, headers=headers or bearer(KEY))
            assert answer.status_code == 200, answer.text

        return ask

    async def turn_to_the_third_page() -> None:
        after: dict[str, str] = {}
        for _ in range(3):
            answer = await api.http.get("/v1/wallets/wal_g0/transactions", params=after, headers=bearer(KEY))
            after = {"after": answer.json()["next_cursor"]}

    hour = {"from": since.isoformat(), "to": (since + timedelta(hours=1)).isoformat()}
    return {
        "wallet": get("/v1/wallets/wal_g0"),
        "payments": get("/v1/payments"),
        "invoices": get("/v1/invoices"),
        "deposits": get("/v1/deposits"),
        "deposits of a wallet": get("/v1/deposits", wallet_id="wal_g0"),
        "deposits to an address": get("/v1/deposits", address="bcrt1qg7"),
        "a deposit": get(f"/v1/deposits/dep_g{10:021}"),
        "all deposits": get("/v1/admin/deposits", ADMIN),
        "held deposits": get("/v1/admin/deposits", ADMIN, status="held"),
        "search for a deposit": get("/v1/admin/chain/search", ADMIN, q=f"dep_g{10:021}"),
        "search for an address": get("/v1/admin/chain/search", ADMIN, q="bcrt1qg7"),
        "search for a transaction": get("/v1/admin/chain/search", ADMIN, q="ab" * 32),
        "decisions about deposits": get("/v1/admin/deposit-decisions", ADMIN),
        "withdrawals": get("/v1/withdrawals"),
        "withdrawals of a wallet": get("/v1/withdrawals", wallet_id="wal_g0"),
        "withdrawals of a reference": get("/v1/withdrawals", external_id="order 20"),
        "a withdrawal": get(f"/v1/withdrawals/wd_g{20:021}"),
        "all withdrawals": get("/v1/admin/withdrawals", ADMIN),
        "queued withdrawals": get("/v1/admin/withdrawals", ADMIN, status="queued"),
        "slow withdrawals": get("/v1/admin/withdrawals", ADMIN, speed="slow"),
        "withdrawals to approve": get("/v1/admin/withdrawals", ADMIN, waits_for="approval"),
        "withdrawals to resume": get("/v1/admin/withdrawals", ADMIN, waits_for="resume"),
        "payouts": get("/v1/admin/payouts", ADMIN),
        "planned payouts": get("/v1/admin/payouts", ADMIN, status="planned"),
        "payouts that wait": get("/v1/admin/payouts", ADMIN, waits_for_operator="true"),
        "a payout": get("/v1/admin/payouts/po_g20", ADMIN),
        "decisions about withdrawals": get("/v1/admin/withdrawal-decisions", ADMIN),
        "state of the chain": get("/v1/admin/chain", ADMIN),
        "transactions": get("/v1/wallets/wal_g0/transactions"),
        "transactions, third page": turn_to_the_third_page,
        "transactions in": get("/v1/wallets/wal_g0/transactions", direction="in"),
        "statement of an old hour": get("/v1/wallets/wal_g0/statement", None, **hour),
        "balance of the channels": get("/v1/admin/ledger/accounts/asset:lnd:lnd-1:channels/balance", ADMIN),
        "old balance of the channels": get(
            "/v1/admin/ledger/accounts/asset:lnd:lnd-1:channels/balance", ADMIN, at=hour["to"]
        ),
        "old balance of a user": get("/v1/admin/ledger/accounts/liab:user:wal_g0/balance", ADMIN, at=hour["to"]),
    }


JANITOR = {
    "payments": janitor.PAYMENTS,
    "accepted": janitor.ACCEPTED,
    "corrections": janitor.CORRECTIONS,
    "cases": janitor.CASES,
    "runs": janitor.RUNS,
}


def tending(pool: Pool) -> dict[str, Operation]:
    """What workers ask again and again."""
    name = NodeName(NODE)

    def read(ask: Callable[[asyncpg.Connection], Awaitable[object]]) -> Operation:
        async def run() -> None:
            async with pool.acquire() as conn:
                await ask(conn)  # type: ignore[arg-type]

        return run

    recently = datetime.now(UTC) - timedelta(minutes=22)
    some = ["ln:" + "ab" * 32 + ":settle"]
    return {
        "fence": read(lambda conn: sending.find_fence(conn, PaymentId("pay_new1"), attempt=1)),
        "waiting": read(lambda conn: payment.find_waiting_workflow(conn, PaymentHash("ab" * 32))),
        "in flight": read(lambda conn: node.list_in_flight(conn, name, after="", limit=256)),
        "sweep": read(lambda conn: invoice.list_overdue(conn, name, after=InvoiceId(""), grace_s=30, limit=100)),
        **{
            f"janitor: {kind}": read(
                lambda conn, shelf=shelf: janitor.list_owed(  # type: ignore[misc]
                    conn, shelf, after=janitor.START, age=timedelta(seconds=30), limit=1000
                )
            )
            for kind, shelf in JANITOR.items()
        },
        "janitor: opened": read(janitor.forget_opened),
        "receipts handed on": read(lambda conn: invoice.list_uncredited(conn, [PaymentHash("ab" * 32)])),
        "cancellations": read(lambda conn: invoice.list_cancellations(conn, name, 100)),
        "tend": read(lambda conn: node.report_room(conn, name, *[Msat(1_000_000_000)] * 3)),
        "cut and counterparts": read(lambda conn: reconciliation.read_counterparts(conn, name, recently, some)),
        "due holds": read(balance.list_due_holds),
        "figures": read(metrics.read_figures),
    }


async def pages(server: str, template: str, folder: Path, events: int) -> dict[str, int]:
    """How many pages each operation needs, on a database of its own with so much history."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(copy_of_template(server, template))
        begin = await write_history(database.superuser_dsn, events=events, users=events // 20)
        pool = await stack.enter_async_context(await open_pool(database.app_dsn, max_size=1))
        watch = await asyncpg.connect(server)
        stack.push_async_callback(watch.close)
        name = await pool.fetchval("SELECT current_database()")
        api = await stack.enter_async_context(
            running_api(database.app_dsn, database.owner_dsn, folder, postgres_pool_size=1, rate_limit_per_minute=0)
        )
        meter = Meter(watch, name, [pool, api.resources.pool])
        async with pool.acquire() as conn:
            assert await find_broken_rules(conn) == []
        old = begin + timedelta(minutes=20)
        for operation, call in {**writing(pool, api), **asking(api, old), **tending(pool)}.items():
            await meter.measure(operation, call)
        await meter.measure(SCAN, lambda: pool.fetchval("SELECT sum(amount) FROM ledger.entries"))
    return meter.counts


async def test_ten_times_the_history_costs_the_same(
    postgres_server: str, postgres_template: str, tmp_path: Path
) -> None:
    few, many = [await pages(postgres_server, postgres_template, tmp_path, events) for events in (SMALL, LARGE)]
    report = "\n".join(f"{name}: {few[name]} -> {many[name]}" for name in few)
    # An index may be a level deeper, and rows that lay on one page may lie on two.
    assert [name for name in many if many[name] > 1.4 * few[name] + 6] == [SCAN], report


async def test_closings_change_no_balance_of_any_moment(ledger_db: Database) -> None:
    await write_history(ledger_db.superuser_dsn, events=600, users=10)
    conn = await asyncpg.connect(ledger_db.app_dsn)
    try:
        assert await conn.fetchval("SELECT count(*) FROM ledger.closings") > 5
        wrong = await conn.fetch(
            """SELECT a.code, m.at, s.settled, s.held FROM ledger.accounts a
                CROSS JOIN (SELECT at FROM ledger.closing_times
                            UNION SELECT at + interval '7 s' FROM ledger.closing_times
                            UNION SELECT 'infinity' UNION SELECT '-infinity') m
                CROSS JOIN LATERAL ledger.sums_at(a.id, m.at) s
                CROSS JOIN LATERAL (SELECT coalesce(sum(amount) FILTER (WHERE layer = 0), 0) AS settled,
                                           coalesce(sum(amount) FILTER (WHERE layer = 1), 0) AS held
                                      FROM ledger.entries e WHERE e.account_id = a.id AND e.posted_at <= m.at) e
                WHERE (s.settled, s.held) IS DISTINCT FROM (e.settled, e.held)"""
        )
        assert wrong == []
        for together in (False, True):
            rows = await balance.list_trial_balance(conn, users_together=together)
            assert sum(row.settled_msat for row in rows) == 0
            assert [row.code for row in rows if row.code.startswith("liab:user")] == (
                ["liab:user:*"] if together else [f"liab:user:wal_g{user}" for user in range(10)]
            )
    finally:
        await conn.close()


async def test_a_closing_waits_for_who_is_posting_and_comes_once(ledger_db: Database) -> None:
    await write_history(ledger_db.superuser_dsn, events=20, users=2)
    pool = await open_pool(ledger_db.app_dsn, max_size=2)
    long_ago = datetime.now(UTC) - timedelta(minutes=16)
    try:
        async with transaction(pool) as slow, transaction(pool) as conn:
            await node.report_room(slow, NodeName(NODE), *[Msat(1)] * 3)
            assert await close_in_tx(conn, long_ago) is None
        async with transaction(pool) as conn:
            assert await close_in_tx(conn, long_ago) is not None
            assert await close_in_tx(conn, long_ago) == 0
            with pytest.raises(Exception, match="too early"):
                await close_in_tx(conn, datetime.now(UTC))
    finally:
        await pool.close()


async def test_nothing_is_posted_while_the_clock_stands_before_a_closing(ledger_db: Database) -> None:
    await run_as(
        ledger_db.superuser_dsn,
        "SET LOCAL session_replication_role = replica",
        "INSERT INTO ledger.closing_times VALUES (clock_timestamp() + interval '1 hour', 0)",
    )
    with pytest.raises(asyncpg.PostgresError, match="clock of the database") as refused:
        await run_as(
            ledger_db.owner_dsn,
            "SET LOCAL ledger.posting = on",
            "INSERT INTO ledger.entries (transfer_id) VALUES (1)",
        )
    assert refused.value.sqlstate == "LD406"
