"""The pool of addresses on a real bitcoind: filled, refilled, and found again after the wallet was restored."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from activities.chain.pool import PoolKeeper
from engine.bank.chain import cursor
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.deposit import Block
from engine.domain.errors import InvariantBroken
from engine.ledger.database import Pool, open_pool, transaction
from tests.fixtures.postgres import Database
from tests.helpers.chain import Chain

pytestmark = pytest.mark.integration

HOT, LIMIT_S = "hot", 120


@pytest_asyncio.fixture
async def pool(ledger_db: Database, chain: Chain) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_db.app_dsn)
    tip = Block(height=chain.height(), hash=chain.tip())
    async with transaction(pool) as conn:
        assert await cursor.adopt_in_tx(conn, HOT, network="regtest", blocks=[tip], work="0" * 64)
    yield pool
    await pool.close()


@pytest_asyncio.fixture
async def owner(ledger_db: Database) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(ledger_db.owner_dsn)
    yield conn
    await conn.close()


@asynccontextmanager
async def wallet_of(chain: Chain, name: str = HOT) -> AsyncIterator[Bitcoind]:
    rpc = Rpc(chain.url, chain.auth_file)
    try:
        yield Bitcoind(rpc, name)
    finally:
        await rpc.close()


def keeper(bitcoind: Bitcoind, pool: Pool, *, size: int = 10, address_type: str = "bech32") -> PoolKeeper:
    return PoolKeeper(bitcoind, pool, wallet=HOT, size=size, address_type=address_type)


@asynccontextmanager
async def tended(kept: PoolKeeper) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(kept.tend())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, InvariantBroken):
            await task


async def until(told: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await told():
            await asyncio.sleep(0.05)


def derived(chain: Chain, last: int) -> list[str]:
    """The addresses of the wallet's own descriptor up to this index: the wallet itself is not told of them."""
    (descriptor,) = [
        each["desc"]
        for each in chain.call("listdescriptors", wallet=HOT)["descriptors"]
        if each["desc"].startswith("wpkh") and each["active"] and not each["internal"]
    ]
    found: list[str] = chain.call("deriveaddresses", descriptor, [0, last])
    return found


async def write_down(owner: asyncpg.Connection, addresses: dict[str, int], height: int) -> None:
    """As if they had been made at this height."""
    await owner.executemany(
        "INSERT INTO bank.addresses(address, hd_index, made_height) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        [(address, index, height) for address, index in addresses.items()],
    )


async def scans(owner: asyncpg.Connection) -> tuple[int | None, int | None]:
    """From where the wallet must read the blocks again, and from where the pump must look again."""
    (row,) = await owner.fetch("SELECT scan_from, rescan_from FROM bank.chains")
    return row["scan_from"], row["rescan_from"]


def lists(chain: Chain, txid: str, wallet: str = HOT) -> bool:
    """Whether the wallet has the transaction."""
    found = chain.call("listsinceblock", "", 1, True, wallet=wallet)["transactions"]
    return txid in {each["txid"] for each in found}


@pytest.mark.parametrize(("address_type", "start"), [("bech32", "bcrt1q"), ("bech32m", "bcrt1p")])
async def test_the_pool_is_filled_and_refilled(
    chain: Chain, pool: Pool, owner: asyncpg.Connection, address_type: str, start: str
) -> None:
    count = "SELECT count(*) FROM bank.addresses WHERE wallet_id IS NULL"
    async with wallet_of(chain) as bitcoind, tended(keeper(bitcoind, pool, size=60, address_type=address_type)):

        async def is_full() -> bool:
            return bool(await owner.fetchval(count) >= 60)

        await until(is_full)
        rows = await owner.fetch("SELECT address, hd_index, made_height FROM bank.addresses ORDER BY hd_index")
        assert all(row["address"].startswith(start) and row["made_height"] == chain.height() for row in rows)
        assert [row["hd_index"] for row in rows] == list(range(rows[0]["hd_index"], rows[0]["hd_index"] + len(rows)))
        assert all((await bitcoind.knows([row["address"] for row in rows])).values())
        await owner.execute("DELETE FROM bank.addresses WHERE hd_index < $1", rows[40]["hd_index"])
        await until(is_full)


