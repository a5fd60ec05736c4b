"""What Prometheus reads: of a bank with something in flight, of books that differ, and while Postgres is away."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from activities.reconciliation.reconciliation import Reconciliations
from engine.contracts.reconciliation import AccountComparison, Finding, FindingKind, RunReport, RunStart
from engine.domain.ids import ReconciliationId
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import fill_pool
from tests.helpers.api import Api, running_api
from tests.helpers.ledger.deposit import Depositor
from tests.helpers.teller import Teller, open_teller

pytestmark = pytest.mark.integration

Samples = dict[tuple[str, ...], float]
CHANNELS = "asset:lnd:lnd-1:channels"
DIFFERS = RunReport(
    run=ReconciliationId("rec_1"),
    accounts=[
        AccountComparison(account=CHANNELS, books_msat=1_000, place_msat=1_007, in_flight=[], difference_msat=-7),
    ],
    findings=[
        Finding(
            kind=FindingKind.PAYMENT_NOT_IN_BOOKS, account=CHANNELS, subject="ab" * 32, amount_msat=7, detail="planted"
        )
    ],
)


def read(text: str) -> Samples:
    """Samples by name and labels; the parser refuses what Prometheus would."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path) as api:
        yield api


async def scrape(api: Api) -> Samples:
    answer = await api.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return read(answer.text)


async def test_a_payment_in_flight_and_what_was_asked_are_told(api: Api) -> None:
    teller = await open_teller(api)
    user = await api.open_account()
    await teller.receive(user, 100_000)
    await teller.hold(user, 10_000, 100)
    await user.get("/v1/wallets/wal_nobody")
    found = await scrape(api)
    assert found["millrace_books_up",] == 1
    assert found["millrace_payments_in_flight", "lnd-1"] == 1
    assert found["millrace_held_msat",] == 10_100
    assert found["millrace_rulebook_version", "fees"] == 1
    assert found["millrace_http_requests_total", "GET", "/v1/wallets/{wallet_id}", "404"] == 1
    assert found["millrace_http_request_seconds_count", "POST", "/v1/invoices"] == 1
    assert found["millrace_problems_total", "not_found"] == 1
    assert ("millrace_reconciliation_age_seconds",) not in found
    assert ("millrace_address_pool",) not in found
    assert not [key for key in found if any(user.wallet_id in part or user.id in part for part in key)]


async def test_a_difference_and_its_case_are_told(api: Api) -> None:
    reconciliations = Reconciliations(api.resources.pool)
    await reconciliations.begin_run(RunStart(run=DIFFERS.run, workflow_id="reconciliation"))
    await reconciliations.record_run(DIFFERS)
    found = await scrape(api)
    assert found["millrace_reconciliation_difference_msat", CHANNELS] == -7
    assert found["millrace_reconciliation_status", "differs"] == 1
    assert found["millrace_reconciliation_status", "clean"] == 0
    assert found["millrace_cases_open", FindingKind.PAYMENT_NOT_IN_BOOKS.value] == 1
    assert found["millrace_reconciliation_age_seconds",] < 60


async def test_the_chain_and_what_waits_on_it_are_told(api: Api) -> None:
    depositor, user = Depositor(api.resources.pool), await api.open_account()
    await depositor.reach(100, problem="behind")
    await fill_pool(api.database, 7)
    old = await depositor.see(user, 1_000)
    await depositor.see(user, 2_000)
    held, deep, lost, gone = [await depositor.see(user, 3_000, over_limit=over) for over in (True, False, False, False)]
    for each in (held, deep, lost):
        await depositor.book(each, 99)
    await depositor.drop(gone)
    await api.database.execute(
        "UPDATE bank.deposits SET created_at = created_at - interval '1 hour' WHERE id = $1", old
    )
    await api.database.execute("UPDATE bank.deposits SET final_at = now() WHERE id = ANY($1)", [held, deep])
    payee = await api.open_account()
    await Teller(api.resources.pool).pay_user(user, payee, 5_000_000)
    assert await depositor.take_back(lost) == 2_000_000
    found = await scrape(api)
    assert found["millrace_chain_height", "hot"] == 101
    assert found["millrace_address_pool",] == 7
    assert found["millrace_chain_report_age_seconds", "hot"] < 60
    assert ("millrace_chain_problem", "behind") not in found
    counts = {status: found["millrace_deposits", status] for status in ("pending", "credited", "reversed", "held")}
    assert counts == {"pending": 2, "credited": 0, "reversed": 1, "held": 1}
    assert found["millrace_deposits", "unattributed"] == found["millrace_deposits_msat", "credited"] == 0
    assert found["millrace_deposits_msat", "pending"] == found["millrace_deposits_incoming_msat",] == 3_000_000
    assert found["millrace_deposits_msat", "held"] == 3_000_000
    assert 3_600 <= found["millrace_deposit_oldest_pending_seconds",] < 3_700
    assert (found["millrace_receivables",], found["millrace_receivables_msat",]) == (1, 2_000_000)


async def test_why_the_chain_cannot_be_followed_is_told(api: Api) -> None:
    assert ("millrace_chain_height", "hot") not in await scrape(api)
    await Depositor(api.resources.pool).reach(7, problem="unreachable")
    api.app.state.metrics._read_at, api.app.state.metrics_page = float("-inf"), None
    assert (await scrape(api))["millrace_chain_problem", "unreachable"] == 1


async def test_figures_are_kept_for_some_seconds(api: Api) -> None:
    teller = await open_teller(api)
    assert (await scrape(api))["millrace_held_msat",] == 0
    user = await api.open_account()
    await teller.receive(user, 100_000)
    await teller.hold(user, 10_000, 100)
    assert (await scrape(api))["millrace_held_msat",] == 0


async def test_without_postgres_the_page_still_answers(api: Api) -> None:
    await api.resources.pool.close()
    found = await scrape(api)
    assert found["millrace_books_up",] == 0
    assert ("millrace_held_msat",) not in found
    assert ("process_cpu_seconds_total",) in found


async def test_with_an_address_of_its_own_the_page_is_there_and_not_on_the_public_one(
    ledger_db: Database, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, metrics_address=address) as api:
        assert (await api.http.get("/metrics")).status_code == 404
        async with httpx.AsyncClient(base_url=f"http://{address}") as prometheus:
            assert read((await prometheus.get("/metrics")).text)["millrace_books_up",] == 1
            assert (await prometheus.get("/v1/account")).status_code == 404
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(b"x" * 100_000)
        assert await reader.read() == b""
        writer.close()


async def test_outside_regtest_the_public_port_has_no_metrics(ledger_db: Database, tmp_path: Path) -> None:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, bitcoin_network="mainnet") as api:
        assert (await api.http.get("/metrics")).status_code == 404
