"""Every list, page by page: whatever its rows are, every page size gives each of them once, in the list's order.

The rows are written by SQL, so that many have the same time and ids that sort oddly; the books know nothing of them.
"""

import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, is_problem, running_api
from tests.helpers.teller import open_teller

pytestmark = pytest.mark.integration

IDS = ["0", "00", "10", "9", "A", "_", "_a", "a", "aA", "a_", "b.in", "b.out", "x" * 90, "~"]
"""In the order of their code points, which is that of the tests' databases."""
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TIMES = [NOON, NOON + timedelta(microseconds=1), NOON + timedelta(days=1, microseconds=900_000)]

_PAYMENTS = """
INSERT INTO bank.payments (id, account_id, wallet_id, kind, status, destination, amount_msat, max_fee_msat,
       payment_hash, bolt11, node, attempt, workflow_id, created_at, settled_at, payee_wallet_id)
SELECT id, $1, $2, 'lightning', 'settled', 'x', 1, 0, encode(sha256(id::bytea), 'hex'), 'x', 'lnd-1', 1, 'w', at, at, $5
  FROM unnest($3::text[], $4::timestamptz[]) t(id, at)"""
_RECEIVED = """
INSERT INTO bank.invoices (id, account_id, wallet_id, node, bolt11, payment_hash, received_msat, outside_msat,
       outside_at, status, expires_at, created_at, settled_at)
SELECT id, $1, $2, 'lnd-1', 'x', encode(sha256((id || $1)::bytea), 'hex'), 1, 1, at, 'settled', at, at, at
  FROM unnest($3::text[], $4::timestamptz[]) t(id, at)"""
_CORRECTIONS = """
INSERT INTO bank.corrections (id, kind, debit, credit, amount_msat, reason, status, proposed_by, approved_by,
       workflow_id, created_at, expires_at, decided_at, ended_at)
SELECT id, 'correction', $1, $2, 1, 'x', 'posted', 'a', 'b', 'w', at, at, at, at
  FROM unnest($3::text[], $4::timestamptz[]) t(id, at)"""
_DEPOSITS = """
INSERT INTO bank.deposits (id, account_id, wallet_id, txid, vout, address, amount_sat, status, sight, required, deep,
       workflow_id, created_at)
SELECT id, $1, $2, encode(sha256((id || $1)::bytea), 'hex'), 0, 'x', 1, 'pending', 'mempool', 1, 6, 'w', at
  FROM unnest($3::text[], $4::timestamptz[]) t(id, at)"""
_WITHDRAWALS = """
INSERT INTO bank.withdrawals (id, account_id, wallet_id, address, script, amount_sat, fee_from, speed, max_fee_sat,
       held_msat, service_fee_msat, fee_version, fee_level, workflow_id, created_at, payee_wallet_id, status, ended_at)
SELECT id, $1, $2, 'address__x', '\\x51020000', 1, 'balance', 'fast', 0, 1000, 0, 1, 0, 'w', at, $5,
       CASE WHEN $5::text IS NULL THEN 'queued' ELSE 'confirmed' END, CASE WHEN $5::text IS NOT NULL THEN at END
  FROM unnest($3::text[], $4::timestamptz[]) t(id, at)"""
