"""A wallet restored from an older copy: what it has forgotten is taken from nobody, and is found again."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from activities.chain.pool import PoolKeeper
from tests.fixtures.postgres import Database
from tests.helpers.chain import Chain
from tests.helpers.deposit.depositor import WALLET, Depositor, Depositors

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def bank(ledger_db: Database, chain: Chain) -> AsyncIterator[Depositors]:
    async with Depositors.open(ledger_db.app_dsn, chain) as bank:
        yield bank
        await bank.prove()


async def far_address(bank: Depositors, user: Depositor) -> str:
    """One beyond the window of every copy of the wallet that was made before."""
    made = (await bank.bitcoind.make_addresses(1_100, "bech32"))[-1]
    await bank.pool.execute(
        """INSERT INTO bank.addresses(address, hd_index, made_height, wallet_id, account_id, purpose, given_at)
           VALUES ($1, $2, $3, $4, $5, 'api', now())""",
        made.address,
        made.hd_index,
        bank.chain.height(),
        user.wallet_id,
        user.id,
    )
    return made.address


async def test_a_deposit_that_the_wallet_has_forgotten_stays_credited(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    copy = await asyncio.to_thread(chain.copy_wallet)
    address = await far_address(bank, alice)
    await asyncio.to_thread(chain.pay, address, 50_000)
    await asyncio.to_thread(chain.mine)
    await bank.follow()
    assert await bank.money(alice) == (50_000, 0)
    await asyncio.to_thread(chain.restore_wallet, WALLET, copy)
    await bank.follow()
    assert (await bank.row())["status"] == "credited"
    keeper = PoolKeeper(bank.bitcoind, bank.pool, wallet=WALLET, size=10, address_type="bech32")
    await keeper.check()
    await asyncio.to_thread(chain.mine, 6)
    await bank.follow()
    row = await bank.row()
    assert (row["status"], row["confs"], row["final_at"] is not None) == ("credited", 1, True)
    assert await bank.money(alice) == (50_000, 0)


async def test_a_deposit_that_nobody_had_seen_before_the_restore_is_credited(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    copy = await asyncio.to_thread(chain.copy_wallet)
    address = await far_address(bank, alice)
    await asyncio.to_thread(chain.restore_wallet, WALLET, copy)
    await asyncio.to_thread(chain.pay, address, 50_000)
    await asyncio.to_thread(chain.mine, 2)
    await bank.follow()
    assert await bank.rows() == []
    keeper = PoolKeeper(bank.bitcoind, bank.pool, wallet=WALLET, size=10, address_type="bech32")
    await keeper.check()
    await bank.follow()
    assert await bank.money(alice) == (50_000, 0)


async def test_a_pending_deposit_that_the_wallet_has_forgotten_is_credited_once(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    copy = await asyncio.to_thread(chain.copy_wallet)
    address = await far_address(bank, alice)
    await asyncio.to_thread(chain.pay, address, 50_000)
    await bank.follow()
    assert await bank.money(alice) == (0, 50_000)
    await asyncio.to_thread(chain.restore_wallet, WALLET, copy)
    await asyncio.to_thread(chain.mine)
    await bank.follow()
    keeper = PoolKeeper(bank.bitcoind, bank.pool, wallet=WALLET, size=10, address_type="bech32")
    await keeper.check()
    await bank.follow()
    row = await bank.row()
    assert (row["status"], row["confs"]) == ("credited", 1)
    assert await bank.money(alice) == (50_000, 0)
