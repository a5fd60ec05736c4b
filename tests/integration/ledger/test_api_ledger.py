"""The books for operators: balances of any moment, stories of transfers, and exports that give the balances back."""

import asyncio
import csv
import io
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from engine.views import transfer_history
from engine.views.beancount import account_code
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, Json, User, is_problem, running_api
from tests.helpers.teller import CAPITAL_MSAT, Teller, open_teller

pytestmark = pytest.mark.integration

BASE = "/v1/admin/ledger"
Sums = dict[tuple[str, str], int]


@pytest_asyncio.fixture(scope="module")
async def api(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    async with running_api(shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn, folder, rate_limit_per_minute=0) as it:
        yield it


@pytest_asyncio.fixture(scope="module")
async def teller(api: Api) -> Teller:
    return await open_teller(api)


@pytest_asyncio.fixture
async def alice(api: Api, teller: Teller) -> User:
    """A user with one of everything."""
    alice, bob = await api.open_account(), await api.open_account()
    await teller.receive(alice, 250_000, "tip")
    await teller.settle(await teller.hold(alice, 100_000, 1_000, '=1+1 "quoted" \\ and\nmore'), 350)
    await teller.release(await teller.hold(alice, 10_000, 100))
    await teller.pay_user(alice, bob, 20_000, "@lunch, with friends")
    await teller.hold(alice, 5_000, 50)
    return alice


async def ask(api: Api, path: str, **query: Any) -> httpx.Response:
    return await api.http.get(f"{BASE}{path}", params=query, headers=ADMIN)


async def tell(api: Api, path: str, **query: Any) -> Json:
    answer = await ask(api, path, **query)
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


async def trial_balance(api: Api, **query: Any) -> Sums:
    """Per account and layer, zeros left out; sums to zero or fails."""
    told = await tell(api, "/trial-balance", **query)
    assert told["totals"] == [{"currency": "BTC", "settled_msat": 0, "held_msat": 0}]
    layers = ("settled", "held")
    sums = {(each["code"], layer): each[f"{layer}_msat"] for each in told["accounts"] for layer in layers}
    return {key: amount for key, amount in sums.items() if amount}


def reimported(text: str) -> Sums:
    sums: Counter[tuple[str, str]] = Counter()
    for row in csv.DictReader(io.StringIO(text, newline="")):
        sums[row["account"], row["layer"]] += int(row["amount"])
    return {key: amount for key, amount in sums.items() if amount}


def reread(text: str) -> Sums:
    """What a reader of Beancount's text adds up to, with the accounts' own codes."""
    sums: Counter[tuple[str, str]] = Counter()
    for name, amount in re.findall(r"^  ([A-Z][^ ]+)  (-?\d+) MSAT$", text, re.MULTILINE):
        _kind, layer, code = account_code(name)
        sums[code, layer] += int(amount)
    return {key: amount for key, amount in sums.items() if amount}


def bean_check(folder: Path, text: str) -> tuple[int, str]:
    path = folder / "book.beancount"
    path.write_text(text, encoding="utf-8")
    words = [sys.executable, "-m", "beancount.scripts.check", "--no-cache", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


async def times(api: Api) -> list[datetime]:
    rows = await api.database.fetch("SELECT DISTINCT posted_at FROM ledger.entries ORDER BY 1")
    return [row["posted_at"] for row in rows]


# Balances


async def test_the_trial_balance_of_any_moment_sums_to_zero_and_ends_as_it_is_now(api: Api, alice: User) -> None:
    moments = await times(api)
    before = moments[0] - timedelta(microseconds=1)
    assert await trial_balance(api, at=before.isoformat()) == {}
    first = await trial_balance(api, at=moments[0].isoformat())
    assert first["asset:lnd:lnd-1:channels", "settled"] == CAPITAL_MSAT
    for moment in moments:
        assert await trial_balance(api, at=moment.isoformat())
    now = await trial_balance(api)
    assert await trial_balance(api, at=moments[-1].isoformat()) == now
    assert now[f"liab:user:{alice.wallet_id}", "settled"] == -(250_000 - 100_350 - 20_000)
    assert now[f"liab:user:{alice.wallet_id}", "held"] == 5_050


async def test_one_account_is_its_row_of_the_trial_balance(api: Api, alice: User) -> None:
    code = f"liab:user:{alice.wallet_id}"
    for moment in (await times(api))[-6:]:
        at = moment.isoformat()
        whole, one = await trial_balance(api, at=at), await tell(api, f"/accounts/{code}/balance", at=at)
        assert (one["settled_msat"], one["held_msat"]) == (
            whole.get((code, "settled"), 0),
            whole.get((code, "held"), 0),
        )
        assert datetime.fromisoformat(one["at"]) == moment
    is_problem(await ask(api, "/accounts/liab:nobody/balance"), 404, "not_found")
    is_problem(await ask(api, "/accounts/liab%00x/balance"), 422, "invalid_request")


@pytest.mark.parametrize("path", ["/trial-balance", "/accounts/liab:outbox/balance", "/transfers/x", "/export"])
async def test_the_books_are_for_administrators(api: Api, alice: User, path: str) -> None:
    is_problem(await alice.get(f"{BASE}{path}"), 403, "forbidden")
    is_problem(await api.http.get(f"{BASE}{path}"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/trial-balance", {"at": "2026-01-01T00:00:00"}),
        ("/trial-balance", {"at": "9999-12-31T23:59:59Z"}),
        ("/trial-balance", {"on": "2026-01-01"}),
        ("/accounts/liab:outbox/balance", {"at": "yesterday"}),
        ("/export", {"format": "xlsx"}),
        ("/export", {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}),
        ("/export", {"to": "1970-01-01T00:00:00Z"}),
    ],
)
async def test_absurd_questions_are_refused(api: Api, path: str, query: Json) -> None:
    is_problem(await ask(api, path, **query), 422, "invalid_request")


# Stories


async def test_a_hold_and_its_settlement_have_one_story(api: Api, teller: Teller) -> None:
    user = await api.open_account()
    await teller.receive(user, 250_000)
    row = await teller.hold(user, 100_000, 1_000, "held")
    opened = await tell(api, f"/transfers/ln:{row.payment_hash}:hold:1")
    assert (opened["status"], len(opened["steps"]), opened["payment_ids"]) == ("open", 1, [row.id])
    await teller.settle(row, 350)
    told = await tell(api, f"/transfers/ln:{row.payment_hash}:hold:1")
    assert told["steps"] == (await tell(api, f"/transfers/ln:{row.payment_hash}:settle"))["steps"]
    assert (told["status"], told["payment_ids"], told["invoice_ids"]) == ("settled", [row.id], [])
    hold, settle = told["steps"]
    assert (hold["phase"], hold["actor"], hold["workflow_id"]) == ("hold", "payment", row.workflow_id)
    assert (hold["description"], settle["resolves"], settle["status"]) == ("held", [hold["ref"]], "final")
    assert hold["posted_at"] < settle["posted_at"]
    mine = f"liab:user:{user.wallet_id}"
    assert legs(hold) == {(mine, "held"): 101_000, ("liab:outbox", "held"): -101_000}
    assert legs(settle) == {
        (mine, "held"): -101_000,
        ("liab:outbox", "held"): 101_000,
        (mine, "settled"): 100_350,
        ("exp:ln-routing", "settled"): 350,
        ("asset:lnd:lnd-1:channels", "settled"): -100_350,
        ("income:ln-fee", "settled"): -350,
    }


async def test_a_hold_that_was_released(api: Api, teller: Teller) -> None:
    user = await api.open_account()
    await teller.receive(user, 250_000)
    row = await teller.hold(user, 100_000, 1_000)
    await teller.release(row)
    told = await tell(api, f"/transfers/ln:{row.payment_hash}:void:1")
    assert [(step["phase"], step["status"]) for step in told["steps"]] == [("hold", "voided"), ("void", "final")]
    assert (told["status"], told["payment_ids"]) == ("final", [row.id])
    hold, void = told["steps"]
    assert {key: -amount for key, amount in legs(void).items()} == legs(hold)


async def test_internal_payments_and_receipts(api: Api, teller: Teller) -> None:
    one, two = await api.open_account(), await api.open_account()
    received = await teller.receive(one, 250_000)
    payment_hash = await api.database.fetchval("SELECT payment_hash FROM bank.invoices WHERE id = $1", received)
    told = await tell(api, f"/transfers/ln:{payment_hash}:recv")
    assert (told["payment_ids"], told["invoice_ids"]) == ([], [received])
    paid = await teller.pay_user(one, two, 20_000, "lunch")
    told = await tell(api, f"/transfers/pay:{paid}")
    (step,) = told["steps"]
    assert (told["status"], told["payment_ids"], told["invoice_ids"]) == ("final", [paid], [])
    assert (step["template"], step["metadata"], step["description"]) == ("paid_internally", {"payment": paid}, "lunch")
    assert legs(step) == {
        (f"liab:user:{one.wallet_id}", "settled"): 20_000,
        (f"liab:user:{two.wallet_id}", "settled"): -20_000,
    }
    by_invoice = await teller.pay_user(one, two, 1_000, by_invoice=True)
    row = await api.database.fetchrow("SELECT id, payment_hash FROM bank.invoices WHERE paid_by = $1", by_invoice)
    assert row
    told = await tell(api, f"/transfers/ln:{row['payment_hash']}:recv")
    assert (told["payment_ids"], told["invoice_ids"]) == ([by_invoice], [row["id"]])


async def test_a_long_story_has_the_transfer_that_was_asked_for(
    api: Api, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_history, "MAX_STEPS", 1)
    user = await api.open_account()
    await teller.receive(user, 250_000)
    row = await teller.hold(user, 100_000, 1_000)
    await teller.settle(row, 0)
    for ref in (f"ln:{row.payment_hash}:hold:1", f"ln:{row.payment_hash}:settle"):
        assert [step["ref"] for step in (await tell(api, f"/transfers/{ref}"))["steps"]] == [ref]


async def test_a_transfer_that_is_not_there(api: Api) -> None:
    is_problem(await ask(api, "/transfers/ln:nothing:settle"), 404, "not_found")
    for ref in ("%00", "a%20b", "%C3%A9", "x" * 201):
        is_problem(await ask(api, f"/transfers/{ref}"), 422, "invalid_request")


def legs(step: Json) -> Sums:
    return {(leg["account"], leg["layer"]): leg["amount_msat"] for leg in step["entries"]}


# Exports


async def test_an_export_read_back_gives_every_balance(api: Api, alice: User) -> None:
    whole = await ask(api, "/export")
    assert whole.headers["content-type"].startswith("text/csv")
    assert reimported(whole.text) == await trial_balance(api)
    assert "'=1+1" in whole.text
    assert "'@lunch" in whole.text
    moments = await times(api)
    for begin, end in ((0, 3), (3, 8), (5, 5), (len(moments) // 2, len(moments) - 1)):
        query = {"from": moments[begin].isoformat(), "to": moments[end].isoformat()}
        at = (moments[end] - timedelta(microseconds=1)).isoformat()
        there = await trial_balance(api, at=at)
        assert reimported((await ask(api, "/export", **query)).text) == there
        assert reread((await ask(api, "/export", format="beancount", **query)).text) == there


async def test_bean_check_accepts_the_book_and_checks_its_balances(api: Api, alice: User, tmp_path: Path) -> None:
    text = (await ask(api, "/export", format="beancount")).text
    assert bean_check(tmp_path, text) == (0, "")
    assert reread(text) == await trial_balance(api)
    moments = await times(api)
    part = (await ask(api, "/export", **{"format": "beancount", "from": moments[4].isoformat()})).text
    assert '* "opening" ""' in part
    assert bean_check(tmp_path, part) == (0, "")
    empty = (await ask(api, "/export", format="beancount", to="2001-01-01T00:00:00Z")).text
    assert bean_check(tmp_path, empty) == (0, "")
    wrong = re.sub(r"(balance Liabilities:\S+  -?)(\d+)", r"\g<1>1\2", text, count=1)
    assert bean_check(tmp_path, wrong)[0] == 1


async def test_an_export_is_one_moment_while_others_pay(api: Api, teller: Teller, alice: User) -> None:
    async def receive_on() -> None:
        for amount in range(1, 10):
            await teller.receive(alice, amount)

    results = await asyncio.gather(*(ask(api, "/export") for _ in range(4)), receive_on())
    for answer in results[:4]:
        assert answer is not None
        by_layer: Counter[str] = Counter()
        for (_code, layer), amount in reimported(answer.text).items():
            by_layer[layer] += amount
        assert set(by_layer.values()) <= {0}


async def test_exports_leave_connections_to_payments(api: Api, alice: User) -> None:
    gone = asyncio.Event()
    begun = [asyncio.Event() for _ in range(4)]

    async def receive() -> Json:
        await gone.wait()
        return {"type": "http.disconnect"}

    def sender(one: asyncio.Event) -> Callable[[Json], Awaitable[None]]:
        async def send(message: Json) -> None:
            if message["type"] == "http.response.body":
                one.set()
                await asyncio.sleep(60)

        return send

    running = [asyncio.create_task(_call(api.app, "csv", "2.3", receive, sender(one))) for one in begun]
    await asyncio.gather(*(one.wait() for one in begun))
    refused, shown = await ask(api, "/export"), await alice.get("/v1/wallets")
    gone.set()
    await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), timeout=10)
    is_problem(refused, 503, "temporarily_unavailable")
    assert shown.status_code == 200
    assert (await ask(api, "/export")).status_code == 200


@pytest.mark.parametrize("form", ["csv", "beancount"])
@pytest.mark.parametrize("spec", ["2.3", "2.4"])
async def test_a_client_that_stops_listening_leaves_nothing_open_in_postgres(
    api: Api, shared_ledger_db: Database, alice: User, form: str, spec: str
) -> None:
    """Both ways in which servers tell of a disconnection: by a message, and by failing to send."""
    begun, gone = asyncio.Event(), asyncio.Event()

    async def receive() -> Json:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Json) -> None:
        if message["type"] == "http.response.body":
            begun.set()
            await gone.wait()
            if spec == "2.4":
                raise OSError("the client has gone")
            await asyncio.sleep(60)

    running = asyncio.create_task(_call(api.app, form, spec, receive, send))
    await begun.wait()
    assert await open_transactions(shared_ledger_db) == 1
    gone.set()
    await asyncio.wait_for(asyncio.gather(running, return_exceptions=True), timeout=10)
    assert await open_transactions(shared_ledger_db) == 0
    assert api.resources.pool.get_size() == api.resources.pool.get_idle_size()


async def _call(app: Any, form: str, spec: str, receive: Callable[[], Awaitable[Json]], send: Any) -> None:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": f"{BASE}/export",
        "raw_path": f"{BASE}/export".encode(),
        "query_string": f"format={form}".encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in ADMIN.items()],
        "client": ("127.0.0.1", 1),
        "server": ("api", 80),
        "state": {},
    }
    await app(scope, receive, send)


async def open_transactions(database: Database) -> int:
    connection = await asyncpg.connect(database.superuser_dsn)
    try:
        return int(
            await connection.fetchval(
                """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                      AND application_name = 'millrace' AND xact_start IS NOT NULL"""
            )
        )
    finally:
        await connection.close()
