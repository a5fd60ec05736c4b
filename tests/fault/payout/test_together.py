"""Several processes form payouts and take their steps at the same time, while owners take theirs back.

No coin is in two payouts, nobody has a place in two, and each is paid or cancelled, never both.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from engine.clients.bitcoind.rpc import Rpc
from engine.domain.errors import EngineError
from engine.domain.ids import WithdrawalId
from engine.ledger.database import open_pool
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.postgres import Database
from tests.fixtures.stack import eventually
from tests.helpers.chain import Chain
from tests.helpers.deposit.depositor import Depositors
from tests.helpers.payout.desk import PayoutDesk
from tests.helpers.payout.stage import Stage, opened_stage
from tests.helpers.withdrawal.withdrawer import Asked, Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(420)]

PROCESSES, ASKED = 4, 40
_ALIVE = "SELECT id FROM bank.payouts WHERE status NOT IN ('final', 'dissolved')"
_IN_TWO = """SELECT i.txid, i.vout FROM bank.payout_inputs i JOIN bank.payouts p ON p.id = i.payout_id
              WHERE p.status <> 'dissolved' GROUP BY i.txid, i.vout HAVING count(DISTINCT i.payout_id) > 1"""
_UNFINISHED = "SELECT count(*) FROM bank.withdrawals WHERE status IN ('queued', 'batched')"


@pytest_asyncio.fixture
async def stage(ledger_db: Database, chain: Chain) -> AsyncIterator[Stage]:
    async with opened_stage(ledger_db.app_dsn, chain) as stage:
        yield stage


@asynccontextmanager
async def process(dsn: str, chain: Chain) -> AsyncIterator[PayoutDesk]:
    """One more, with connections of its own."""
    pool, rpc = await open_pool(dsn, max_size=4), Rpc(chain.url, chain.auth_file)
    yield PayoutDesk(Depositors(pool, chain, rpc), rpc)
    await rpc.close()
    await pool.close()


async def work(stage: Stage, desk: PayoutDesk, chance: random.Random) -> None:
    """Take steps in any order until everything is sent. An error is one of a step that another process has taken."""
    while await stage.bank.pool.fetchval(_UNFINISHED):
        try:
            await desk.form()
            alive = [row["id"] for row in await stage.bank.pool.fetch(_ALIVE)]
            for each in chance.sample(alive, min(len(alive), 5)):
                await desk.step(each)
                if chance.random() < 0.1:
                    await stage.wants_bump(each)
        except EngineError as error:
            stage.errors.append(repr(error))


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_processes_without_temporal(stage: Stage, ledger_db: Database, chain: Chain, seed: int) -> None:
    chance = random.Random(seed)
    asked = [await stage.opened(alone=chance.random() < 0.7) for _ in range(ASKED)]
    cancelled: set[WithdrawalId] = set()

    async def take_back() -> None:
        for each in chance.sample(asked, 15):
            if await stage.desk.cancelled(each):
                cancelled.add(each)
            await asyncio.sleep(0.02 * chance.random())

    async with AsyncExitStack() as opened:
        desks = [await opened.enter_async_context(process(ledger_db.app_dsn, chain)) for _ in range(PROCESSES)]
        await asyncio.gather(take_back(), *(work(stage, each, random.Random(chance.random())) for each in desks))
    assert await stage.bank.pool.fetch(_IN_TWO) == []
    paid = zip(asked, list(stage.asked.items()), strict=True)
    stage.asked = dict(item for each, item in paid if each not in cancelled)
    for row in await stage.bank.pool.fetch(_ALIVE):
        await stage.steps_until(row["id"])
    await stage.assert_each_is_paid_once(cancelled=len(cancelled))


async def taken_back(asked: Asked) -> bool:
    """Whether it was not batched yet."""
    try:
        await asked.workflow.execute_update("cancel")
    except WorkflowUpdateFailedError as error:
        if not (isinstance(error.cause, ApplicationError) and error.cause.details[0]["code"] == "already_batched"):
            raise
        return False
    return True


async def test_two_workers_of_which_one_dies_again_and_again(hot: HotBank) -> None:
    """Twelve withdrawals at once, some alone, some taken back."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(*[100_000] * 12)
    second = hot.make_worker("second")
    supervising = asyncio.create_task(second.supervise())
    try:

        async def kill_them() -> None:
            for _ in range(4):
                await asyncio.sleep(1.5)
                await second.kill()
                await asyncio.sleep(1.5)
                await hot.worker.kill()

        killing = asyncio.create_task(kill_them())
        asked = await asyncio.gather(*(out.ask(alice, 50_000, alone=number % 3 > 0) for number in range(12)))
        gone = sum([await taken_back(each) for each in asked[::4]])
        await killing

        async def sent() -> bool | None:
            rows = [(await out.row(each))["status"] for each in asked]
            return True if set(rows) <= {"broadcast", "cancelled"} else None

        await eventually(sent, "all to be sent", limit_s=120)
    finally:
        supervising.cancel()
        await second.kill()
    assert await hot.pool.fetch(_IN_TWO) == []
    await hot.mine()
    rows = {each.id: await out.row(each) for each in asked}
    paid = [each for each in asked if rows[each.id]["status"] != "cancelled"]
    assert len(paid) == len(asked) - gone
    confirmed = [await out.reaches(each, "confirmed") for each in paid]
    assert [await out.received(each.address) for each in asked] == [
        0 if rows[each.id]["status"] == "cancelled" else 50_000 for each in asked
    ]
    left_sat = 1_200_000 - sum(50_000 + row["miner_fee_sat"] for row in confirmed)
    assert await hot.money(alice) == (left_sat, 0)