_OTHERS = {
    "/v1/addresses": """
INSERT INTO bank.addresses (address, hd_index, made_height, account_id, wallet_id, purpose, given_at)
SELECT 'address__' || id, 1, 1, $1, $2, 'api', at""",
    "/v1/withdraw-links": """
INSERT INTO bank.withdraw_links (id, account_id, wallet_id, key_id, amount_msat, uses, uses_left, created_at)
SELECT id, $1, $2, (SELECT id FROM bank.api_keys WHERE account_id = $1 LIMIT 1), 1, 1, 1, at""",
    "/v1/accounts/{account}/api-keys": """
INSERT INTO bank.api_keys (id, account_id, name, scopes, secret_hash, created_at)
SELECT id, $1, coalesce($2::text, 'x'), '{read}', sha256(''), at""",
    "/v1/admin/accounts": """
WITH who AS (SELECT $1::text, $2::text),
 opened AS (INSERT INTO ledger.accounts (code, kind, currency, floor, mode)
    SELECT 'liab:user:' || md5(id), 'liability', 'BTC', 0, 'locked' FROM unnest($3::text[]) t(id) RETURNING id, code),
 balances AS (INSERT INTO ledger.balances (account_id, normal, floor) SELECT id, -1, 0 FROM opened),
 wallets AS (INSERT INTO bank.wallets (id, account_id, currency, ledger_account_id)
    SELECT md5(t.id), t.id, 'BTC', o.id FROM opened o JOIN unnest($3::text[]) t(id) ON code = 'liab:user:' || md5(t.id))
INSERT INTO bank.accounts (id, level, created_at) SELECT id, 9, at""",
    "/v1/admin/reconciliation": """
INSERT INTO bank.reconciliations (id, workflow_id, created_at) SELECT id, coalesce($1, $2::text), at""",
    "/v1/admin/reconciliation/cases": """
INSERT INTO bank.cases (id, kind, account, subject, amount_msat, detail, suspects, run, last_seen, created_at)
SELECT id, 'broken_rule', coalesce($1, $2::text), id, 1, 'x', '[]', 'r', 'r', at""",
    "/v1/admin/decisions": """
INSERT INTO bank.decisions (id, payment_id, payment_end, fee_msat, reason, proposed_by, created_at)
SELECT id, id, 'failed', 0, coalesce($1, $2::text), 'a', at""",
    "/v1/admin/deposits": """
INSERT INTO bank.deposits (id, txid, vout, address, amount_sat, status, sight, required, deep, workflow_id, created_at)
SELECT 'op' || id, encode(sha256((id || 'op')::bytea), 'hex'), 0, coalesce($1, $2::text), 1, 'reversed', 'gone', 1, 6,
       'w', at""",
    "/v1/admin/deposit-decisions": """
INSERT INTO bank.deposit_decisions (id, deposit_id, kind, amount_msat, reason, proposed_by, created_at)
SELECT id, id, 'release', 1, coalesce($1, $2::text), 'a', at""",
    "/v1/admin/payouts": """
INSERT INTO bank.payouts (id, wallet, kind, speed, status, problem, workflow_id, created_at)
SELECT id, 'hot', 'batch', 'fast', 'planned', coalesce($1, $2::text), 'w', at""",
    "/v1/admin/withdrawal-decisions": """
INSERT INTO bank.withdrawal_decisions (id, withdrawal_id, kind, amount_sat, operators, reason, proposed_by, created_at)
SELECT id, id, 'approve', 1, 2, coalesce($1, $2::text), 'a', at""",
    "/v1/admin/audit": """
INSERT INTO bank.audit (id, at, operator, key_id, action, account_id, detail)
SELECT row_number() OVER (ORDER BY at) + (SELECT coalesce(max(id), 0) FROM bank.audit), at, 'a', 'k', 'made.up',
       coalesce($1, $2::text), '{}'""",
}
QUERIES: dict[str, dict[str, str]] = {
    "/v1/admin/accounts": {"level": "9"},
    "/v1/admin/audit": {"action": "made.up"},
    "/v1/admin/deposits": {"status": "reversed"},
    "/v1/admin/withdrawals": {"payout_id": "po_of_this_test"},
}
"""So that only the rows of the test are listed."""
LISTS = [
    *(
        "/v1/payments",
        "/v1/invoices",
        "/v1/deposits",
        "/v1/wallets/{wallet}/transactions",
        "/v1/wallets/{wallet}/statement",
    ),
    *("/v1/withdrawals", "/v1/admin/withdrawals", "/v1/admin/corrections", *_OTHERS),
]
_UNPAGED = {"/v1/wallets"}
"""An account has one wallet: its list has no second page."""


@dataclass
class Rows:
    """Who writes rows: the guards of the tables are off, but for their checks."""

    conn: asyncpg.Connection

    async def write(self, statement: str, *who: Any, ids: Sequence[str], times: Sequence[datetime]) -> None:
        source = "" if "unnest($3::text[], " in statement else " FROM unnest($3::text[], $4::timestamptz[]) t(id, at)"
        await self.conn.execute(statement + source, *who[:2], list(ids), list(times), *who[2:])


