"""Reorganisations of a deposit that was spent: what is owed, what is lost, and that both agree whatever comes next."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain.ids import DepositId
from engine.ledger.checks import find_broken_rules
from engine.views.balance import find_balance_then
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, User, running_api
from tests.helpers.ledger.deposit import Depositor
from tests.helpers.teller import Teller

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        yield api
        async with api.resources.reading() as conn:
            assert await find_broken_rules(conn) == []


@pytest_asyncio.fixture
async def depositor(api: Api) -> Depositor:
    return Depositor(api.resources.pool)


async def loss(api: Api) -> int:
    """In msat: what is booked as a loss."""
    async with api.resources.reading() as conn:
        row = await find_balance_then(conn, "exp:loss")
    assert row is not None
    return row.settled_msat


async def owed(user: User, found: DepositId) -> int:
    """In msat: what the deposit shows as owed."""
    return int((await user.get(f"/v1/deposits/{found}")).json()["receivable_msat"] or 0)


async def account_status(user: User) -> str:
    return str((await user.get("/v1/account")).json()["status"])


async def unlock(api: Api, user: User) -> None:
    answer = await api.http.patch(f"/v1/admin/accounts/{user.id}", json={"status": "active"}, headers=ADMIN)
    assert answer.status_code == 200, answer.text


async def test_a_second_reversal_owes_again_what_the_second_credit_had_repaid(api: Api, depositor: Depositor) -> None:
    user, payee = await api.open_account(), await api.open_account()
    found = await depositor.see(user, 10_000)
    await depositor.book(found, 100)
    await Teller(depositor.pool).pay_user(user, payee, 4_000_000)
    await depositor.take_back(found)
    await depositor.book(found, 101)
    assert (await owed(user, found), await loss(api)) == (0, 0)
    assert await user.balance() == (6_000_000, 0)
    await unlock(api, user)
    assert await depositor.take_back(found) == 4_000_000
    assert (await owed(user, found), await loss(api)) == (4_000_000, 4_000_000)
    assert await account_status(user) == "locked"
    assert await user.balance() == (0, 0)
    await depositor.book(found, 102)
    assert (await owed(user, found), await loss(api)) == (0, 0)
    assert await user.balance() == (6_000_000, 0)


async def test_a_second_credit_that_went_wholly_to_the_loss_is_owed_again(api: Api, depositor: Depositor) -> None:
    user, payee = await api.open_account(), await api.open_account()
    found = await depositor.see(user, 10_000)
    await depositor.book(found, 100)
    await Teller(depositor.pool).pay_user(user, payee, 10_000_000)
    for height in (101, 102):
        assert await depositor.take_back(found) == 10_000_000
        assert await loss(api) == 10_000_000
        await depositor.book(found, height)
        assert (await user.balance(), await loss(api)) == ((0, 0), 0)


async def test_a_deposit_that_our_fee_takes_wholly_is_booked(api: Api, depositor: Depositor) -> None:
    """Also where it is first seen when it is deep: nothing counts then, because nothing comes in."""
    await depositor.charge([{"flat_msat": 5_000_000}])
    user = await api.open_account()
    seen = await depositor.see(user, 2_000)
    await depositor.book(seen, 100)
    await depositor.reach(200)
    unseen = await depositor.see(user, 3_000, height=150)
    told = [(await user.get(f"/v1/deposits/{each}")).json() for each in (seen, unseen)]
    assert [(each["status"], each["fee_sat"]) for each in told] == [("credited", 2_000), ("credited", 3_000)]
    assert await user.balance() == (0, 0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spends=st.lists(st.integers(0, 1_000), min_size=1, max_size=4),
    fee_sat=st.sampled_from([0, 10, 900]),
    ends_credited=st.booleans(),
)
async def test_the_loss_is_always_what_is_owed(
    api: Api, depositor: Depositor, spends: list[int], fee_sat: int, *, ends_credited: bool
) -> None:
    await depositor.charge([{"flat_msat": fee_sat * 1_000}])
    before = await loss(api)
    user, payee = await api.open_account(), await api.open_account()
    found = await depositor.see(user, 1_000)
    for part in spends:
        await depositor.book(found, 100)
        await unlock(api, user)
        available_msat = await user.available()
        if going_msat := available_msat * part // 1_000:
            await Teller(depositor.pool).pay_user(user, payee, going_msat)
        owed_msat = await depositor.take_back(found)
        assert owed_msat == await owed(user, found) == await loss(api) - before
        assert (await account_status(user) == "locked") == (owed_msat > 0)
    if ends_credited:
        await depositor.book(found, 100)
    assert await owed(user, found) == await loss(api) - before
