"""The database keeps the books by itself: every way around the posting function that we could think of, tried."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from engine.ledger.book import credit, debit
from engine.ledger.database import open_pool
from tests.fixtures.postgres import Database
from tests.helpers.ledger.bank import Bank, open_bank, run_as

pytestmark = pytest.mark.integration

TABLES = ["accounts", "transfers", "entries", "resolutions", "balances", "counters"]
POSE = "SELECT set_config('ledger.posting', 'on', true)"
"""An owner who poses as the posting function: past the first guard, so that the rules behind it are tried too."""

TRANSFER = """INSERT INTO ledger.transfers (external_ref, payload_hash, template, phase, actor, metadata, effective_on)
    VALUES ('{ref}', sha256(''), 't', '{phase}', 'owner', '{{}}', '2020-01-01')"""
LEGS = """
INSERT INTO ledger.entries (transfer_id, account_id, currency, layer, amount, balance_after, version, posted_at)
SELECT t.id, a.id, x.currency, x.layer, x.amount, x.version, x.version, now()
  FROM ledger.transfers t, (VALUES {rows}) x(code, currency, layer, amount, version)
  JOIN ledger.accounts a USING (code) WHERE t.external_ref = '{ref}'"""


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database) -> AsyncIterator[Bank]:
    pool = await open_pool(shared_ledger_db.app_dsn)
    bank = await open_bank(pool)
    bank.ids["user"] = await bank.user(funds=1_000)
    await bank.post("old:hold", [debit(bank["user"], 100), credit(bank["outbox"], 100)], "hold")
    yield bank
    assert await bank.broken() == []
    assert await bank.balance(bank["user"]) == (900, 100, 0)
    await pool.close()


async def refused(dsn: str, *statements: str) -> str:
    """The SQLSTATE with which the last of the statements, or the COMMIT after them, is refused."""
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await run_as(dsn, *statements)
    return str(refusal.value.sqlstate)


def legs(ref: str, *rows: tuple[str, int, int], currency: str = "BTC") -> str:
    """Rows of (account code, layer, amount) as an INSERT; append accounts, so without versions."""
    values = ", ".join(f"('{code}', '{currency}', {layer}, {amount}, NULL::bigint)" for code, layer, amount in rows)
    return LEGS.format(ref=ref, rows=values)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "action",
    [
        "INSERT INTO {t} ({c}) SELECT {c} FROM {t}",
        "UPDATE {t} SET {c} = {c}",
        "DELETE FROM {t}",
        "TRUNCATE {t} CASCADE",
        "SELECT FROM {t} FOR UPDATE",
        "LOCK {t} IN SHARE ROW EXCLUSIVE MODE",
        "ALTER TABLE {t} DISABLE TRIGGER ALL",
    ],
)
async def test_the_application_can_only_read_the_tables(
    bank: Bank, shared_ledger_db: Database, table: str, action: str
) -> None:
    column = {"accounts": "code", "transfers": "actor", "resolutions": "target_id"}.get(table, "account_id")
    statement = action.format(t=f"ledger.{table}", c=column)
    assert await refused(shared_ledger_db.app_dsn, POSE, statement) == "42501"


async def test_the_application_can_call_these_functions_and_no_other(bank: Bank, shared_ledger_db: Database) -> None:
    query = """SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
                WHERE nspname = 'ledger' AND has_function_privilege('millrace_app', p.oid, 'EXECUTE')"""
    granted = {row["proname"] for row in await bank.pool.fetch(query)}
    bank_functions = {
        "post",
        "open_account",
        "close_account",
        "set_frozen",
        "balance_at",
        "lock_balances",
        "window_begin",
    }
    assert granted == bank_functions | {"post_batch", "sums_at", "version_before", "close", "prune_counters"}
    count = f"SELECT ledger.count_up({bank['user']}, '{{send}}', '{{1}}', '{{}}', '{{}}', '{{}}', now())"
    assert await refused(shared_ledger_db.app_dsn, count) == "42501"
    create = "CREATE FUNCTION ledger.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    assert await refused(shared_ledger_db.app_dsn, create) == "42501"


async def test_functions_with_the_owners_rights_name_their_search_path(bank: Bank) -> None:
    query = """SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
                WHERE nspname = 'ledger' AND prosecdef AND NOT 'search_path=pg_catalog, pg_temp' = ANY (proconfig)"""
    assert await bank.pool.fetch(query) == []


async def test_a_table_of_the_callers_own_does_not_stand_in_for_the_ledgers(
    bank: Bank, shared_ledger_db: Database
) -> None:
    conn = await asyncpg.connect(shared_ledger_db.app_dsn)
    try:
        await conn.execute("CREATE TEMP TABLE accounts AS SELECT * FROM ledger.accounts WHERE false")
        await conn.execute("SET search_path = pg_temp, ledger, public")
        opened = await conn.fetchval("SELECT ledger.open_account('liab:user:temp', 'liability', 'BTC', 0, 'locked')")
        assert await conn.fetchval("SELECT true FROM ledger.accounts WHERE id = $1", opened)
    finally:
        await conn.close()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("who", ["owner", "superuser"])
async def test_even_the_owner_cannot_change_or_remove_what_is_booked(
    bank: Bank, shared_ledger_db: Database, who: str, table: str
) -> None:
    dsn = shared_ledger_db.owner_dsn if who == "owner" else shared_ledger_db.superuser_dsn
    column = {"accounts": "code", "transfers": "actor", "resolutions": "target_id"}.get(table, "account_id")
    for statement in (
        f"DELETE FROM ledger.{table}",
        f"TRUNCATE ledger.{table} CASCADE",
        f"UPDATE ledger.{table} SET {column} = {column}",
        f"INSERT INTO ledger.{table} ({column}) SELECT {column} FROM ledger.{table} WHERE false",
    ):
        assert await refused(dsn, statement) == "LD405", statement
    for statement in (f"DELETE FROM ledger.{table}", f"TRUNCATE ledger.{table} CASCADE"):
        assert await refused(dsn, POSE, statement) == "LD405", statement


@pytest.mark.parametrize("table", ["accounts", "transfers", "entries", "resolutions"])
async def test_posing_as_the_ledger_does_not_make_history_changeable(
    bank: Bank, shared_ledger_db: Database, table: str
) -> None:
    column = {"accounts": "code", "transfers": "actor", "resolutions": "target_id"}.get(table, "account_id")
    assert await refused(shared_ledger_db.owner_dsn, POSE, f"UPDATE ledger.{table} SET {column} = {column}") == "LD405"


async def test_a_call_of_the_ledger_leaves_no_door_open_in_its_transaction(
    bank: Bank, shared_ledger_db: Database
) -> None:
    update = "UPDATE ledger.balances SET settled = 0"
    opening = "SELECT ledger.open_account('liab:user:door', 'liability', 'BTC', 0, 'locked')"
    old_hash = "(SELECT payload_hash FROM ledger.transfers WHERE external_ref = 'old:hold')"
    old_legs = f"ARRAY[{bank['user']}, {bank['outbox']}], ARRAY[100, -100]::bigint[]"
    posting = f"SELECT ledger.post('old:hold', {old_hash}, 'test', 'hold', '{{}}', {old_legs}, 'x')"
    for call in (opening, posting, f"SELECT ledger.set_frozen({bank['user']}, false)"):
        assert await refused(shared_ledger_db.owner_dsn, call, update) == "LD405"


async def test_unbalanced_legs_are_refused_per_layer_and_currency(bank: Bank, shared_ledger_db: Database) -> None:
    new = TRANSFER.format(ref="bad", phase="post")
    crooked = {
        "by one": legs("bad", ("asset:hot", 0, 100), ("liab:outbox", 0, -99)),
        "across layers": legs("bad", ("asset:hot", 0, 100), ("liab:outbox", 1, -100)),
        "one leg": legs("bad", ("asset:hot", 0, 100)),
    }
    for name, statement in crooked.items():
        assert await refused(shared_ledger_db.owner_dsn, POSE, new, statement) == "LD001", name
    one_by_one = [legs("bad", ("asset:hot", 0, 100)), legs("bad", ("liab:outbox", 0, -100))]
    assert await refused(shared_ledger_db.owner_dsn, POSE, new, *one_by_one) == "LD001"


async def test_a_leg_is_in_the_currency_of_its_account(bank: Bank, shared_ledger_db: Database) -> None:
    new = TRANSFER.format(ref="bad", phase="post")
    statement = legs("bad", ("asset:hot", 0, 100), ("liab:outbox", 0, -100), currency="USD")
    assert await refused(shared_ledger_db.owner_dsn, POSE, new, statement) == "23503"


async def test_a_transfer_has_legs_when_it_is_committed(bank: Bank, shared_ledger_db: Database) -> None:
    assert await refused(shared_ledger_db.owner_dsn, POSE, TRANSFER.format(ref="empty", phase="post")) == "LD001"


async def test_legs_cannot_be_added_later(bank: Bank, shared_ledger_db: Database) -> None:
    more = legs("old:hold", ("asset:hot", 0, 5), ("equity:capital", 0, -5))
    assert await refused(shared_ledger_db.owner_dsn, POSE, more) == "LD001"
    pair = ("asset:hot", 0, 5), ("equity:capital", 0, -5)
    other = ("exp:loss", 0, 5), ("exp:ln-routing", 0, -5)
    same = [TRANSFER.format(ref="twice", phase="post"), legs("twice", *pair), legs("twice", *other)]
    assert await refused(shared_ledger_db.owner_dsn, POSE, *same) == "LD001"


async def test_a_floor_holds_without_the_posting_function(bank: Bank, shared_ledger_db: Database) -> None:
    lower = f"UPDATE ledger.balances SET settled = settled + 901 WHERE account_id = {bank['user']}"
    assert await refused(shared_ledger_db.owner_dsn, POSE, lower) == "23514"
    hold = f"UPDATE ledger.balances SET held_dr = held_dr + 901 WHERE account_id = {bank['user']}"
    assert await refused(shared_ledger_db.owner_dsn, POSE, hold) == "23514"


async def test_a_hold_is_resolved_once_without_the_posting_function(bank: Bank, shared_ledger_db: Database) -> None:
    user = await bank.user(funds=10)
    await bank.post("twice:hold", [debit(user, 5), credit(bank["outbox"], 5)], "hold")
    await bank.post("twice:void", phase="void", relates_to=["twice:hold"])
    again = """INSERT INTO ledger.resolutions SELECT h.id, t.id FROM ledger.transfers h, ledger.transfers t
                WHERE h.external_ref = 'twice:hold' AND t.external_ref = 'old:hold'"""
    assert await refused(shared_ledger_db.owner_dsn, POSE, again) == "23505"


@pytest.mark.parametrize(
    ("phase", "related", "accounts", "amounts"),
    [
        ("post", "{}", "{1,6}", "{5}"),
        ("post", "{}", "{}", "{}"),
        ("post", "{}", "{1}", "{0}"),
        ("post", "{}", "{1,1}", "{5,-5}"),
        ("post", "{}", "{1,NULL}", "{5,-5}"),
        ("post", "{}", "{1,6}", "{5,NULL}"),
        ("post", "{}", "{1,6}", "{5,-4}"),
        ("post", None, "{1,6}", "{5,-5}"),
        ("post", "{}", None, None),
        ("post", "{old:hold}", "{1,6}", "{5,-5}"),
        ("settle", "{}", "{1,6}", "{5,-5}"),
        ("settle", "{old:hold}", "{}", "{}"),
        ("void", "{old:hold}", "{1,6}", "{5,-5}"),
        ("void", "{}", "{}", "{}"),
        ("reverse", "{old:hold,x}", "{1,6}", "{5,-5}"),
        ("steal", "{}", "{1,6}", "{5,-5}"),
        (None, "{}", "{1,6}", "{5,-5}"),
    ],
)
async def test_the_posting_function_itself_refuses_what_python_would_never_send(
    bank: Bank, shared_ledger_db: Database, phase: str | None, related: str | None, accounts: str, amounts: str
) -> None:
    words = [f"'{word}'" if word is not None else "NULL" for word in (phase, related, accounts, amounts)]
    call = f"SELECT ledger.post('malformed', sha256(''), 't', {', '.join(words)}, 'test')"
    assert await refused(shared_ledger_db.app_dsn, call) == "LD001"


@pytest.mark.parametrize(
    ("account", "kinds", "amounts"),
    [
        ("3", "{send}", "{1}"),  # no leg there
        ("1", "{send,send}", "{1,1}"),
        ("1", "{}", "{}"),
        ("1", "{send}", "{0}"),
        ("1", "{send}", "{1,2}"),
        ("1", "{NULL}", "{1}"),
        ("1", None, "{1}"),
        ("5", "{send}", "{1}"),  # an account without a balance row
    ],
)
async def test_the_posting_function_refuses_to_count_what_makes_no_sense(
    bank: Bank, shared_ledger_db: Database, account: str, kinds: str | None, amounts: str
) -> None:
    words = ["NULL" if kinds is None else f"'{kinds}'", f"'{amounts}'"]
    call = (
        "SELECT ledger.post('malformed', sha256(''), 't', 'post', '{}', '{1,5}', '{5,-5}', 'test', "
        f"p_counts_account => {account}, p_count_kinds => {words[0]}, p_count_amounts => {words[1]})"
    )
    assert await refused(shared_ledger_db.app_dsn, call) in {"LD001", "23514"}
