"""What is counted, and that the alerts and the page of operations speak of metrics that there are."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from activities.failures import as_failure
from activities.metrics import code_of, outcome_of, outcomes_of
from api.http import connection
from api.system.gauge import BookGauges
from api.system.metrics import Metering, Metrics
from engine.contracts.batch import BatchOutcome
from engine.contracts.lane import LaneOutcome
from engine.contracts.payment import OpenedPayment, PaymentOutcome, PaymentStatus, Refusal
from engine.domain.errors import Refused
from engine.views.balance import ReconciliationFigures
from engine.views.metrics import (
    ChainFigures,
    DepositFigures,
    Figures,
    NodeFigures,
    PayoutFigures,
    Receivables,
    WithdrawalFigures,
)

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
NAME = re.compile(r"\bmillrace_[a-z_]+")
OF_WORKERS = {"millrace_payments_finished_total", "millrace_activity_failures_total"}
FIGURES = Figures(
    nodes=[
        NodeFigures(
            name="lnd-1",
            report_age_s=3,
            outbound_msat=7,
            inbound_msat=5,
            payments_in_flight=2,
            oldest_payment_s=60,
            open_invoices=1,
        )
    ],
    chains=[ChainFigures(wallet="hot", height=900_000, report_age_s=2, problem="behind")],
    deposits=[DepositFigures(status="pending", count=2, amount_msat=3_000, oldest_s=60)],
    incoming_msat=3_000,
    receivables=Receivables(count=1, amount_msat=9),
    withdrawals=[
        WithdrawalFigures(status="queued", speed="fast", count=2, held_msat=5_000, oldest_s=70, unapproved=1, on_hold=0)
    ],
    payouts=[PayoutFigures(status="broadcast", count=1, oldest_s=90, problems=1, on_hold=0)],
    reserved_coins=3,
    ready_addresses=4,
    held_msat=21,
    rulebooks={"fees": 1},
    reconciliation=ReconciliationFigures(
        status="differs", age_s=5, differences_msat={"asset:lnd:lnd-1:channels": -7}, open_cases={"payment": 1}
    ),
)


def of_the_api() -> set[str]:
    families = list(BookGauges(FIGURES, size=3, idle=1).collect())
    counted = [
        f"{family.name}_total" if family.type == "counter" else family.name for family in Metrics().registry.collect()
    ]
    return {family.name for family in families} | {name for name in counted if name.startswith("millrace_")}


def unknown(text: str, known: set[str]) -> set[str]:
    return set(NAME.findall(text)) - known


def test_alerts_and_page_name_metrics_that_exist_and_the_page_names_all() -> None:
    known = of_the_api() | OF_WORKERS
    rules = [rule for group in _alerts()["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules} > {"BooksDiffer", "CaseOpen", "NodeSilent"}
    assert unknown(" ".join(rule["expr"] for rule in rules), known) == set()
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert set(NAME.findall(page)) == known
    assert {rule["alert"] for rule in rules} <= set(re.findall(r"[A-Z][A-Za-z]+", page))
    assert unknown("rate(millrace_made_up_total[5m]) > millrace_books_up", known) == {"millrace_made_up_total"}


def test_counters_of_the_worker_have_the_names_on_the_page() -> None:
    text = (ROOT / "activities/metrics.py").read_text(encoding="utf-8")
    assert {f"{name}_total" for name in re.findall(r'create_counter\(\s*"(\w+)"', text)} == OF_WORKERS


def _alerts() -> Any:
    return yaml.safe_load((ROOT / "infra/prometheus/alerts.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (PaymentOutcome(body_hash="", status=PaymentStatus.SETTLED), "settled"),
        (PaymentOutcome(body_hash="", status=PaymentStatus.FAILED), "failed"),
        (OpenedPayment(outcome=PaymentOutcome(body_hash="", status=PaymentStatus.SETTLED)), "settled"),
        (OpenedPayment(outcome=PaymentOutcome(body_hash="", status=PaymentStatus.PENDING)), None),
        (OpenedPayment(outcome=PaymentOutcome(body_hash="", refusal=Refusal(code="x", detail="x"))), "refused"),
        (OpenedPayment(outcome=PaymentOutcome(body_hash="", key_conflict=True)), "key_conflict"),
        ("something else", None),
    ],
)
def test_a_payment_is_counted_when_its_end_is_known(result: object, outcome: str | None) -> None:
    assert outcome_of(result) == outcome


def test_payments_that_went_together_are_counted_one_by_one() -> None:
    no = Refusal(code="x", detail="x")
    lane = [
        PaymentOutcome(body_hash="", status=PaymentStatus.SETTLED),
        PaymentOutcome(body_hash="", status=PaymentStatus.SETTLED),
        PaymentOutcome(body_hash="", refusal=no),
        PaymentOutcome(body_hash=""),  # goes on in a workflow of its own
    ]
    assert outcomes_of(LaneOutcome(outcomes=lane)) == {"settled": 2, "refused": 1}
    assert outcomes_of(BatchOutcome(body_hash="", count=9)) == {"settled": 9}
    assert outcomes_of(BatchOutcome(body_hash="", count=9, refusal=no)) == {"refused": 9}
    assert outcomes_of(BatchOutcome(body_hash="", count=9, key_conflict=True)) == {"key_conflict": 9}
    assert outcomes_of(lane[0]) == {"settled": 1}
    assert outcomes_of("something else") == {}


def test_a_failure_is_counted_by_its_code() -> None:
    assert code_of(as_failure(Refused("no", code="insufficient_funds"))) == "insufficient_funds"
    assert code_of(ConnectionResetError()) == "ConnectionResetError"


async def test_requests_are_counted_by_template_and_made_up_paths_are_not() -> None:
    metrics = Metrics()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/broken":
            raise RuntimeError
        if scope["path"] != "/made-up":
            scope["route"] = SimpleNamespace(path="/v1/wallets/{wallet_id}")
        scope["state"] = {"problem": "not_found"}
        await send({"type": "http.response.start", "status": 404})

    async def send(message: Any) -> None:
        """Nobody reads it."""

    async def ask(path: str, method: str = "GET") -> None:
        await Metering(app, metrics)({"type": "http", "path": path, "method": method}, send, send)  # type: ignore[arg-type]

    await ask("/v1/wallets/wal_1")
    await ask("/made-up", method="BREW")
    with pytest.raises(RuntimeError):
        await ask("/broken")
    counted = {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name in ("millrace_http_requests_total", "millrace_problems_total")
    }
    assert counted == {
        ("GET", "/v1/wallets/{wallet_id}", "404"): 1,
        ("other", "none", "404"): 1,
        ("GET", "none", "500"): 1,
        ("not_found",): 2,
        ("internal_error",): 1,
    }


def test_without_postgres_the_page_says_so_and_nothing_of_the_books() -> None:
    names = {family.name for family in BookGauges(None, size=0, idle=0).collect()}
    assert names == {"millrace_books_up", "millrace_postgres_connections"}


def test_the_page_of_operations_knows_why_connections_end() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    reasons = {*connection._REFUSALS, "evicted", "unread", "after_answer"}
    assert [reason for reason in sorted(reasons) if f"`{reason}`" not in page] == []
