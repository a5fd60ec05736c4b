"""Batchers hear of coins when their deposits are booked: the block that has them comes before that."""

from collections.abc import AsyncIterator
from unittest.mock import AsyncMock, MagicMock

import pytest
import pytest_asyncio

from activities.chain.wake import Waker
from engine.clients.bitcoind.rpc import Rpc
from engine.contracts import workflow_ids
from engine.domain.withdrawal.withdrawal import Speed
from tests.fixtures.postgres import Database
from tests.helpers.chain import Chain
from tests.helpers.deposit.depositor import WALLET, Depositor, Depositors
from tests.helpers.payout.desk import PayoutDesk, own_coins_only

pytestmark = pytest.mark.integration

BATCHER = workflow_ids.batcher(WALLET, Speed.FAST)


@pytest_asyncio.fixture
async def bank(ledger_db: Database, chain: Chain) -> AsyncIterator[Depositors]:
    with own_coins_only(chain):
        async with Depositors.open(ledger_db.app_dsn, chain) as bank:
            yield bank


@pytest_asyncio.fixture
async def desk(bank: Depositors, chain: Chain) -> AsyncIterator[PayoutDesk]:
    rpc = Rpc(chain.url, chain.auth_file)
    yield PayoutDesk(bank, rpc)
    await rpc.close()


class Told:
    """A pump's waker, with a Temporal that only writes down whom it was to signal."""

    def __init__(self, bank: Depositors) -> None:
        self._bank, self._client = bank, MagicMock()
        self._client.start_workflow = AsyncMock()
        self._waker = Waker(bank.pool, self._client, 100)

    async def after_a_look(self, *, book: bool = False) -> list[str]:
        """The batchers that are told by one look of the pump; `book`: what is due is booked after it."""
        self._client.start_workflow.reset_mock()
        look = await self._bank.look()
        await self._waker.wake(look.tip.height)
        await self._waker.tell_of_coins(WALLET)
        if book:
            await self._bank.book(look.tip.height)
        signals = [each.kwargs for each in self._client.start_workflow.await_args_list]
        return [each["id"] for each in signals if each.get("start_signal") == "joined"]


async def paid(bank: Depositors, amount_sat: int) -> Depositor:
    """A user whose deposit is in a block, and not in the books."""
    user = await bank.user()
    bank.chain.pay(await bank.address(user), amount_sat)
    bank.chain.mine(2)
    bank.chain.sync()
    return user


async def test_batchers_hear_of_a_refill_once_it_is_booked_and_only_where_somebody_waits(
    bank: Depositors, desk: PayoutDesk
) -> None:
    told = Told(bank)
    alice = await paid(bank, 200_000)
    assert await told.after_a_look(book=True) == []
    assert await told.after_a_look() == [], "nobody waits"
    await desk.opened(alice, 50_000, unlinked=True)
    assert await desk.form() == []

    again = Told(bank)
    await paid(bank, 90_000)
    assert await again.after_a_look(book=True) == [], "in a block, and not in the books"
    assert await again.after_a_look() == [BATCHER]
    assert await again.after_a_look() == [], "heard already"
    (made,) = await desk.form()
    await desk.step(made, times=4)