async def test_the_keeper_goes_on_when_bitcoind_is_back(chain: Chain, pool: Pool, owner: asyncpg.Connection) -> None:
    async with wallet_of(chain) as bitcoind, tended(keeper(bitcoind, pool)) as task:

        async def is_full() -> bool:
            return bool(await owner.fetchval("SELECT count(*) >= 10 FROM bank.addresses"))

        await until(is_full)
        await asyncio.to_thread(chain.kill)
        await owner.execute("DELETE FROM bank.addresses")
        await asyncio.to_thread(chain.start)
        await until(is_full)
        assert not task.done()


async def test_two_keepers_by_mistake_do_no_harm(chain: Chain, pool: Pool, owner: asyncpg.Connection) -> None:
    async with wallet_of(chain) as one, wallet_of(chain) as other:
        async with tended(keeper(one, pool, size=150)), tended(keeper(other, pool, size=150)):

            async def is_full() -> bool:
                return bool(await owner.fetchval("SELECT count(*) >= 150 FROM bank.addresses"))

            await until(is_full)
        assert await owner.fetchval("SELECT count(DISTINCT hd_index) = count(*) FROM bank.addresses")
        rows = await owner.fetch("SELECT address FROM bank.addresses")
        assert all((await one.knows([row["address"] for row in rows])).values())


async def test_an_address_of_the_books_is_not_given_a_second_time(
    chain: Chain, pool: Pool, owner: asyncpg.Connection
) -> None:
    async with wallet_of(chain) as bitcoind:
        (next_one,) = await bitcoind.make_addresses(1, "bech32")
        ahead = derived(chain, next_one.hd_index + 200)
        known = {address: index for index, address in enumerate(ahead) if index > next_one.hd_index}
        await write_down(owner, known, 7)
        await owner.execute("UPDATE bank.addresses SET made_at = 'epoch'")
        async with tended(keeper(bitcoind, pool, size=230)):

            async def is_full() -> bool:
                return bool(await owner.fetchval("SELECT count(*) >= 230 FROM bank.addresses"))

            await until(is_full)
        old = await owner.fetch("SELECT address FROM bank.addresses WHERE made_at = 'epoch' AND made_height = 7")
        assert {row["address"] for row in old} == set(known)
        assert await owner.fetchval("SELECT count(DISTINCT hd_index) = count(*) FROM bank.addresses")


async def test_an_older_copy_of_the_wallet_finds_what_was_paid_at_index_3000(
    chain: Chain, pool: Pool, owner: asyncpg.Connection
) -> None:
    addresses, height = derived(chain, 3000), chain.height()
    await write_down(owner, {address: index for index, address in enumerate(addresses)}, height)
    paid = [await asyncio.to_thread(chain.pay, addresses[index], 50_000) for index in (0, 3000)]
    await asyncio.to_thread(chain.mine, 3)
    assert not lists(chain, paid[1].txid)
    async with wallet_of(chain) as bitcoind:
        kept = keeper(bitcoind, pool)
        await kept.check()
        assert all(lists(chain, each.txid) for each in paid)
        assert await scans(owner) == (None, max(0, height - 144))
        await kept.check()  # a repeat finds nothing to do
        assert await bitcoind.knows([addresses[-1]]) == {addresses[-1]: True}


async def test_a_copy_in_the_place_of_the_wallet_is_taken_up(
    chain: Chain, pool: Pool, owner: asyncpg.Connection
) -> None:
    copy = await asyncio.to_thread(chain.copy_wallet)
    async with wallet_of(chain) as bitcoind:
        made = await bitcoind.make_addresses(1_100, "bech32")
        await write_down(owner, {each.address: each.hd_index for each in made}, chain.height())
        sent = await asyncio.to_thread(chain.pay, made[-1].address, 40_000)
        await asyncio.to_thread(chain.mine)
        assert lists(chain, sent.txid)
        async with tended(keeper(bitcoind, pool, size=1_200)):
            await asyncio.to_thread(chain.restore_wallet, HOT, copy)

            async def is_found() -> bool:
                return await asyncio.to_thread(lists, chain, sent.txid)

            await until(is_found)

            async def is_full() -> bool:
                return bool(await owner.fetchval("SELECT count(*) >= 1200 FROM bank.addresses"))

            await until(is_full)
        assert await owner.fetchval("SELECT count(DISTINCT hd_index) = count(*) FROM bank.addresses")


