"""Deposits that share their workflows: pages that are booked at the same time."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from engine.contracts.deposit import DepositPage
from tests.fixtures.postgres import Database
from tests.helpers.chain import Chain
from tests.helpers.deposit.depositor import Depositors

pytestmark = pytest.mark.integration

USERS, DEPOSITS, PAGES = 6, 96, 4


@pytest_asyncio.fixture
async def bank(ledger_db: Database, chain: Chain) -> AsyncIterator[Depositors]:
    async with Depositors.open(ledger_db.app_dsn, chain) as bank:
        yield bank
        await bank.prove()


async def test_pages_for_the_same_users_wait_for_each_other_and_never_in_a_circle(
    bank: Depositors, chain: Chain
) -> None:
    users = [await bank.user() for _ in range(USERS)]
    payments = [(await bank.address(users[number % USERS]), 20_000) for number in range(DEPOSITS)]
    await asyncio.to_thread(chain.pay_many, payments)
    await book_side_by_side(bank)
    each_sat = 20_000 * DEPOSITS // USERS
    assert [await bank.money(user) for user in users] == [(0, each_sat)] * USERS
    await asyncio.to_thread(chain.mine)
    await book_side_by_side(bank)
    assert [await bank.money(user) for user in users] == [(each_sat, 0)] * USERS


async def book_side_by_side(bank: Depositors) -> None:
    """Look, and book what is due in pages, each of which has deposits of every user; a deadlock would end one."""
    look = await bank.look()
    due = await bank.due(look.tip.height)
    assert len(due) == DEPOSITS
    pages = [DepositPage(deposits=[each.id for each in due[at::PAGES]], height=look.tip.height) for at in range(PAGES)]
    moved = await asyncio.gather(*(ActivityEnvironment().run(bank.deposits.advance_deposits, page) for page in pages))
    assert [page.moved for page in moved] == [DEPOSITS // PAGES] * PAGES
