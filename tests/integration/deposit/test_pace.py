"""How the pump hands on deposits that come in great number: a few pages at a time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.chain.wake import Waker
from engine.contracts.deposit import DepositPage
from tests.fixtures.postgres import Database
from tests.helpers.chain import Chain
from tests.helpers.deposit.depositor import Depositors

pytestmark = pytest.mark.integration

TOGETHER, DEPOSITS = 10, 52
AT_ONCE = 2 * TOGETHER


class FakeTemporal:
    """Stands for Temporal's client: remembers which pages were started, and runs none."""

    def __init__(self) -> None:
        self.pages: list[DepositPage] = []

    async def start_workflow(self, _workflow: str, page: DepositPage, **_options: Any) -> None:
        self.pages.append(page)


@pytest_asyncio.fixture
async def bank(ledger_db: Database, chain: Chain) -> AsyncIterator[Depositors]:
    async with Depositors.open(ledger_db.app_dsn, chain) as bank:
        yield bank
        await bank.prove()


async def test_the_pump_starts_a_few_pages_at_a_time_until_all_are_booked(bank: Depositors, chain: Chain) -> None:
    user, temporal = await bank.user(), FakeTemporal()
    address = await bank.address(user)
    await asyncio.to_thread(chain.pay_many, [(address, 20_000)] * DEPOSITS)
    await asyncio.to_thread(chain.mine)
    height = (await bank.look()).tip.height
    waker = Waker(bank.pool, cast("Client", temporal), TOGETHER)
    started: list[int] = []
    while await waker.wake(height):
        assert await waker.wake(height), "what is being booked keeps the others waiting"
        started.append(sum(len(page.deposits) for page in temporal.pages))
        for page in temporal.pages:
            await ActivityEnvironment().run(bank.deposits.advance_deposits, page)
        temporal.pages.clear()
    assert started == [AT_ONCE, AT_ONCE, DEPOSITS - 2 * AT_ONCE]
    assert await bank.money(user) == (20_000 * DEPOSITS, 0)