@pytest_asyncio.fixture(scope="module")
async def api(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    async with running_api(shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn, folder, rate_limit_per_minute=0) as it:
        yield it


@pytest_asyncio.fixture(scope="module")
async def rows(shared_ledger_db: Database) -> AsyncIterator[Rows]:
    conn = await asyncpg.connect(shared_ledger_db.superuser_dsn)
    await conn.execute("SET session_replication_role = replica")
    yield Rows(conn)
    await conn.close()


@pytest_asyncio.fixture
async def user(api: Api) -> User:
    return await api.open_account(("read", "receive", "send", "admin"))


async def page_through(user: User, path: str, limit: int, most: int, **query: Any) -> list[dict[str, Any]]:
    """All pages of the list; it fails when they do not come to an end."""
    items: list[dict[str, Any]] = []
    for _ in range(most):
        answer = await user.get(path, limit=limit, **query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found = page["items"] if "items" in page else page["movements"]
        assert len(found) <= limit
        items += found
        if page["next_cursor"] is None:
            return items
        query = {**query, "after": page["next_cursor"]}
    raise AssertionError(f"{path} has no end with pages of {limit}: {[item.get('id') for item in items]}")


async def fill(api: Api, rows: Rows, user: User, path: str) -> int:
    """Rows for this list, each time with several ids; gives how many."""
    times = [TIMES[place % len(TIMES)] for place in range(len(IDS))]
    if path.endswith("statement"):
        teller = await open_teller(api)
        for amount_msat in range(1, 8):
            await teller.receive(user, amount_msat)
        return 7
    if path.endswith("transactions"):
        return await fill_wallet(rows, user, [(kind, place % 3) for kind in range(8) for place in range(4)])
    before = 1 if path.endswith("api-keys") else 0
    statement, who = _OTHERS.get(path, ""), (user.id, user.wallet_id)
    if path == "/v1/payments":
        await rows.write(_PAYMENTS, *who, None, ids=IDS, times=times)
    elif path == "/v1/invoices":
        await rows.write(_RECEIVED, *who, ids=IDS, times=times)
    elif path == "/v1/deposits":
        await rows.write(_DEPOSITS, *who, ids=IDS, times=times)
    elif path == "/v1/withdrawals":
        await rows.write(_WITHDRAWALS, *who, None, ids=IDS, times=times)
    elif path == "/v1/admin/withdrawals":
        await rows.write(_WITHDRAWALS, "acct_x", "wal_x", None, ids=[f"op{each}" for each in IDS], times=times)
        await rows.conn.execute(
            """UPDATE bank.withdrawals w SET payout_id = 'po_of_this_test', status = 'batched', paid_sat = 1,
                      miner_fee_sat = 1, place = o.place
                 FROM (SELECT id, row_number() OVER () AS place FROM bank.withdrawals WHERE wallet_id = 'wal_x') o
                WHERE w.id = o.id"""
        )
    elif path == "/v1/admin/corrections":
        await rows.conn.execute("DELETE FROM bank.corrections")
        await rows.write(_CORRECTIONS, "x", "y", ids=IDS, times=times)
    else:
        await rows.write(statement, *who, ids=IDS, times=times)
    return len(IDS) + before


async def fill_wallet(rows: Rows, user: User, wanted: Sequence[tuple[int, int]]) -> int:
    """Transactions of the wallet, each of one of eight kinds and at one of the times."""
    mine, other = user.wallet_id, "wal_of_another"
    writers: list[tuple[str, tuple[Any, ...]]] = [
        (_PAYMENTS, (user.id, mine, None)),
        (_PAYMENTS, ("acct_x", other, mine)),
        (_RECEIVED, (user.id, mine)),
        (_CORRECTIONS, (f"liab:user:{mine}", "suspense:in")),
        (_CORRECTIONS, ("suspense:in", f"liab:user:{mine}")),
        (_DEPOSITS, (user.id, mine)),
        (_WITHDRAWALS, (user.id, mine, None)),
        (_WITHDRAWALS, ("acct_x", other, mine)),
    ]
    for place, (kind, time) in enumerate(wanted):
        statement, who = writers[kind]
        odd = IDS[(place * 5 + kind) % 12]
        await rows.write(statement, *who, ids=[f"{odd}.{user.id}.{place}"], times=[TIMES[time]])
    return len(wanted)


def order(path: str, items: Sequence[dict[str, Any]]) -> list[Any]:
    """What the rows are ordered by, newest first; of a statement the version, which grows with the balance here."""
    if path.endswith("statement"):
        return [-item["balance_msat"] for item in items]
    if path.endswith("audit"):
        return [item["id"] for item in items]
    name = {"transactions": "reference", "addresses": "address"}.get(path.rpartition("/")[2], "id")
    ids = [item[name] for item in items]
    return [(datetime.fromisoformat(item["created_at"]), each) for item, each in zip(items, ids, strict=True)]


@pytest.mark.parametrize("path", LISTS)
async def test_every_page_size_gives_each_row_once_in_order(api: Api, rows: Rows, user: User, path: str) -> None:
    count = await fill(api, rows, user, path)
    url = path.format(wallet=user.wallet_id, account=user.id)
    query = QUERIES.get(path, {})
    whole = order(path, await page_through(user, url, 100, 1, **query))
    assert whole == sorted(whole, reverse=True)
    assert len(set(whole)) == len(whole) == count
    for limit in range(1, count + 2):
        assert order(path, await page_through(user, url, limit, count + 1, **query)) == whole, limit


def test_every_list_of_the_api_is_among_them(api: Api) -> None:
    document = api.app.openapi()
    schemas = document["components"]["schemas"]

    def is_list(operation: dict[str, Any]) -> bool:
        content = operation.get("responses", {}).get("200", {}).get("content", {}).get("application/json", {})
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        return "next_cursor" in schemas.get(name, {}).get("properties", {})

    lists = {path for path, item in document["paths"].items() if is_list(item.get("get", {}))}
    named = {path.format(wallet="{wallet_id}", account="{account_id}") for path in LISTS}
    assert lists - _UNPAGED == named


async def test_a_list_given_whole_has_a_bound(
    api: Api, rows: Rows, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows.write(_OTHERS["/v1/admin/reconciliation/cases"], *("x", "y"), ids=["case_long"], times=[NOON])
    await rows.conn.execute(
        """INSERT INTO bank.case_updates (case_id, event, actor, note)
           SELECT 'case_long', 'vanished', 'x', n::text FROM generate_series(1, 1002) n"""
    )
    trail = (await user.get("/v1/admin/reconciliation/cases/case_long")).json()["trail"]
    assert [int(line["note"]) for line in trail] == list(range(3, 1003))
    monkeypatch.setattr("api.service.ledger._MOST_ACCOUNTS", 3)
    path = "/v1/admin/ledger/trial-balance"
    assert is_problem(await user.get(path), 422, "invalid_request")["field"] == "users"
    assert (await user.get(path, users="together")).status_code == 200


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2)), min_size=1, max_size=9))
async def test_transactions_of_any_kinds_are_each_given_once(
    api: Api, rows: Rows, wanted: list[tuple[int, int]]
) -> None:
    user = await api.open_account(("read",))
    count = await fill_wallet(rows, user, wanted)
    path = f"/v1/wallets/{user.wallet_id}/transactions"
    whole = order(path, await page_through(user, path, 100, 1))
    assert whole == sorted(whole, reverse=True)
    assert len(set(whole)) == count
    for limit in range(1, count + 1):
        assert order(path, await page_through(user, path, limit, count + 1)) == whole
        narrow = await page_through(user, path, limit, count + 1, direction="out")
        assert len(narrow) == sum(kind in {0, 3, 6} for kind, _time in wanted)


