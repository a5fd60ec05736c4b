"""What an operator may do to himself, and what ends when he is locked or his key is revoked.

Mallory is an administrator who is found out. Whatever he has prepared (other keys, keys of other accounts, keys made by
those) stops with him.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from engine.bank.account.api_key import are_of_one_person
from engine.domain.ids import ApiKeyId
from engine.ledger.database import borrowed
from tests.fixtures.postgres import Database, database_at, migrate
from tests.helpers.api import ADMIN, Api, User, bearer, is_problem, running_api

pytestmark = pytest.mark.integration

Headers = dict[str, str]


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as running:
        yield running


@dataclass
class Key:
    """An API key, as whoever made it has it."""

    id: str
    account: str
    headers: Headers


async def make(api: Api, by: Headers, account: User, *scopes: str, **body: Any) -> Key:
    answer = await try_to_make(api, by, account, *scopes, **body)
    assert answer.status_code == 201, answer.text
    return Key(answer.json()["id"], account.id, bearer(answer.json()["key"]))


async def try_to_make(api: Api, by: Headers, account: User, *scopes: str, **body: Any) -> httpx.Response:
    sent = {"name": "test", "scopes": list(scopes), **body}
    return await api.http.post(f"/v1/accounts/{account.id}/api-keys", json=sent, headers=by)


async def change(api: Api, by: Headers, account: User, **body: Any) -> httpx.Response:
    return await api.http.patch(f"/v1/admin/accounts/{account.id}", json=body, headers=by)


async def revoke(api: Api, by: Headers, key: Key, **query: Any) -> httpx.Response:
    return await api.http.delete(f"/v1/accounts/{key.account}/api-keys/{key.id}", headers=by, params=query)


async def opens(api: Api, key: Key) -> bool:
    answer = await api.http.get("/v1/account", headers=key.headers)
    assert answer.status_code in {200, 401, 403}
    return answer.status_code != 401


ACTS = [
    ("PATCH", "/v1/admin/accounts/{own}", {"status": "active"}),
    ("PATCH", "/v1/admin/accounts/{other}", {"status": "locked"}),
    ("PATCH", "/v1/admin/accounts/{other}", {"level": 3}),
    ("POST", "/v1/accounts", {}),
    ("POST", "/v1/accounts/{own}/api-keys", {"name": "x", "scopes": ["admin"]}),
    ("POST", "/v1/accounts/{own}/api-keys", {"name": "x", "scopes": ["finance"]}),
    ("POST", "/v1/accounts/{other}/api-keys", {"name": "x", "scopes": ["send"]}),
    ("POST", "/v1/admin/corrections/corr_x/approve", {}),
    ("POST", "/v1/admin/decisions/dec_x/approve", {}),
    ("POST", "/v1/admin/reconciliation", {}),
    ("PUT", "/v1/admin/fees", {"version": 2, "note": "x", "content": {}}),
    ("GET", "/v1/admin/accounts", None),
    ("GET", "/v1/admin/audit", None),
    ("GET", "/v1/admin/ledger/trial-balance", None),
    ("GET", "/v1/accounts/{other}/api-keys", None),
]


@pytest.mark.parametrize("status", ["locked", "closed"])
async def test_a_locked_or_closed_operator_may_nothing_that_a_role_gives(api: Api, status: str) -> None:
    mallory, other = await api.open_account(), await api.open_account()
    key = await make(api, ADMIN, mallory, "read", "receive", "send", "support", "treasury", "finance", "admin")
    assert (await change(api, ADMIN, mallory, status=status)).status_code == 200
    for method, path, body in ACTS:
        url = path.format(own=mallory.id, other=other.id)
        answer = await api.http.request(method, url, json=body, headers={**key.headers, "Idempotency-Key": "k"})
        assert answer.status_code in {403, 404}, (method, path, answer.text)
    own = await api.http.get("/v1/account", headers=key.headers)
    assert (own.status_code, own.json()["status"]) == (200, status)
    if status == "locked":
        assert (await change(api, ADMIN, mallory, status="active")).status_code == 200
        assert (await change(api, key.headers, other, level=3)).status_code == 200


async def test_keys_that_come_from_a_locked_operator_have_no_roles_wherever_they_are(api: Api) -> None:
    mallory, puppet, user = [await api.open_account() for _ in range(3)]
    key = await make(api, ADMIN, mallory, "admin")
    second = await make(api, key.headers, puppet, "admin")
    third = await make(api, second.headers, puppet, "support", "read")
    of_user = await make(api, second.headers, user, "read", "receive", "send")
    assert (await change(api, ADMIN, mallory, status="locked")).status_code == 200
    for each in (key, second, third):
        is_problem(await change(api, each.headers, mallory, status="active"), 403, "forbidden")
        is_problem(await change(api, each.headers, user, status="locked"), 403, "forbidden")
    assert (await api.http.get("/v1/account", headers=of_user.headers)).status_code == 200
    assert (await api.http.get("/v1/account", headers=third.headers)).status_code == 200


async def test_nobody_changes_his_own_account_by_whichever_key(api: Api) -> None:
    mallory, puppet = await api.open_account(), await api.open_account()
    key = await make(api, ADMIN, mallory, "admin")
    other_key = await make(api, ADMIN, mallory, "support")
    of_puppet = await make(api, key.headers, puppet, "admin")
    grandchild = await make(api, of_puppet.headers, puppet, "support")
    for headers in (key.headers, of_puppet.headers):
        for body in ({"level": 9}, {"status": "closed"}, {"status": "locked", "level": 2}):
            is_problem(await change(api, headers, mallory, **body), 403, "own_account")
    for headers in (other_key.headers, grandchild.headers):
        for status in ("locked", "active"):
            is_problem(await change(api, headers, mallory, status=status), 403, "own_account")
    is_problem(await change(api, of_puppet.headers, puppet, level=9), 403, "own_account")
    assert (await change(api, key.headers, puppet, level=9)).status_code == 200
    assert (await change(api, ADMIN, mallory, level=9)).status_code == 200


async def test_revoking_a_key_takes_all_that_come_from_it(api: Api) -> None:
    mallory, puppet, user = [await api.open_account() for _ in range(3)]
    root = await make(api, ADMIN, mallory, "admin", "read")
    child = await make(api, root.headers, puppet, "admin", "read")
    grandchild = await make(api, child.headers, user, "read", "send")
    great = await make(api, grandchild.headers, user, "read")
    sibling = await make(api, ADMIN, mallory, "read")
    assert (await api.http.get(f"/v1/accounts/{user.id}/api-keys", headers=ADMIN)).json()["items"][0][
        "made_by"
    ] == grandchild.id
    assert (await revoke(api, ADMIN, root)).status_code == 200
    assert [await opens(api, key) for key in (root, child, grandchild, great)] == [False] * 4
    assert await opens(api, sibling)
    assert (await user.get("/v1/account")).status_code == 200
    (line,) = (await api.http.get("/v1/admin/audit?action=key.revoke", headers=ADMIN)).json()["items"]
    assert line["detail"] == {
        "taken": {child.id: puppet.id, grandchild.id: user.id, great.id: user.id},
        "count": 3,
        "kept": False,
    }
    assert (await revoke(api, ADMIN, root)).status_code == 200
    assert len((await api.http.get("/v1/admin/audit?action=key.revoke", headers=ADMIN)).json()["items"]) == 1


async def test_a_users_key_takes_its_own_with_it(api: Api) -> None:
    user = await api.open_account()
    first = await make(api, user.headers, user, "read", "send")
    second = await make(api, first.headers, user, "send")
    assert (await revoke(api, user.headers, first)).status_code == 200
    assert not await opens(api, second)
    link = {"wallet_id": user.wallet_id, "amount_msat": 1_000}
    is_problem(await api.http.post("/v1/withdraw-links", json=link, headers=second.headers), 401, "unauthenticated")


async def test_an_administrator_may_change_his_key_and_keep_what_it_made(api: Api) -> None:
    backend, user = await api.open_account(), await api.open_account()
    old = await make(api, ADMIN, backend, "admin")
    of_user = await make(api, old.headers, user, "read")
    is_problem(await revoke(api, user.headers, of_user, keep_made="true"), 403, "forbidden")
    assert (await revoke(api, ADMIN, old, keep_made="true")).status_code == 200
    assert await opens(api, of_user)
    assert not await opens(api, old)
    assert (await revoke(api, ADMIN, old)).status_code == 200, "and think better of it"
    assert not await opens(api, of_user)


async def test_a_key_that_is_revoked_while_it_makes_keys_leaves_none(api: Api) -> None:
    for _ in range(8):
        mallory = await api.open_account()
        key = await make(api, ADMIN, mallory, "admin", "read")
        making = [asyncio.create_task(try_to_make(api, key.headers, mallory, "admin", "read")) for _ in range(6)]
        chain = asyncio.create_task(make_a_chain(api, key, mallory))
        await asyncio.sleep(0)
        revoking = await revoke(api, ADMIN, key)
        assert revoking.status_code == 200
        answers = await asyncio.gather(*making)
        made = [bearer(answer.json()["key"]) for answer in answers if answer.status_code == 201]
        assert {answer.status_code for answer in answers} <= {201, 401}
        for headers in [*made, *(each.headers for each in await chain)]:
            is_problem(await api.http.get("/v1/account", headers=headers), 401, "unauthenticated")


async def make_a_chain(api: Api, key: Key, account: User) -> list[Key]:
    """Each key makes the next, until one is refused."""
    made = [key]
    while len(made) < 10:
        answer = await try_to_make(api, made[-1].headers, account, "admin", "read")
        if answer.status_code != 201:
            return made
        made.append(Key(answer.json()["id"], account.id, bearer(answer.json()["key"])))
    return made


async def test_a_key_is_not_made_by_one_that_was_revoked_since_it_was_asked(api: Api, ledger_db: Database) -> None:
    """The request has been let in, and waits for the row of its key, which is revoked before."""
    user = await api.open_account()
    key = await make(api, ADMIN, user, "admin", "read")
    holder = await asyncpg.connect(ledger_db.owner_dsn)
    async with holder.transaction():
        await holder.execute("UPDATE bank.api_keys SET revoked_at = clock_timestamp() WHERE id = $1", key.id)
        making = asyncio.create_task(try_to_make(api, key.headers, user, "admin"))
        changing = asyncio.create_task(change(api, key.headers, await api.open_account(), level=2))
        while (await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")) < 2:
            await asyncio.sleep(0.01)
    is_problem(await making, 401, "unauthenticated")
    is_problem(await changing, 401, "unauthenticated")
    await holder.close()


async def test_a_key_with_a_spend_limit_shuts_out_no_key_that_may_spend_more(api: Api) -> None:
    user = await api.open_account()
    whole = await make(api, ADMIN, user, "read", "send")
    pocket = await make(api, whole.headers, user, "read", "send", spend_limit_sat={"day": 1})
    reading = await make(api, pocket.headers, user, "read")
    assert (await revoke(api, pocket.headers, reading)).status_code == 200
    is_problem(await revoke(api, pocket.headers, whole), 403, "forbidden")
    assert await opens(api, whole)
    assert (await revoke(api, pocket.headers, pocket)).status_code == 200, "itself it may end"
    assert not await opens(api, pocket)


@pytest.mark.parametrize("word", ["approve", "reject"])
@pytest.mark.parametrize("thing", ["corrections/corr_x", "decisions/dec_x"])
async def test_no_word_counts_of_who_is_locked_while_he_sends_it(api: Api, thing: str, word: str) -> None:
    """His key was looked up before; a body may take half a minute."""
    mallory = await api.open_account()
    key = await make(api, ADMIN, mallory, "finance")

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"reason": "x"' if word == "reject" else b"{"
        assert (await change(api, ADMIN, mallory, status="locked")).status_code == 200
        yield b"}"

    answer = await api.http.post(f"/v1/admin/{thing}/{word}", content=slowly(), headers=key.headers)
    is_problem(answer, 403, "forbidden")


async def test_keys_make_keys_so_many_times_and_no_more(api: Api) -> None:
    user = await api.open_account()
    key = await make(api, ADMIN, user, "read")
    for _ in range(15):
        key = await make(api, key.headers, user, "read")
    is_problem(await try_to_make(api, key.headers, user, "read"), 403, "forbidden")


async def test_makers_of_older_keys_are_found_in_the_audit_trail(postgres_server: str, postgres_template: str) -> None:
    async with database_at(postgres_server, "0019") as database:
        conn = await asyncpg.connect(database.owner_dsn)
        await conn.execute("INSERT INTO bank.accounts (id) VALUES ('a')")
        for key in ("root", "child", "of_user", "by_bootstrap"):
            await conn.execute(
                """INSERT INTO bank.api_keys (id, account_id, name, scopes, secret_hash)
                   VALUES ($1, 'a', 'x', '{read}', sha256(''))""",
                key,
            )
        for maker, key in (("root", "child"), ("bootstrap", "by_bootstrap")):
            await conn.execute("SELECT bank.record_act('a', $1, 'key.make', 'a', $2, '{}')", maker, key)
        await asyncio.to_thread(migrate, database.owner_dsn)
        found = await conn.fetch("SELECT id, made_by FROM bank.api_keys")
        await conn.close()
        assert {row["id"]: row["made_by"] for row in found if row["made_by"]} == {"child": "root"}


async def test_keys_of_one_operator_are_one_person(api: Api) -> None:
    mallory, puppet, other, clerk = [await api.open_account() for _ in range(4)]
    root = await make(api, ADMIN, mallory, "admin")
    left, right = [await make(api, root.headers, account, "finance") for account in (puppet, other)]
    below = await make(api, left.headers, puppet, "finance")
    apart = await make(api, ADMIN, clerk, "finance")
    async with borrowed(api.resources.pool) as conn:
        for one, another in ((root, left), (left, root), (below, root), (left, right), (below, right), (left, left)):
            assert await are_of_one_person(conn, ApiKeyId(one.id), ApiKeyId(another.id))
        for each in (root, left, below):
            assert not await are_of_one_person(conn, ApiKeyId(each.id), ApiKeyId(apart.id))
            assert not await are_of_one_person(conn, ApiKeyId("bootstrap"), ApiKeyId(each.id))


async def test_a_proposal_is_not_approved_by_a_key_that_its_proposer_made(api: Api) -> None:
    mallory, puppet, other, clerk = [await api.open_account() for _ in range(4)]
    root = await make(api, ADMIN, mallory, "admin")
    left, right = [await make(api, root.headers, account, "finance") for account in (puppet, other)]
    apart = await make(api, ADMIN, clerk, "finance")
    for number, (proposer, refused) in enumerate(((root, [left]), (left, [root, right]))):
        corr, dec = f"corr_{number}", f"dec_{number}"
        await api.database.execute(
            """INSERT INTO bank.corrections (id, kind, debit, credit, amount_msat, reason, proposed_by, workflow_id,
                   expires_at)
               VALUES ($1, 'correction', 'suspense:in', 'income:ln-fee', 1, 'x', $2, 'w', 'infinity')""",
            corr,
            proposer.account,
        )
        await add_decision(api, dec, proposer.account)
        for subject, action in ((corr, "correction.propose"), (dec, "decision.propose")):
            await api.database.execute(
                "SELECT bank.record_act($1, $2, $3, NULL, $4, '{}')", proposer.account, proposer.id, action, subject
            )
        for path in (f"/v1/admin/corrections/{corr}/approve", f"/v1/admin/decisions/{dec}/approve"):
            for each in refused:
                is_problem(await api.http.post(path, json={}, headers=each.headers), 403, "own_proposal")
            answer = await api.http.post(path, json={}, headers=apart.headers)
            assert answer.status_code == 503, "it is told to the workflow, and Temporal is away"


async def add_decision(api: Api, decision: str, proposer: str) -> None:
    user = await api.open_account()
    await api.database.execute(
        "INSERT INTO bank.nodes (name, pubkey) VALUES ('lnd-1', '02' || repeat('ab', 32)) ON CONFLICT DO NOTHING"
    )
    await api.database.execute(
        """INSERT INTO bank.payments (id, account_id, wallet_id, kind, status, destination, amount_msat, max_fee_msat,
               payment_hash, bolt11, node, attempt, workflow_id)
           VALUES ($1::text, $2, $3, 'lightning', 'pending', 'x', 1, 0, encode(sha256($1::text::bytea), 'hex'), 'x',
                   'lnd-1', 1, 'w')""",
        f"pay_{decision}",
        user.id,
        user.wallet_id,
    )
    await api.database.execute(
        """INSERT INTO bank.decisions (id, payment_id, payment_end, fee_msat, reason, proposed_by)
           VALUES ($1, $2, 'failed', 0, 'x', $3)""",
        decision,
        f"pay_{decision}",
        proposer,
    )
