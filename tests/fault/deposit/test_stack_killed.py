"""Workers, APIs, PostgreSQL and bitcoind are killed at each step of a deposit, one after the other and all at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from infra.local.bitcoin_rpc import RpcError
from infra.local.chain.regtest import Regtest
from tests.fixtures.stack import Bank, eventually
from tests.helpers.deposit.stack import pay, proved, shows, strike
from tests.helpers.held_payment import Lasts

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

WORKERS, APIS = ("worker-1", "worker-2"), ("api-1", "api-2")
ALL = (*WORKERS, *APIS, "postgres", "bitcoind")


@pytest_asyncio.fixture
async def chain(bank: Bank) -> AsyncIterator[Regtest]:
    async with proved(bank):
        yield bank.stack.chain()


async def bitcoind_back(chain: Regtest) -> None:
    async def look() -> bool | None:
        try:
            return bool(await asyncio.to_thread(chain.call, "getmempoolinfo"))
        except (OSError, RpcError):
            return None

    await eventually(look, "bitcoind to be back")


@pytest.mark.parametrize(
    "accidents", [[("bitcoind",), WORKERS, ("postgres",), APIS], [WORKERS, ("postgres",), ("bitcoind",), ALL]]
)
async def test_killed_at_each_step(bank: Bank, chain: Regtest, accidents: Sequence[Sequence[str]]) -> None:
    """Seen, credited while blocks come one by one, taken back, and credited again."""
    when_seen, when_mined, when_taken, when_again = accidents
    alice = await bank.open_account()
    sent = await pay(bank, alice, 50_000)
    strike(bank, chain, *when_seen)
    await shows(alice, "pending", incoming_msat=50_000_000)
    await bitcoind_back(chain)
    with chain.mining(0.5):
        await asyncio.to_thread(chain.mine)
        strike(bank, chain, *when_mined)
        await shows(alice, "credited", 50_000_000)
        await bitcoind_back(chain)
    conflict = await asyncio.to_thread(chain.double_spend, sent)
    old, depth = await asyncio.to_thread(chain.tip), await asyncio.to_thread(depth_of, chain, sent.txid)
    await asyncio.to_thread(lambda: chain.reorg(depth, with_=[conflict]))
    strike(bank, chain, *when_taken)
    await shows(alice, "reversed")
    await bitcoind_back(chain)
    await asyncio.to_thread(chain.come_back, old)
    strike(bank, chain, *when_again)
    await shows(alice, "credited", 50_000_000)
    await bitcoind_back(chain)


async def test_all_are_killed_while_deposits_and_blocks_come(bank: Bank, chain: Regtest) -> None:
    users = [await bank.open_account() for _ in range(3)]
    for number in range(2):
        for user in users:
            await pay(bank, user, 20_000 + number)
        with chain.mining(0.5):
            strike(bank, chain, *ALL)
            await bitcoind_back(chain)
            for user in users:
                await shows(user, "credited", 20_000_000 if number == 0 else 40_001_000)


async def test_bitcoind_stands_still(bank: Bank, chain: Regtest, lasts: Lasts) -> None:
    """It holds its connections and says nothing. Addresses are given meanwhile, and balances shown."""
    alice = await bank.open_account()
    await pay(bank, alice, 50_000)
    await shows(alice, "pending", incoming_msat=50_000_000)
    reported = "SELECT reported_at FROM bank.chains"
    with bank.stack.frozen("bitcoind"):
        for _ in range(3):
            answer = await alice.post("/v1/addresses", {"wallet_id": alice.wallet_id})
            assert answer.status_code == 201, answer.text
        await shows(alice, "pending", incoming_msat=50_000_000)
        since = await bank.database.fetchval(reported)
        await lasts(20)
    await asyncio.to_thread(chain.mine)
    await shows(alice, "credited", 50_000_000)

    async def reports() -> bool | None:
        return await bank.database.fetchval(f"{reported} WHERE problem IS NULL AND reported_at > $1", since) and True

    await eventually(reports, "the pump to report again")


def depth_of(chain: Regtest, txid: str) -> int:
    return int(chain.call("getrawtransaction", txid, True)["confirmations"])
