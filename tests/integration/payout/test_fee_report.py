"""What the pump says of fee rates, on a real bitcoind: for the API, which quotes by it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from activities.chain.fee_report import FeeReporter
from engine.bank import rulebook
from engine.clients.bitcoind.fees import FixedFees, NodeFees
from engine.domain.errors import Invalid
from engine.domain.withdrawal.fee_rate import Estimate
from engine.ledger.database import Pool, open_pool, transaction
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.postgres import Database
from tests.fixtures.stack import eventually
from tests.helpers.bitcoind_client import opened
from tests.helpers.chain import Chain

pytestmark = pytest.mark.integration

MADE = datetime(2026, 1, 31, 12, tzinfo=UTC)
NONE = {"rate_sat_kvb": None, "source": "bitcoind", "at": None, "detail": "Insufficient data or no feerate found"}


class FakeEstimates(NodeFees):
    """Invents a rate per target; floor and increment are those of the real node."""

    async def estimate(self, target_blocks: int) -> Estimate:
        return Estimate(rate_sat_kvb=100_000 // target_blocks, source="invented", at=MADE)


@pytest_asyncio.fixture
async def pool(ledger_db: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_db.app_dsn)
    yield pool
    await pool.close()


async def set_rules(pool: Pool, **changed: Any) -> None:
    async with transaction(pool) as conn:
        current = await rulebook.read_current(conn, "withdrawals")
        content = {**current.content, **changed}
        await rulebook.set_in_tx(
            conn, "withdrawals", content, version=current.version + 1, note="a test", set_by="a test"
        )


def speeds(**targets: int) -> dict[str, Any]:
    return {speed: {"target_blocks": blocks, "window_s": 30, "count": 100} for speed, blocks in targets.items()}


async def test_a_fresh_node_has_no_estimates_and_says_so(chain: Chain, pool: Pool) -> None:
    await set_rules(pool, speeds=speeds(fast=2, standard=6, slow=144))
    async with opened(chain.url, chain.auth_file) as rpc:
        found = await FeeReporter(NodeFees(rpc), pool).read()
    assert found == {"estimates": {"2": NONE, "6": NONE, "144": NONE}, "floor": 1000, "incremental": 1000}


async def test_there_is_one_estimate_for_each_target_of_the_rules_in_force(chain: Chain, pool: Pool) -> None:
    await set_rules(pool, speeds=speeds(fast=1, standard=5, slow=5))
    async with opened(chain.url, chain.auth_file) as rpc:
        found = await FeeReporter(FakeEstimates(rpc), pool).read()
    shared = {"source": "invented", "at": "2026-01-31T12:00:00+00:00", "detail": ""}
    assert found["estimates"] == {"1": {"rate_sat_kvb": 100_000, **shared}, "5": {"rate_sat_kvb": 20_000, **shared}}


async def test_the_floor_is_the_nodes_also_of_a_fixed_rate(chain: Chain, pool: Pool) -> None:
    chain.restart("-minrelaytxfee=0.00005001", "-incrementalrelayfee=0.00000300")
    async with opened(chain.url, chain.auth_file) as rpc:
        found = await FeeReporter(FixedFees(rpc, 2000), pool).read()
    assert (found["floor"], found["incremental"]) == (5001, 300)
    assert isinstance(found["estimates"], dict)
    assert {(each["rate_sat_kvb"], each["source"], each["at"]) for each in found["estimates"].values()} == {
        (2000, "fixed", None)
    }


async def test_rules_that_cannot_be_read_are_an_error_and_no_guess(chain: Chain, pool: Pool) -> None:
    await set_rules(pool, speeds={})
    async with opened(chain.url, chain.auth_file) as rpc:
        with pytest.raises(Invalid):
            await FeeReporter(NodeFees(rpc), pool).read()


async def test_the_pump_reports_them_and_follows_deposits_whatever_is_wrong_with_them(hot: HotBank) -> None:
    async def report() -> Any:
        return await hot.pool.fetchval("SELECT report->'fees' FROM bank.chains")

    async def reported() -> Any:
        found = await report()
        return found or None

    found = await eventually(reported, "fees to be reported")
    assert set(found["estimates"]) == {"2", "6", "144"}
    assert found["floor"] == found["incremental"] == 1000
    good = (await rulebook.read_current(hot.pool, "withdrawals")).content
    await set_rules(hot.pool, rate={"floor": "nonsense"})
    try:

        async def unreported() -> bool | None:
            return True if await report() is None else None

        await eventually(unreported, "no fees to be reported")
        alice = await hot.user()
        await hot.pay(alice, 50_000)
        await hot.mine()
        await hot.shows(alice, "credited", 50_000)
    finally:
        await set_rules(hot.pool, **good)
    assert await eventually(reported, "fees to be reported again")


async def test_a_node_that_estimates_nothing_by_its_settings_stops_nobody(chain: Chain) -> None:
    """With `-blocksonly`, bitcoind answers with an internal error (-32603)."""
    chain.restart("-blocksonly")
    async with opened(chain.url, chain.auth_file) as rpc:
        found = await NodeFees(rpc).estimate(6)
    assert found == Estimate(rate_sat_kvb=None, source="bitcoind", at=None, detail="Fee estimation disabled")
