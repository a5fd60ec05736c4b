"""Rates from the node: what it estimates, what it remembers, and what it relays."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from engine.clients.bitcoind.fees import FixedFees, NodeFees, fee_source, rate_sat_kvb
from engine.clients.bitcoind.rpc import Rpc
from engine.clients.bitcoind.verdict import Fate, Refusal
from engine.domain.withdrawal.fee_rate import Estimate
from engine.domain.withdrawal.script import input_weight, output_script, output_weight
from engine.domain.withdrawal.weight import fee_sat, transaction_weight
from tests.helpers.bitcoind_client import opened, reason_of
from tests.helpers.chain import Chain
from tests.helpers.fake_bitcoind import FakeBitcoind, fake_bitcoind
from tests.helpers.payout.spender import spender_of

pytestmark = pytest.mark.integration

START = datetime(2026, 1, 1, tzinfo=UTC)
NO_DATA = "Insufficient data or no feerate found"


@pytest.fixture
def fake() -> Iterator[FakeBitcoind]:
    with fake_bitcoind() as node:
        yield node


@pytest_asyncio.fixture
async def rpc(fake: FakeBitcoind) -> AsyncIterator[Rpc]:
    async with opened(fake.url) as client:
        yield client


class Clock:
    """Stands still, until a test moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


# A real node


async def test_a_young_chain_has_no_estimate_and_says_why(chain: Chain) -> None:
    async with opened(chain.url, chain.auth_file) as rpc:
        found = await NodeFees(rpc).estimate(2)
        assert found == Estimate(rate_sat_kvb=None, source="bitcoind", at=None, detail=NO_DATA)


async def test_the_floor_and_the_step_of_replacements_are_the_nodes(chain: Chain) -> None:
    async with opened(chain.url, chain.auth_file) as rpc:
        fees = NodeFees(rpc)
        assert (await fees.node_floor(), await fees.incremental()) == (1000, 1000)
        chain.restart("-minrelaytxfee=0.00003", "-incrementalrelayfee=0.00002")
        assert (await fees.node_floor(), await fees.incremental()) == (3000, 2000)


async def test_the_floor_is_where_the_node_begins_to_relay(chain: Chain) -> None:
    """A signature may be some bytes shorter than its bound, and three satoshi less than the floor are too few."""
    async with spender_of(chain) as spender:
        floor, coin, script = (
            await NodeFees(spender.rpc).node_floor(),
            spender.coin(100_000),
            output_script(spender.stranger),
        )
        bound = transaction_weight([input_weight(script)], [output_weight(script)])
        at, below = [await spender.to_stranger([coin], 100_000 - fee_sat(bound, floor) + less) for less in (0, 3)]
        assert (await spender.spending.test(at.raw)).fate is Fate.ACCEPTED
        assert (await spender.spending.test(below.raw)).refusal is Refusal.BELOW_FLOOR


async def test_a_fixed_rate_is_the_same_for_all_targets_and_does_not_age(chain: Chain) -> None:
    async with opened(chain.url, chain.auth_file) as rpc:
        fees = fee_source(rpc, 2500)
        assert isinstance(fees, FixedFees)
        estimates = [await fees.estimate(target) for target in (1, 144)]
        assert {(each.rate_sat_kvb, each.source, each.at) for each in estimates} == {(2500, "fixed", None)}
        assert (await fees.node_floor(), await fees.incremental()) == (1000, 1000)
        assert not isinstance(fee_source(rpc, None), FixedFees)


async def test_a_node_that_is_away_has_no_floor(chain: Chain) -> None:
    async with opened(chain.url, chain.auth_file) as rpc:
        chain.stop()
        fees = NodeFees(rpc)
        assert (await fees.estimate(2)).rate_sat_kvb is None
        assert await reason_of(fees.node_floor()) == "unreachable"
        assert await reason_of(fees.incremental()) == "unreachable"


# Answers that regtest does not give


async def test_an_estimate_is_rounded_up_and_says_for_when_it_is(fake: FakeBitcoind, rpc: Rpc) -> None:
    fake.result("estimatesmartfee", {"feerate": 0.00012345, "blocks": 2})
    fees = NodeFees(rpc, Clock())
    assert await fees.estimate(2) == Estimate(
        rate_sat_kvb=12_345, source="bitcoind", at=START, detail="for a block within 2"
    )
    assert (await fees.estimate(1)).detail == "for a block within 1, by what bitcoind knows of 2"


@pytest.mark.parametrize("later", [{"errors": [NO_DATA]}, {}, {"feerate": -1}, {"feerate": 0}, {"errors": "x"}])
async def test_the_last_estimate_stands_with_its_own_time(fake: FakeBitcoind, rpc: Rpc, later: dict[str, Any]) -> None:
    fake.result("estimatesmartfee", {"feerate": 0.0002, "blocks": 2})
    clock = Clock()
    fees = NodeFees(rpc, clock)
    assert (await fees.estimate(2)).at == START
    fake.result("estimatesmartfee", later | {"blocks": 2})
    await fees.estimate(3)  # takes the first answer, which is there twice
    clock.now += timedelta(hours=5)
    found = await fees.estimate(2)
    assert (found.rate_sat_kvb, found.at) == (20_000, START)
    assert found.detail in (NO_DATA, "bitcoind has told no rate")
    assert (await fees.estimate(6)).rate_sat_kvb is None


async def test_a_node_that_goes_away_leaves_its_last_estimate(fake: FakeBitcoind, rpc: Rpc) -> None:
    fake.result("estimatesmartfee", {"feerate": 0.0002, "blocks": 2})
    fees = NodeFees(rpc, Clock())
    await fees.estimate(2)
    fake.fault("estimatesmartfee", -28, "Loading block index…")
    await fees.estimate(2)
    found = await fees.estimate(2)
    assert (found.rate_sat_kvb, found.at) == (20_000, START)
    assert "starting" in found.detail


async def test_words_of_the_node_are_made_harmless(fake: FakeBitcoind, rpc: Rpc) -> None:
    fake.result("estimatesmartfee", {"errors": ["a\u0000b\u202e\n" + "x" * 10_000]})
    detail = (await NodeFees(rpc).estimate(2)).detail
    assert detail.startswith("a b x")
    assert len(detail) <= 300


async def test_a_full_mempool_raises_the_floor(fake: FakeBitcoind, rpc: Rpc) -> None:
    rates = {"minrelaytxfee": 0.00001, "mempoolminfee": 0.0000234, "incrementalrelayfee": 0.00001}
    fake.result("getmempoolinfo", {**rates, "size": 1, "bytes": 2, "maxmempool": 3})
    assert await NodeFees(rpc).node_floor() == 2340


@pytest.mark.parametrize(
    ("told", "rate"),
    [
        (Decimal("0.00001"), 1000),
        (Decimal("0.000010000001"), 1001),
        (Decimal("1E-9"), 1),
        (1, 100_000_000),
        (Decimal("1.1"), None),
        (2**63, None),
        (Decimal("1E+999999"), None),
        (Decimal("NaN"), None),
        (Decimal("Infinity"), None),
        (0, None),
        (Decimal("-0.00001"), None),
        (True, None),
        ("0.00001", None),
        (None, None),
    ],
)
def test_a_rate_is_read_up_to_the_next_satoshi(told: object, rate: int | None) -> None:
    assert rate_sat_kvb(told) == rate