async def restored(chain: Chain, name: str, timestamp: object) -> None:
    """A wallet made from the descriptors of `hot` alone."""
    descriptors = await asyncio.to_thread(chain.call, "listdescriptors", True, wallet=HOT)
    await asyncio.to_thread(chain.call, "createwallet", name, False, True)
    asked: list[dict[str, Any]] = [
        {"desc": each["desc"], "active": each["active"], "internal": each["internal"], "timestamp": timestamp}
        for each in descriptors["descriptors"]
    ]
    said = await asyncio.to_thread(chain.call, "importdescriptors", asked, wallet=name)
    assert all(each["success"] for each in said), said


async def test_a_wallet_made_from_its_descriptor_alone_finds_every_payment(
    chain: Chain, pool: Pool, owner: asyncpg.Connection
) -> None:
    addresses, height = derived(chain, 3000), chain.height()
    await write_down(owner, {address: index for index, address in enumerate(addresses)}, height)
    early = await asyncio.to_thread(chain.pay, addresses[1], 50_000)
    late = await asyncio.to_thread(chain.pay, addresses[3000], 50_000)
    await asyncio.to_thread(chain.mine, 3)
    await restored(chain, "restored", "now")
    async with wallet_of(chain, "restored") as bitcoind:
        await keeper(bitcoind, pool).check()
    assert all(lists(chain, each.txid, "restored") for each in (early, late))


async def test_a_wallet_that_knows_its_keys_and_no_history_reads_the_blocks_again(
    chain: Chain, pool: Pool, owner: asyncpg.Connection
) -> None:
    """Its descriptors were imported with the time stamp `now`, which reads the blocks of the last two hours alone."""
    await asyncio.to_thread(chain.other_chain)
    sent = await asyncio.to_thread(chain.pay, derived(chain, 5)[5], 50_000)
    await asyncio.to_thread(chain.mine)
    height = chain.height()
    await owner.execute(
        "INSERT INTO bank.coins(txid, vout, amount_sat, block_height) VALUES ($1, $2, 50000, $3)",
        sent.txid,
        sent.vout,
        height,
    )
    chain.call("setmocktime", int(time.time()) + 3 * 3600)
    await asyncio.to_thread(chain.mine, 12)
    await restored(chain, "forgetful", "now")
    assert not lists(chain, sent.txid, "forgetful")
    async with wallet_of(chain, "forgetful") as bitcoind:
        await keeper(bitcoind, pool).check()
    assert lists(chain, sent.txid, "forgetful")
    assert await owner.fetchval("SELECT rescan_from FROM bank.chains") == height


async def test_a_scan_that_was_interrupted_is_done_again(chain: Chain, pool: Pool, owner: asyncpg.Connection) -> None:
    await owner.execute("UPDATE bank.chains SET scan_from = 5, rescan_from = 90")
    async with wallet_of(chain) as bitcoind:
        await keeper(bitcoind, pool).check()
    assert await scans(owner) == (None, 5)


async def test_a_wallet_with_other_keys_needs_an_operator(chain: Chain, pool: Pool, owner: asyncpg.Connection) -> None:
    addresses = derived(chain, 3)
    await write_down(owner, {address: index for index, address in enumerate(addresses)}, chain.height())
    async with wallet_of(chain, "stranger") as bitcoind:
        with pytest.raises(InvariantBroken) as refused:
            await keeper(bitcoind, pool).tend()
    assert refused.value.code == "wallet_replaced"
    async with wallet_of(chain) as bitcoind:  # the right one is there again
        await keeper(bitcoind, pool).check()