@pytest.mark.parametrize("path", LISTS)
async def test_a_foreign_cursor_is_refused(api: Api, path: str) -> None:
    user, stranger = await api.open_account(("read", "send", "admin")), await api.open_account()
    url = path.format(wallet=user.wallet_id, account=user.id)
    for _ in range(2):
        await stranger.post(f"/v1/accounts/{stranger.id}/api-keys", {"name": "x", "scopes": ["read"]})
    foreign = (await stranger.get(f"/v1/accounts/{stranger.id}/api-keys", limit=1)).json()["next_cursor"]
    checked = base64.urlsafe_b64decode(foreign)
    for after in (
        *("", "x", "=", "====", "AAAA", "\0", "é", "null", "%00", " ", "A" * 500, "A" * 501, "A" * 60_000),
        *(foreign, foreign + "=", foreign[:-1], foreign[::-1], foreign.lower()),
        *(base64.urlsafe_b64encode(checked[:6] + rest).decode() for rest in (b"", b"[]", b"\xff\xfe", b"1", b"{}")),
    ):
        is_problem(await user.get(url, after=after), 422, "invalid_request")
    twice = httpx.QueryParams([("after", foreign), ("after", foreign)])
    is_problem(await user.http.get(url, params=twice, headers=user.headers), 422, "invalid_request")
