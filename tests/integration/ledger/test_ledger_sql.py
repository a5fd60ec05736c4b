"""The current text of each SQL function and trigger stands in one file, and a migrated database has exactly that text.

Postgres itself compares them: a file that is applied to a migrated database touches its own function, changes nothing.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database

pytestmark = pytest.mark.integration

ENGINE = Path(__file__).parents[3] / "engine"
FUNCTIONS = """
SELECT n.nspname || '/' || p.proname AS name, pg_get_functiondef(p.oid) AS text,
       p.xmin = pg_current_xact_id()::xid AS touched
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('ledger', 'bank')"""
TRIGGERS = """
SELECT format('%s/trigger/%s.%s', n.nspname, c.relname, t.tgname) AS name, pg_get_triggerdef(t.oid) AS text
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT t.tgisinternal"""


def texts() -> dict[str, str]:
    """`ledger/post` is engine/ledger/sql/post.sql, `ledger/trigger/entries.balanced` a trigger on that table."""
    files = {path: path.relative_to(ENGINE) for path in ENGINE.rglob("*.sql")}
    assert all(inside.parts[1] == "sql" for inside in files.values())
    return {
        "/".join((inside.parts[0], *inside.parts[2:])).removesuffix(".sql"): path.read_text(encoding="utf-8")
        for path, inside in files.items()
    }


def functions(files: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if "/trigger/" not in name}


def triggers(files: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if "/trigger/" in name}


async def without_partner(conn: asyncpg.Connection, query: str, files: Mapping[str, str]) -> list[str]:
    there = [row["name"] for row in await conn.fetch(query)]
    twice = sorted({name for name in there if there.count(name) > 1})
    return [
        *(f"{name} has no file" for name in sorted(set(there) - set(files))),
        *(f"{name} is a file and not in the database" for name in sorted(set(files) - set(there))),
        *(f"{name} is in the database more than once" for name in twice),
    ]


async def other_functions(conn: asyncpg.Connection, files: Mapping[str, str]) -> list[str]:
    """One sentence for each file that is not the text of its function in this database."""
    before = {row["name"]: row["text"] for row in await conn.fetch(FUNCTIONS)}
    found = []
    for name, text in files.items():
        trial = conn.transaction()
        await trial.start()
        await conn.execute(text)
        rows = await conn.fetch(FUNCTIONS)
        if (touched := [row["name"] for row in rows if row["touched"]]) != [name]:
            found.append(f"{name} is the text of {touched}")
        found += [f"{row['name']} has another text" for row in rows if row["text"] != before.get(row["name"])]
        await trial.rollback()
    return found


async def other_triggers(conn: asyncpg.Connection, files: Mapping[str, str]) -> list[str]:
    before = {row["name"]: row["text"] for row in await conn.fetch(TRIGGERS)}
    found = []
    for name, text in files.items():
        schema, _, trigger = name.split("/")
        table, own = trigger.split(".")
        trial = conn.transaction()
        await trial.start()
        await conn.execute(f"DROP TRIGGER {own} ON {schema}.{table}")
        await conn.execute(text)
        if {row["name"]: row["text"] for row in await conn.fetch(TRIGGERS)} != before:
            found.append(f"{name} has another text")
        await trial.rollback()
    return found


@pytest_asyncio.fixture
async def owner(shared_ledger_db: Database) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(shared_ledger_db.owner_dsn)
    try:
        yield conn
    finally:
        await conn.close()


async def test_every_function_has_one_file_and_every_file_a_function(owner: asyncpg.Connection) -> None:
    assert await without_partner(owner, FUNCTIONS, functions(texts())) == []


async def test_every_trigger_has_one_file_and_every_file_a_trigger(owner: asyncpg.Connection) -> None:
    assert await without_partner(owner, TRIGGERS, triggers(texts())) == []


async def test_each_file_is_the_text_of_its_function(owner: asyncpg.Connection) -> None:
    assert await other_functions(owner, functions(texts())) == []


async def test_each_file_is_the_text_of_its_trigger(owner: asyncpg.Connection) -> None:
    assert await other_triggers(owner, triggers(texts())) == []


async def test_a_function_or_file_without_its_partner_is_seen(owner: asyncpg.Connection) -> None:
    trial = owner.transaction()
    await trial.start()
    await owner.execute("CREATE FUNCTION bank.take_turn(int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    await owner.execute("CREATE FUNCTION ledger.new() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    found = await without_partner(owner, FUNCTIONS, {**functions(texts()), "bank/old": ""})
    await trial.rollback()
    assert found == [
        "ledger/new has no file",
        "bank/old is a file and not in the database",
        "bank/take_turn is in the database more than once",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("the trail is append-only", "the trail is never changed"),
        ("SET search_path = pg_catalog, pg_temp ", ""),
        ("LANGUAGE plpgsql ", "LANGUAGE plpgsql SECURITY DEFINER "),
    ],
    ids=["body", "setting", "rights"],
)
async def test_another_text_of_a_function_is_seen(owner: asyncpg.Connection, old: str, new: str) -> None:
    text = texts()["bank/refuse_changes"]
    assert old in text
    changed = text.replace(old, new)
    assert await other_functions(owner, {"bank/refuse_changes": changed}) == ["bank/refuse_changes has another text"]


async def test_a_file_with_the_text_of_another_function_is_seen(owner: asyncpg.Connection) -> None:
    text = texts()["bank/refuse_changes"]
    assert await other_functions(owner, {"bank/keep_answers": text}) == [
        "bank/keep_answers is the text of ['bank/refuse_changes']"
    ]
    assert await other_functions(owner, {"bank/keep_answers": "SELECT 1"}) == ["bank/keep_answers is the text of []"]


async def test_another_text_of_a_trigger_is_seen(owner: asyncpg.Connection) -> None:
    text = texts()["bank/trigger/audit.append_only"].replace(" OR TRUNCATE", "")
    assert await other_triggers(owner, {"bank/trigger/audit.append_only": text}) == [
        "bank/trigger/audit.append_only has another text"
    ]
