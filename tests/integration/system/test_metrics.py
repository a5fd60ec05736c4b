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
from tests.helpers.api import Api, running_api
from tests.helpers.teller import open_teller

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
