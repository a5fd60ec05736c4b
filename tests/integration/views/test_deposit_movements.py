"""Deposits among transactions, in statements and exports, and in the history of a transfer."""

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.domain.ids import DepositId
from engine.ledger.checks import find_broken_rules
from engine.views import beancount
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, Json, User, is_problem, running_api
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


async def transactions(user: User, **query: str) -> list[Json]:
    answer = await user.get(f"/v1/wallets/{user.wallet_id}/transactions", **query)
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


async def statement(user: User, **query: str) -> Json:
    answer = await user.get(f"/v1/wallets/{user.wallet_id}/statement", **query)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    balance = found["opening_msat"]
    for movement in found["movements"]:
        balance += movement["amount_msat"]
        assert movement["balance_msat"] == balance
    assert balance == found["closing_msat"]
    return found


async def test_each_state_of_a_deposit_is_a_transaction(api: Api, depositor: Depositor) -> None:
    user = await api.open_account()
    await depositor.charge([{"flat_msat": 3_000}])
    pending = await depositor.see(user, 1_000, address="bcrt1qone")
    credited = await depositor.see(user, 2_000, address="bcrt1qtwo")
    held = await depositor.see(user, 3_000, over_limit=True)
    small = await depositor.see(user, 4, below_minimum=True)
    dropped = await depositor.see(user, 5_000)
    taken_back = await depositor.see(user, 6_000)
    nobodys = await depositor.see(None, 7_000)
    for each in (credited, held, small, nobodys, taken_back):
        await depositor.book(each, 10)
    await depositor.drop(dropped)
    await depositor.take_back(taken_back)
    found = await transactions(user)
    assert [(row["reference"], row["status"], row["amount_msat"], row["fee_msat"]) for row in found] == [
        (taken_back, "reversed", 6_000_000, 0),
        (dropped, "cancelled", 5_000_000, 0),
        (small, "failed", 4_000, 0),
        (held, "pending", 3_000_000, 0),
        (credited, "settled", 2_000_000, 3_000),
        (pending, "pending", 1_000_000, 0),
    ]
    assert {(row["kind"], row["direction"], row["memo"]) for row in found} == {("deposit", "in", None)}
    assert found[-1] == found[-1] | {"id": pending, "counterparty": "bcrt1qone", "settled_at": None}
    assert found[-2]["settled_at"] is not None
    assert [row["id"] for row in await transactions(user, kind="deposit", status="settled")] == [credited]
    assert [row["id"] for row in await transactions(user, text="QTWO")] == [credited]
    assert await transactions(user, kind="invoice") == []
    for each in (held, small, nobodys):
        await depositor.release(each, to=user)
    settled = await transactions(user, status="settled")
    assert [row["id"] for row in settled] == [nobodys, small, held, credited]


async def lose_and_find(api: Api, depositor: Depositor) -> tuple[User, DepositId]:
    """A deposit credited, spent in part, taken back, and credited again; its owner has another one besides."""
    user, payee = await api.open_account(), await api.open_account()
    await depositor.charge(FEE)
    found = await depositor.see(user, 50_000, address="bcrt1qone")
    await depositor.book(found, 100)
    await Teller(depositor.pool).pay_user(user, payee, 20_000_000)
    assert await depositor.take_back(found) == 20_000_000
    await depositor.show_again(found)
    await depositor.book(found, 101)
    return user, found


async def test_a_statement_adds_up_through_credit_loss_and_second_credit(api: Api, depositor: Depositor) -> None:
    user, found = await lose_and_find(api, depositor)
    told = await statement(user)
    assert [(line["kind"], line["amount_msat"], line["fee_msat"]) for line in told["movements"]] == [
        ("deposit", 49_500_000, 500_000),
        ("payment", -20_000_000, 0),
        ("deposit", -29_500_000, 0),
        ("deposit", 29_500_000, 500_000),
    ]
    deposits = [line for line in told["movements"] if line["kind"] == "deposit"]
    assert {(line["counterparty"], line["reference"]) for line in deposits} == {("bcrt1qone", found)}
    refs = [line["transfer"].split(":", 3)[3] for line in deposits]
    assert refs == ["conf:1", "reorg:1", "conf:2"]
    times = [line["time"] for line in told["movements"]]
    since = await statement(user, **{"from": times[2]})
    assert (since["opening_msat"], since["closing_msat"]) == (29_500_000, 29_500_000)
    sheet = await user.get(f"/v1/wallets/{user.wallet_id}/statement", format="csv")
    lines = list(csv.DictReader(io.StringIO(sheet.text, newline="")))
    assert [line["kind"] for line in lines] == ["opening", "deposit", "payment", "deposit", "deposit", "closing"]
    assert lines[1]["counterparty"] == "bcrt1qone"


