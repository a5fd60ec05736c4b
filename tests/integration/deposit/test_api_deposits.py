"""Deposits over HTTP: what their owner sees of them from the first sight on, and nobody else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.ledger.checks import find_broken_rules
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, Json, User, is_problem, running_api
from tests.helpers.ledger.deposit import Depositor
from tests.helpers.teller import Teller

pytestmark = pytest.mark.integration

FEE = [{"flat_msat": 500_000}]


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        yield api
        async with api.resources.reading() as conn:
            assert await find_broken_rules(conn) == []


@pytest_asyncio.fixture
async def depositor(api: Api) -> Depositor:
    return Depositor(api.resources.pool)


@pytest_asyncio.fixture
async def user(api: Api) -> User:
    return await api.open_account()


async def show(user: User, deposit_id: str) -> Json:
    answer = await user.get(f"/v1/deposits/{deposit_id}")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def find(user: User, **query: str) -> list[str]:
    answer = await user.get("/v1/deposits", **query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def wallet(user: User) -> tuple[int, int]:
    """(balance, incoming), in msat."""
    found = (await user.get(f"/v1/wallets/{user.wallet_id}")).json()
    return found["balance_msat"], found["incoming_msat"]


async def test_a_deposit_from_its_first_sight_to_its_second_credit(api: Api, depositor: Depositor, user: User) -> None:
    payee = await api.open_account()
    await depositor.reach(99)
    await depositor.charge(FEE)
    found = await depositor.see(user, 50_000, address="bcrt1qone")
    told = await show(user, found)
    assert told == told | {
        "wallet_id": user.wallet_id,
        "address": "bcrt1qone",
        "amount_sat": 50_000,
        "fee_sat": 500,
        "confirmations": 0,
        "confirmations_required": 3,
        "status": "pending",
        "block_height": None,
        "credited_at": None,
        "receivable_msat": None,
    }
    assert len(told["txid"]) == 64
    assert told["workflow_id"].startswith("deposit-")
    assert await wallet(user) == (0, 50_000_000)
    await depositor.book(found, 100)
    told = await show(user, found)
    assert (told["status"], told["confirmations"], told["block_height"], told["fee_sat"]) == ("credited", 3, 100, 500)
    assert told["credited_at"] > told["created_at"]
    assert await wallet(user) == (49_500_000, 0)
    await Teller(depositor.pool).pay_user(user, payee, 20_000_000)
    assert await depositor.take_back(found) == 20_000_000
    told = await show(user, found)
    assert (told["status"], told["confirmations"], told["block_height"]) == ("reversed", 0, None)
    assert told["receivable_msat"] == 20_000_000
    assert await wallet(user) == (0, 0)
    await depositor.charge([{"flat_msat": 700_000}])
    assert (await show(user, found))["fee_sat"] == 500
    await depositor.show_again(found)
    assert await wallet(user) == (0, 50_000_000)
    assert (await show(user, found))["status"] == "reversed"
    await depositor.book(found, 101)
    told = await show(user, found)
    assert (told["status"], told["confirmations"], told["receivable_msat"]) == ("credited", 3, None)
    assert told["fee_sat"] == 500
    assert await wallet(user) == (29_500_000, 0)
    assert await wallet(payee) == (20_000_000, 0)


async def test_the_fee_to_come_is_that_of_the_schedule_in_force_and_of_the_level(
    api: Api, depositor: Depositor, user: User
) -> None:
    await depositor.charge([{"exempt": {"levels": [2]}}, {"flat_msat": 1_500}, {"proportional_ppm": 10_000}])
    found = await depositor.see(user, 10_000)
    assert (await show(user, found))["fee_sat"] == 102
    (listed,) = (await user.get("/v1/deposits")).json()["items"]
    assert listed["fee_sat"] == 102
    tiny = await depositor.see(user, 1)
    assert (await show(user, tiny))["fee_sat"] == 1
    rich = await api.open_account(level=2)
    assert (await show(rich, await depositor.see(rich, 10_000)))["fee_sat"] == 0
    await depositor.charge([])
    await depositor.book(tiny, 5)
    assert [(await show(user, each))["fee_sat"] for each in (found, tiny)] == [0, 0]


async def test_each_status_is_shown_and_found(api: Api, depositor: Depositor, user: User) -> None:
    await depositor.reach(20)
    pending = await depositor.see(user, 1_000, address="bcrt1qone")
    credited = await depositor.see(user, 2_000, address="bcrt1qtwo")
    held = await depositor.see(user, 3_000, address="bcrt1qone", over_limit=True)
    small = await depositor.see(user, 4, below_minimum=True)
    dropped = await depositor.see(user, 5_000)
    reversed_one = await depositor.see(user, 6_000)
    await depositor.book(credited, 10)
    await depositor.book(held, 10)
    await depositor.book(small, 10)
    await depositor.drop(dropped)
    await depositor.book(reversed_one, 10)
    await depositor.take_back(reversed_one)
    expected = {
        "pending": pending,
        "credited": credited,
        "held": held,
        "below_minimum": small,
        "dropped": dropped,
        "reversed": reversed_one,
    }
    assert sorted(await find(user)) == sorted(expected.values())
    for status, deposit_id in expected.items():
        assert await find(user, status=status) == [deposit_id]
        assert (await show(user, deposit_id))["status"] == status
    assert await find(user, address="bcrt1qone") == [held, pending]
    assert await find(user, address="bcrt1qone", status="held", wallet_id=user.wallet_id) == [held]
    assert await find(user, wallet_id="wal_of_another") == []
    for query in ({"status": "unattributed"}, {"status": "x"}, {"address": ""}, {"unknown": "1"}, {"limit": 0}):
        is_problem(await user.get("/v1/deposits", **query), 422, "invalid_request")
    first = (await user.get("/v1/deposits", limit=1)).json()["next_cursor"]
    is_problem(await user.get("/v1/deposits", after=first, status="held"), 422, "invalid_request")


async def test_a_deposit_is_shown_to_its_owner_alone(api: Api, depositor: Depositor, user: User) -> None:
    other = await api.open_account()
    found = await depositor.see(user, 1_000)
    nobodys = await depositor.see(None, 1_000)
    await depositor.book(nobodys, 10)
    assert await find(other) == []
    assert await find(user) == [found]
    is_problem(await other.get(f"/v1/deposits/{found}"), 404, "not_found")
    for each in (nobodys, "dep_nobody", "x' OR true --"):
        is_problem(await user.get(f"/v1/deposits/{each}"), 404, "not_found")
    await depositor.release(nobodys, to=other)
    assert await find(other) == [nobodys]
    assert (await show(other, nobodys))["status"] == "credited"
    key = await api.make_key(user.id, ("receive",))
    headers = {"Authorization": f"Bearer {key}"}
    is_problem(await api.http.get("/v1/deposits", headers=headers), 403, "forbidden")
    is_problem(await api.http.get("/v1/deposits"), 401, "unauthenticated")


async def test_a_suspended_deposit_of_a_closed_account_is_not_shown(api: Api, depositor: Depositor, user: User) -> None:
    found = await depositor.see(user, 1_000, over_limit=True)
    await depositor.book(found, 10)
    await api.database.execute("UPDATE bank.deposits SET status = 'unattributed' WHERE id = $1", found)
    assert await find(user) == []
    is_problem(await user.get(f"/v1/deposits/{found}"), 404, "not_found")
    assert (await user.get(f"/v1/wallets/{user.wallet_id}/transactions")).json()["items"] == []
