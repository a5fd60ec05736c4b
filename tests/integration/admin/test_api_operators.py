"""Operators over HTTP: which role may ask for what, and the trail of what they did."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import asyncpg
import httpx
import pytest
import pytest_asyncio

from activities.reconciliation.reconciliation import Reconciliations
from api.service.role import Role
from engine.bank.audit import Act, record_in_tx
from engine.contracts.reconciliation import CaseResolution, ResolveCase, RunStart
from engine.domain.ids import CaseId, ReconciliationId, new_id
from engine.ledger.database import transaction
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, Json, User, is_problem, running_api

pytestmark = pytest.mark.integration

AUDIT = "/v1/admin/audit"
ROLES = get_args(Role)
OPERATORS = re.compile(r"^[A-Z]+ (/v1/admin/.*|/v1/accounts)$")
TOLD = re.compile(r"Role: `(\w+)`(?:, `(\w+)`)?(?: or `(\w+)`)?")


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as running:
        yield running


async def trail(api: Api, **query: object) -> list[Json]:
    answer = await api.http.get(AUDIT, params=query, headers=ADMIN)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


def roles_told(operation: Json) -> set[str]:
    """The roles that the description of an operation names; `admin` may all."""
    told = TOLD.search(operation["description"])
    return {role for role in told.groups() if role} | {"admin"} if told else set()


async def ask(api: Api, name: str, headers: dict[str, str]) -> httpx.Response:
    method, path = name.split(" ")
    path = re.sub(r"\{\w+\}", "x", path)
    body: Json | None = {} if method in {"POST", "PUT", "PATCH"} else None
    return await api.http.request(method, path, json=body, headers={**headers, "Idempotency-Key": "x"})


class Away:
    """Temporal, of which nothing is wanted here."""

    async def start_workflow(self, *_words: Any, **_named: Any) -> None:
        raise RuntimeError("away")


async def test_every_operation_of_operators_is_open_to_the_roles_that_it_names_and_to_no_other(api: Api) -> None:
    api.change(temporal=Away())
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    operations = {f"{m.upper()} {path}": each for path, methods in paths.items() for m, each in methods.items()}
    operators = {name: each for name, each in operations.items() if OPERATORS.match(name)}
    assert len(operators) > 15
    keys = {role: (await api.open_account((role,))).headers for role in ROLES}
    keys["read"] = (await api.open_account()).headers
    for name, operation in operators.items():
        told = roles_told(operation)
        assert told, f"{name} names no role"
        is_problem(await ask(api, name, {}), 401, "unauthenticated")
        for role, headers in keys.items():
            answer = await ask(api, name, headers)
            assert (answer.status_code == 403) == (role not in told), f"{name} for {role}: {answer.text}"


def test_an_operation_without_a_role_is_seen() -> None:
    assert roles_told({"description": "Gives everything."}) == set()
    assert roles_told({"description": "Role: `finance` or `support`. Gives it."}) == {"finance", "support", "admin"}


@pytest.mark.parametrize("role", ["support", "treasury", "finance"])
async def test_a_role_is_handed_on_by_who_has_it_and_by_administrators(api: Api, role: str) -> None:
    operator = await api.open_account((role,))
    path, others = f"/v1/accounts/{operator.id}/api-keys", [each for each in ROLES if each != role]
    assert (await operator.post(path, {"name": "mine", "scopes": [role]})).status_code == 201
    for other in others:
        is_problem(await operator.post(path, {"name": "more", "scopes": [other]}), 403, "forbidden")
    user = await api.open_account()
    path = f"/v1/accounts/{user.id}/api-keys"
    is_problem(await operator.post(path, {"name": "theirs", "scopes": [role]}), 404, "not_found")
    administrator = await api.open_account(("admin",))
    for other in ROLES:
        assert (await administrator.post(path, {"name": "given", "scopes": [other]})).status_code == 201


async def test_the_audit_tells_acts_of_operators_newest_first_and_none_of_users(api: Api) -> None:
    user = await api.open_account(username="alice")
    carol = await api.open_account(("admin",))
    path = f"/v1/accounts/{user.id}/api-keys"
    made = (await carol.post(path, {"name": "till", "scopes": ["read"]})).json()
    own = (await user.post(path, {"name": "own", "scopes": ["read"]})).json()
    for _ in range(2):
        assert (await api.http.delete(f"{path}/{made['id']}", headers=carol.headers)).status_code == 200
    assert (await api.http.delete(f"{path}/{own['id']}", headers=user.headers)).status_code == 200

    of_user = await trail(api, account=user.id)
    assert [(line["action"], line["operator"]) for line in of_user] == [
        ("key.revoke", carol.id),
        ("key.make", carol.id),
        ("key.make", "admin"),
        ("account.open", "admin"),
    ]
    revoked, made_line, _first, opened = of_user
    assert revoked["subject"] == made_line["subject"] == made["id"]
    assert made_line["detail"] == {"name": "till", "scopes": ["read"], "expires_at": None}
    assert opened["detail"] == {"username": "alice", "level": 0}
    assert (opened["key_id"], made_line["key_id"][:4]) == ("bootstrap", "key_")
    assert await trail(api, operator=carol.id) == of_user[:2]
    assert await trail(api, account=user.id, action="key.make", operator="admin") == [of_user[2]]
    capped = {"name": "pocket", "scopes": ["send"], "spend_limit_sat": {"day": 5}}
    assert (await api.http.post(path, json=capped, headers=carol.headers)).status_code == 201
    assert (await trail(api, account=user.id))[0]["detail"] == {**capped, "expires_at": None}


async def test_the_trail_is_read_in_pages_and_by_period(api: Api) -> None:
    for _ in range(3):
        await api.open_account()
    whole = await trail(api)
    assert [line["id"] for line in whole] == [6, 5, 4, 3, 2, 1]
    found: list[Json] = []
    after: Json = {}
    while True:
        answer = (await api.http.get(AUDIT, params={"limit": 4, **after}, headers=ADMIN)).json()
        found += answer["items"]
        if answer["next_cursor"] is None:
            break
        after = {"after": answer["next_cursor"]}
    assert found == whole
    middle = whole[3]["at"]
    assert await trail(api, to=middle) == whole[4:]
    assert await trail(api, **{"from": middle}) == whole[:4]
    refused: list[Json] = [{"after": "x"}, {"action": "x"}, {"limit": 0}, {"who": "x"}, {**after, "operator": "admin"}]
    refused.append({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"})
    for query in refused:
        is_problem(await api.http.get(AUDIT, params=query, headers=ADMIN), 422, "invalid_request")


async def test_a_refused_or_repeated_act_leaves_no_second_line(api: Api) -> None:
    headers = {**ADMIN, "Idempotency-Key": "open"}
    for _ in range(3):
        await api.http.post("/v1/accounts", json={"username": "bob"}, headers=headers)
    is_problem(await api.http.post("/v1/accounts", json={"username": "BOB"}, headers=ADMIN), 409, "username_taken")
    assert [line["action"] for line in await trail(api)] == ["account.open"]


async def test_an_export_is_told_before_its_first_line(api: Api) -> None:
    carol = await api.open_account(("finance",))
    query = {"format": "csv", "from": "2026-01-01T00:00:00Z"}
    assert (await carol.get("/v1/admin/ledger/export", **query)).status_code == 200
    (line,) = await trail(api, operator=carol.id)
    assert (line["action"], line["detail"]) == ("ledger.export", query)


async def test_a_run_and_a_word_on_a_case_are_told_once_with_what_they_did(api: Api) -> None:
    pool = api.resources.pool
    books = Reconciliations(pool)
    run, scheduled = ReconciliationId("rec_asked"), ReconciliationId("rec_scheduled")
    case = CaseId(new_id("case"))
    word = CaseResolution(operator="acct_carol", reason="paid by hand", key_id="key_carol")
    for _ in range(2):
        await books.begin_run(RunStart(run=run, workflow_id="w", asked_by="acct_carol", key_id="key_carol"))
        await books.begin_run(RunStart(run=scheduled, workflow_id="w"))
    await api.database.execute(
        """INSERT INTO bank.cases(id, kind, account, subject, amount_msat, detail, suspects, run, last_seen)
           VALUES ($1, 'difference', 'asset:x', 'x', 1, 'x', '[]', $2, $2)""",
        case,
        run,
    )
    assert [await books.resolve_case(ResolveCase(case=case, resolution=word)) for _ in range(2)] == [True, False]
    resolved, started = await trail(api, operator="acct_carol")
    assert (started["action"], started["subject"]) == ("reconciliation.start", run)
    assert (resolved["action"], resolved["subject"]) == ("case.resolve", case)
    assert (resolved["detail"], resolved["key_id"]) == ({"reason": "paid by hand"}, "key_carol")
    assert len(await trail(api)) == 2


async def test_no_secret_is_in_the_trail(api: Api) -> None:
    user: User = await api.open_account(("read", "admin"))
    keys = [await api.make_key(user.id, ("read",), name=f"key {number}") for number in range(5)]
    await user.get("/v1/admin/ledger/export")
    told = "\n".join(row[0] for row in await api.database.fetch("SELECT a::text FROM bank.audit a"))
    assert told.count("key.make") == 6
    for secret in [*keys, ADMIN["Authorization"].removeprefix("Bearer ")]:
        assert secret not in told
        assert secret.split("_", 2)[-1] not in told
    hashes = await api.database.fetch("SELECT encode(secret_hash, 'hex') AS hash FROM bank.api_keys")
    assert not any(row["hash"] in told for row in hashes)


async def test_twenty_acts_at_once_have_numbers_without_gaps_in_the_order_of_time(api: Api) -> None:
    async def act(number: int) -> None:
        """Every fourth is taken back: its number is not lost."""
        async with transaction(api.resources.pool) as conn:
            await record_in_tx(conn, Act(operator="carol", key_id="key", action="test.act", subject=str(number)))
            if number % 4 == 0:
                raise KeyError(number)

    done = await asyncio.gather(*(act(number) for number in range(27)), return_exceptions=True)
    assert sum(each is None for each in done) == 20
    lines = (await trail(api, action="test.act"))[::-1]
    assert [line["id"] for line in lines] == list(range(1, 21))
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE bank.audit SET operator = 'x'",
        "DELETE FROM bank.audit",
        "TRUNCATE bank.audit",
        "UPDATE bank.correction_updates SET note = 'x'",
        "DELETE FROM bank.correction_updates",
    ],
)
async def test_nobody_changes_the_trail_not_even_its_owner(api: Api, statement: str) -> None:
    await api.open_account()
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        await api.database.execute(statement)


PROPOSAL = """INSERT INTO bank.corrections(id, kind, debit, credit, amount_msat, reason, proposed_by, workflow_id,
                  expires_at, status, approved_by, decided_at)
              VALUES ($1, $2, $3, $4, 1, 'x', 'carol', 'w', now(), $5, $6, CASE $5 WHEN 'approved' THEN now() END)"""


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (("correction", "suspense:in", "income:ln-fee", "approved", "carol"), "two_operators"),
        (("correction", "suspense:in", "income:ln-fee", "approved", None), "check"),
        (("correction", "suspense:in", "income:ln-fee", "proposed", "dave"), "check"),
        (("correction", "suspense:in", "suspense:in", "proposed", None), "check"),
        (("correction", "suspense:in", "liab:outbox", "proposed", None), "check"),
        (("correction", "suspense:in", "equity:capital", "proposed", None), "check"),
        (("capital", "suspense:in", "income:ln-fee", "proposed", None), "check"),
        (("correction", "suspense:in", "income:none", "proposed", None), "foreign key"),
    ],
)
async def test_the_database_itself_wants_two_operators_and_two_accounts(
    api: Api, row: tuple[str, str, str, str, str | None], rule: str
) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=rule):
        await api.database.execute(PROPOSAL, secrets.token_hex(4), *row)
    await api.database.execute(PROPOSAL, "corr_good", "correction", "suspense:in", "income:ln-fee", "approved", "dave")


async def test_the_engine_cannot_change_what_was_proposed(api: Api) -> None:
    async with api.resources.pool.acquire() as conn:
        for column in ("debit = 'suspense:in'", "amount_msat = 2", "proposed_by = 'x'", "reason = 'x'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(f"UPDATE bank.corrections SET {column}")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"credit": "suspense:in"}, "credit"),
        ({"credit": "liab:outbox"}, "credit"),
        ({"debit": "liab:outbox"}, "debit"),
        ({"credit": "equity:capital"}, "credit"),
        ({"credit": "income:none"}, "credit"),
        ({"debit": "a b"}, "debit"),
        ({"kind": "gift"}, "kind"),
        ({"kind": "capital"}, "debit"),
        ({"kind": "capital", "debit": "equity:capital"}, "debit"),
        ({"amount_msat": 0}, "amount_msat"),
        ({"amount_msat": -1}, "amount_msat"),
        ({"amount_msat": 1.5}, "amount_msat"),
        ({"amount_msat": 2**53}, "amount_msat"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 1001}, "reason"),
        ({"case_id": "case_none"}, "case_id"),
        ({"reference": ""}, "reference"),
        ({"approved_by": "x"}, "approved_by"),
    ],
    ids=str,
)
async def test_absurd_proposals_are_refused_and_leave_the_key_unused(api: Api, body: Json, field: str) -> None:
    good = {"kind": "correction", "debit": "suspense:in", "credit": "income:ln-fee", "amount_msat": 1, "reason": "x"}
    path = "/v1/admin/corrections"
    headers = {**ADMIN, "Idempotency-Key": "k"}
    problem = is_problem(await api.http.post(path, json={**good, **body}, headers=headers), 422, "invalid_request")
    assert problem["field"] == field
    assert await api.database.fetchval("SELECT count(*) FROM bank.idempotency_keys") == 0
    is_problem(await api.http.post(path, json=good, headers=ADMIN), 400, "idempotency_key_required")


async def test_each_kind_wants_its_role(api: Api) -> None:
    body = {"kind": "correction", "debit": "suspense:in", "credit": "income:ln-fee", "amount_msat": 1, "reason": "x"}
    treasurer, clerk = await api.open_account(("treasury",)), await api.open_account(("finance",))
    path = "/v1/admin/corrections"
    is_problem(await treasurer.post(path, body, key="k"), 403, "forbidden")
    is_problem(await clerk.post(path, {**body, "kind": "capital"}, key="k"), 403, "forbidden")