async def test_a_release_is_a_deposit_in_the_statement_and_so_is_its_reversal(api: Api, depositor: Depositor) -> None:
    user = await api.open_account()
    found = await depositor.see(user, 9_000, over_limit=True)
    await depositor.book(found, 7)
    await depositor.charge(FEE)
    await depositor.release(found, to=user)
    assert await depositor.take_back(found) == 0
    told = (await statement(user))["movements"]
    assert [(line["kind"], line["amount_msat"], line["fee_msat"], line["reference"]) for line in told] == [
        ("deposit", 8_500_000, 500_000, found),
        ("deposit", -8_500_000, 0, found),
    ]


async def story(api: Api, ref: str) -> Json:
    answer = await api.http.get(f"/v1/admin/ledger/transfers/{ref}", headers=ADMIN)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def test_all_transfers_of_a_deposit_have_one_history(api: Api, depositor: Depositor) -> None:
    user, found = await lose_and_find(api, depositor)
    row = (await user.get(f"/v1/deposits/{found}")).json()
    outpoint = f"chain:{row['txid']}:{row['vout']}"
    told = await story(api, f"{outpoint}:conf:2")
    expected = [("seen", "settled"), ("conf:1", "reversed"), ("reorg:1", "final"), ("seen:2", "settled")]
    assert [(step["ref"].removeprefix(outpoint + ":"), step["status"]) for step in told["steps"]] == [
        *expected,
        ("conf:2", "final"),
    ]
    assert (told["deposit_ids"], told["status"]) == ([found], "final")
    assert (told["payment_ids"], told["invoice_ids"], told["correction_ids"]) == ([], [], [])
    for step in told["steps"]:
        assert (await story(api, step["ref"]))["steps"] == told["steps"]
    answer = await api.http.get(f"/v1/admin/ledger/transfers/{outpoint}:conf:3", headers=ADMIN)
    is_problem(answer, 404, "not_found")


async def test_a_replaced_transaction_belongs_to_the_history_of_its_deposit(api: Api, depositor: Depositor) -> None:
    user = await api.open_account()
    found = await depositor.see(user, 5_000)
    before = (await user.get(f"/v1/deposits/{found}")).json()
    await depositor.drop(found)
    await api.database.execute(
        """WITH old AS (INSERT INTO bank.deposit_outpoints (txid, vout, deposit_id, amount_sat)
                        SELECT txid, vout, id, amount_sat FROM bank.deposits WHERE id = $1)
           UPDATE bank.deposits SET txid = repeat('cd', 32), vout = 5, sight = 'mempool' WHERE id = $1""",
        found,
    )
    await depositor.show_again(found)
    old, new = f"chain:{before['txid']}:{before['vout']}", f"chain:{'cd' * 32}:5"
    for ref in (f"{old}:seen", f"{new}:seen:2"):
        told = await story(api, ref)
        assert [step["ref"] for step in told["steps"]] == [f"{old}:seen", f"{old}:drop", f"{new}:seen:2"]
        assert told["deposit_ids"] == [found]


async def test_a_deposit_that_was_held_and_released_has_one_history(api: Api, depositor: Depositor) -> None:
    user = await api.open_account()
    found = await depositor.see(user, 9_000, over_limit=True)
    await depositor.book(found, 7)
    await depositor.charge(FEE)
    await depositor.release(found, to=user)
    await depositor.take_back(found)
    row = (await user.get(f"/v1/deposits/{found}")).json()
    told = await story(api, f"chain:{row['txid']}:{row['vout']}:conf:1")
    assert [step["template"] for step in told["steps"]] == [
        *("deposit_seen", "deposit_parked", "deposit_released", "deposit_taken_back", "deposit_taken_back")
    ]


async def test_exports_have_the_accounts_of_deposits(api: Api, depositor: Depositor) -> None:
    await lose_and_find(api, depositor)
    answer = await api.http.get("/v1/admin/ledger/export", headers=ADMIN)
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    sums: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row["account"], row["layer"])
        sums[key] = sums.get(key, 0) + int(row["amount"])
    assert sums["asset:hot", "settled"] == 50_000_000
    assert (sums["income:deposit-fee", "settled"], sums["exp:loss", "settled"]) == (-500_000, 0)
    assert sums["asset:hot", "held"] == 0
    assert {row["template"] for row in rows} >= {"deposit_seen", "deposit_credited", "deposit_taken_back"}
    text = (await api.http.get("/v1/admin/ledger/export", params={"format": "beancount"}, headers=ADMIN)).text
    name = beancount.account_name("asset", "settled", "asset:hot")
    assert name == "Assets:Settled:Asset:Hot"
    assert f"balance {name}  50000000 MSAT" in text
