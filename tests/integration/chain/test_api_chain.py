"""The chain as operators see it over HTTP: its state, a search, a rescan, the rules and the list of all deposits."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.api import Api, Json, User, is_problem, running_api
from tests.helpers.ledger.deposit import Depositor

pytestmark = pytest.mark.integration

CHAIN = "/v1/admin/chain"
RULES = "/v1/admin/deposits/rules"
ADDRESS = "bcrt1qoperators0000000000000000"
REPORT = {
    "height": 103,
    "headers": 104,
    "hash": "c" * 64,
    "network": "regtest",
    "version": 290400,
    "subversion": "/Satoshi:29.4.0/",
    "pruned_below": None,
    "policy": {"min_relay_sat_per_kvb": 1000},
    "warnings": "",
    "address_pool": 1000,
}


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        yield api


@pytest_asyncio.fixture
async def depositor(api: Api) -> Depositor:
    return Depositor(api.resources.pool)


@pytest_asyncio.fixture
async def carol(api: Api) -> User:
    return await api.open_account(scopes=("finance",))


async def get(user: User, path: str, **query: Any) -> Json:
    answer = await user.get(path, **query)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def write_report(api: Api, problem: str | None = None, **changed: Any) -> None:
    """As the pump does it."""
    async with api.resources.pool.acquire() as conn:
        await conn.execute("UPDATE bank.chains SET report = $1, problem = $2", {**REPORT, **changed}, problem)


async def give(api: Api, user: User | None, address: str, index: int, *, paid: bool = False) -> None:
    """An address of the pool, or of this user."""
    await api.database.execute(
        """INSERT INTO bank.addresses(address, hd_index, made_height, wallet_id, account_id, purpose, given_at, paid)
           VALUES ($1, $2, 90, $3::text, $4, CASE WHEN $3::text IS NOT NULL THEN 'api' END,
                   CASE WHEN $3::text IS NOT NULL THEN clock_timestamp() END, $5)""",
        address,
        index,
        user.wallet_id if user else None,
        user.id if user else None,
        paid,
    )


async def test_a_bank_without_a_hot_wallet_shows_none(carol: User) -> None:
    found = await get(carol, CHAIN)
    assert (found["wallets"], found["books_sat"], found["incoming_sat"]) == ([], 0, 0)
    assert found["pool"] == {"ready": 0, "given": 0, "unpaid": 0, "target": None}
    assert (found["deposits"], found["receivables"]) == ([], {"count": 0, "amount_msat": 0})
    is_problem(await carol.post(f"{CHAIN}/rescan", {"height": 0, "reason": "lost"}), 404, "not_found")


async def test_the_state_of_the_chain_and_of_deposits(api: Api, depositor: Depositor, carol: User) -> None:
    alice = await api.open_account()
    await depositor.reach(99)
    await depositor.see(alice, 7_000)
    await depositor.book(await depositor.see(alice, 50_000), 100)
    await depositor.book(await depositor.see(None, 3_000), 100)
    await give(api, None, f"{ADDRESS}1", 1)
    await give(api, alice, f"{ADDRESS}2", 2)
    await give(api, alice, f"{ADDRESS}3", 3, paid=True)
    await write_report(api)
    found = await get(carol, CHAIN)
    assert (found["books_sat"], found["incoming_sat"]) == (53_000, 7_000)
    assert found["pool"] == {"ready": 1, "given": 2, "unpaid": 1, "target": 1000}
    assert found["deposits"] == [
        {"status": "credited", "count": 1, "amount_sat": 50_000},
        {"status": "pending", "count": 1, "amount_sat": 7_000},
        {"status": "unattributed", "count": 1, "amount_sat": 3_000},
    ]
    (wallet,) = found["wallets"]
    assert (wallet["wallet"], wallet["tip"]["height"], wallet["lag_blocks"]) == ("hot", 102, 2)
    assert (wallet["problem"], wallet["rescan_from"], wallet["pump_epoch"]) == (None, None, 0)
    bitcoind = wallet["bitcoind"]
    assert {name: bitcoind[name] for name in ("height", "headers", "network", "version")} == {
        "height": 103,
        "headers": 104,
        "network": "regtest",
        "version": 290400,
    }
    assert bitcoind["policy"] == {"min_relay_sat_per_kvb": 1000}


@pytest.mark.parametrize("reason", ["unreachable", "other_network", "something_new"])
async def test_a_problem_comes_with_its_remedy(api: Api, depositor: Depositor, carol: User, reason: str) -> None:
    await depositor.reach(99)
    await write_report(api, reason, warnings=None)
    problem = (await get(carol, CHAIN))["wallets"][0]["problem"]
    assert problem["reason"] == reason
    assert problem["detail"].endswith(".")
    assert problem["remedy"].endswith(".")


async def test_a_deposit_is_found_by_everything_that_names_it(api: Api, depositor: Depositor, carol: User) -> None:
    alice = await api.open_account()
    await give(api, alice, ADDRESS, 1, paid=True)
    await depositor.reach(99)
    deposit = await depositor.see(alice, 50_000, address=ADDRESS)
    await depositor.see(alice, 60_000, address="bcrt1qanother")
    (shown,) = (await get(carol, f"{CHAIN}/search", q=deposit))["deposits"]
    txid, vout, old = shown["txid"], shown["vout"], "d" * 64
    await api.database.execute("INSERT INTO bank.deposit_outpoints VALUES ($1, 4, $2, 40000)", old, deposit)
    await api.database.execute(
        "INSERT INTO bank.coins(txid, vout, amount_sat, address) VALUES ($1, $2, 50000, $3)", txid, vout, ADDRESS
    )
    await api.database.execute("INSERT INTO bank.coin_origins VALUES ($1, $2, $3)", txid, vout, alice.id)
    for text in (txid, txid.upper(), f"{txid}:{vout}", f" {deposit} ", ADDRESS, ADDRESS.upper(), old, f"{old}:4"):
        found = await get(carol, f"{CHAIN}/search", q=text)
        assert [each["id"] for each in found["deposits"]] == [deposit], text
        assert [each["txid"] for each in found["earlier_outpoints"]] == [old]
        assert [(each["address"], each["account_id"]) for each in found["addresses"]] == [(ADDRESS, alice.id)]
        assert [each["origins"] for each in found["coins"]] == [[alice.id]]
        assert (found["receivables"], found["decisions"], found["is_cut"]) == ([], [], False)
    assert (shown["account_id"], shown["workflow_id"], shown["sight"]) == (alice.id, shown["workflow_id"], "mempool")


async def test_a_search_for_nothing_finds_nothing_and_a_bad_one_is_refused(carol: User) -> None:
    for text in ("e" * 64, f"{'e' * 64}:999999999", "bcrt1qnobody", "dep_0000", "3P14159f73E4gFr7JterCCQh9QjiTjiZrG"):
        found = await get(carol, f"{CHAIN}/search", q=text)
        assert [name for name, rows in found.items() if rows] == [], text
    for text in (
        "",
        " ",
        "x",
        "a b c d e",
        "e" * 65 + ":1",
        f"{'e' * 64}:-1",
        f"{'e' * 64}:9999999999",
        "\0" * 9,
        "é" * 9,
    ):
        is_problem(await carol.get(f"{CHAIN}/search", q=text), 422, "invalid_request")
    is_problem(await carol.get(f"{CHAIN}/search", q="a" * 121), 422, "invalid_request")
    is_problem(await carol.get(f"{CHAIN}/search"), 422, "invalid_request")


async def test_a_search_has_a_bound(api: Api, depositor: Depositor, carol: User) -> None:
    await depositor.reach(99)
    alice = await api.open_account()
    await api.database.execute(
        """INSERT INTO bank.deposits(id, txid, vout, address, wallet_id, account_id, amount_sat, sight, required, deep,
                                     workflow_id)
           SELECT 'dep_' || n, encode(sha256(n::text::bytea), 'hex'), 0, $1, $2, $3, 1, 'mempool', 1, 6, 'w'
             FROM generate_series(1, 130) n""",
        ADDRESS,
        alice.wallet_id,
        alice.id,
    )
    found = await get(carol, f"{CHAIN}/search", q=ADDRESS)
    assert (len(found["deposits"]), found["is_cut"]) == (100, True)


async def test_a_rescan_is_asked_for_once(api: Api, depositor: Depositor, carol: User) -> None:
    await depositor.reach(99)
    for height, expected in ((50, 50), (50, 50), (60, 50), (40, 40)):
        answer = await carol.post(f"{CHAIN}/rescan", {"height": height, "reason": "the wallet was restored"})
        assert answer.status_code == 202, answer.text
        assert answer.json() == {"wallet": "hot", "rescan_from": expected, "tip_height": 99}
    assert (await get(carol, CHAIN))["wallets"][0]["rescan_from"] == 40
    lines = (await get(carol, "/v1/admin/audit", action="chain.rescan"))["items"]
    assert [line["detail"] for line in lines] == [
        {"height": height, "reason": "the wallet was restored"} for height in (40, 50)
    ]
    for body in ({"height": 100}, {"height": -1}, {"height": 2**31}, {"height": True}, {"wallet": "HOT"}):
        refused = await carol.post(f"{CHAIN}/rescan", {"height": 1, "reason": "x", **body})
        is_problem(refused, 422, "invalid_request")
    is_problem(await carol.post(f"{CHAIN}/rescan", {"height": 1, "reason": "x", "wallet": "cold"}), 404, "not_found")


async def test_the_rules_of_deposits_have_versions(carol: User) -> None:
    first = await get(carol, RULES)
    assert (first["version"], first["set_by"]) == (1, "migration")
    content = {"confirmations": [{"confirmations": 2}], "minimum_sat": 5_000, "deep": 12, "unpaid_addresses": 20}
    body = {"content": content, "note": "as decided", "version": 2}
    for _ in range(2):
        answer = await carol.http.put(RULES, json=body, headers=carol.headers)
        assert (answer.status_code, answer.json()["version"], answer.json()["content"]) == (200, 2, content)
    other = await carol.http.put(RULES, json={**body, "note": "otherwise"}, headers=carol.headers)
    is_problem(other, 409, "version_conflict")
    wrongs: list[Json] = [
        {},
        {"confirmations": []},
        {"confirmations": [{"confirmations": 0}]},
        {"confirmations": [{"up_to_sat": 5, "confirmations": 3}, {"confirmations": 1}]},
        {"confirmations": [{"confirmations": 1}], "deep": 0},
        {"confirmations": [{"confirmations": 1}], "depth": 6},
    ]
    for wrong in wrongs:
        answer = await carol.http.put(RULES, json={"content": wrong, "note": "x", "version": 3}, headers=carol.headers)
        is_problem(answer, 422, "invalid_request")
    assert (await get(carol, RULES))["version"] == 2
    assert [line["action"] for line in (await get(carol, "/v1/admin/audit", action="deposits.set"))["items"]] == [
        "deposits.set"
    ]


async def test_all_deposits_are_listed_also_those_of_nobody(api: Api, depositor: Depositor, carol: User) -> None:
    alice = await api.open_account()
    await depositor.reach(99)
    mine, nobodys = await depositor.see(alice, 50_000), await depositor.see(None, 3_000)
    await depositor.book(nobodys, 100)
    path = "/v1/admin/deposits"
    assert [each["id"] for each in (await get(carol, path))["items"]] == [nobodys, mine]
    waiting = (await get(carol, path, status="unattributed"))["items"]
    assert [(each["id"], each["account_id"], each["place"]) for each in waiting] == [(nobodys, None, "suspense")]
    is_problem(await carol.get(path, status="lost"), 422, "invalid_request")


async def test_users_and_roles_without_the_power_see_nothing(api: Api, depositor: Depositor) -> None:
    await depositor.reach(99)
    alice = await api.open_account(scopes=("read", "receive", "send"))
    support = await api.open_account(scopes=("support",))
    for path in (CHAIN, f"{CHAIN}/search", "/v1/admin/deposits", RULES, "/v1/admin/deposit-decisions"):
        is_problem(await alice.get(path), 403, "forbidden")
    await get(support, CHAIN)
    await get(support, f"{CHAIN}/search", q=ADDRESS)
    await get(support, "/v1/admin/deposits")
    for path in (RULES, "/v1/admin/deposit-decisions"):
        is_problem(await support.get(path), 403, "forbidden")
    is_problem(await support.post(f"{CHAIN}/rescan", {"height": 1, "reason": "x"}), 403, "forbidden")
