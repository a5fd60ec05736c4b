"""A worker dies at each step of a consolidation: coins are joined once, and the fee is booked once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
import pytest

from engine.bank.withdrawal.coin import list_free
from engine.contracts.batcher import Batcher, batcher_start
from engine.contracts.workflow_start import start_workflow
from engine.domain.withdrawal.withdrawal import Speed
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.deposit.depositor import WALLET
from tests.helpers.deposit.worker import Point
from tests.helpers.withdrawal.withdrawer import Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

POINTS: list[Point] = [
    "form before commit",
    "form after commit",
    "draft before commit",
    "draft after commit",
    "sign before commit",
    "sign after commit",
    "send before call",
    "send after call",
    "sent before commit",
    "sent after commit",
    "book before commit",
    "book after commit",
]
COINS, JOINED = 30, 21


async def _reaches(hot: HotBank, status: str, after: datetime) -> asyncpg.Record:
    """The one consolidation that was planned after this moment, when it has this status."""

    async def look() -> asyncpg.Record | None:
        found = await hot.pool.fetch(
            """SELECT p.*, (SELECT count(*) FROM bank.payout_inputs i WHERE i.payout_id = p.id) AS inputs,
                      (SELECT count(*) FROM bank.payout_versions v WHERE v.payout_id = p.id) AS versions
                 FROM bank.payouts p WHERE kind = 'consolidation' AND created_at > $1""",
            after,
        )
        if len(found) > 1:
            pytest.fail(f"more than one: {found}")
        return found[0] if found and found[0]["status"] == status else None

    return await eventually(look, f"a consolidation to be {status}", limit_s=60)


@asynccontextmanager
async def _rule(out: Withdrawer) -> AsyncIterator[None]:
    """So many coins are joined, once, of what is there now. Other tests have left coins, and go on without."""
    async with out.pool.acquire() as conn:
        free = len(await list_free(conn, WALLET, min_depth=1, limit=1000))
    rule = {"enabled": True, "below_rate": 3_000, "above_coins": free - JOINED + 1}
    await out.set_rules(consolidation=rule)
    try:
        yield
    finally:
        await out.set_rules(consolidation=rule | {"enabled": False})


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_that_dies_at_this_point_joins_coins_once(hot: HotBank, point: Point) -> None:
    """A withdrawal that comes meanwhile goes with the coins that stay free."""
    out = Withdrawer(hot)
    alice = await out.funded(*(20_000 + number for number in range(COINS)))
    begun: datetime = await hot.pool.fetchval("SELECT clock_timestamp()")
    async with _rule(out):
        await hot.dies(point)
        batcher = Batcher(wallet=WALLET, speed=Speed.SLOW)
        await start_workflow(await hot.temporal(), batcher_start(batcher), signal="joined")
        await hot.died()
        joined = await _reaches(hot, "broadcast", begun)
        assert (joined["inputs"], joined["versions"]) == (JOINED, 1)
        asked = await out.ask(alice, 50_000)
        await out.reaches(asked, "broadcast")
        await hot.mine()
        await out.reaches(asked, "confirmed")
        confirmed = await _reaches(hot, "confirmed", begun)
    assert confirmed["versions"] == 1
    assert confirmed["fee_booked_sat"] == joined["fee_booked_sat"] > 0
    assert await out.received(asked.address) == 50_000
