"""Coins of the hot wallet in the database: many at once, and what blocks and rivals that come and go make of them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engine.bank.chain.coin import (
    SeenCoin,
    SeenSpend,
    list_unlinked,
    list_unsettled_txids,
    read_origins,
    record_in_tx,
    retrace_in_tx,
)
from engine.bank.chain.provenance import UNKNOWN
from engine.domain.ids import AccountId
from engine.ledger.database import Connection, Pool, open_pool
from tests.fixtures.postgres import Database
from tests.helpers.hot_wallet.coin import give_addresses

pytestmark = pytest.mark.integration

ALICE, BOB = AccountId("acc_alice"), AccountId("acc_bob")
MANY = 10_000


@pytest_asyncio.fixture
async def pool(ledger_db: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_db.app_dsn, min_size=0, max_size=2, command_timeout_s=60)
    async with pool.acquire() as conn:
        await give_addresses(conn, {ALICE: ["address-a1", "address-a2"], BOB: ["address-b1"]})
    yield pool
    await pool.close()


def txid(number: int) -> str:
    return f"{number:064x}"


def coin(number: int, address: str | None, *, change: bool = False, height: int | None = 10, vout: int = 0) -> SeenCoin:
    return SeenCoin(txid=txid(number), vout=vout, amount_sat=5_000, address=address, change=change, block_height=height)


def spend(number: int, *inputs: int, height: int | None = 11) -> list[SeenSpend]:
    return [SeenSpend(txid=txid(number), outpoint=(txid(each), 0), block_height=height) for each in inputs]


async def record(pool: Pool, coins: list[SeenCoin], spends: list[SeenSpend] | None = None, **left: Any) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await record_in_tx(conn, coins, spends or [], **({"unmined": [], "gone": []} | left))


async def origins(conn: Connection, number: int) -> set[str]:
    (found,) = (await read_origins(conn, [(txid(number), 0)])).values()
    return set(found)


async def test_ten_thousand_coins_are_recorded_in_one_call_and_a_repeat_writes_nothing(pool: Pool) -> None:
    coins = [coin(number, f"address-{'ab'[number % 2]}1") for number in range(MANY)]
    await record(pool, coins)
    async with pool.acquire() as conn:
        versions = "SELECT max(xmin::text::bigint) FROM bank.coins"
        written = await conn.fetchval(versions)
        await record(pool, coins)
        assert await conn.fetchval(versions) == written
        assert await conn.fetchval("SELECT count(*) FROM bank.coin_origins") == MANY
        assert len(await list_unlinked(conn, ALICE, 2 * MANY)) == MANY // 2


async def test_a_transaction_of_ten_thousand_inputs_descends_from_all_of_them(pool: Pool) -> None:
    """The change is recorded before its inputs, and one more generation before both."""
    last = MANY + 1
    await record(pool, [coin(last, "change-2", change=True)], spend(last, MANY))
    await record(pool, [coin(MANY, "change-1", change=True)], spend(MANY, *range(MANY)))
    async with pool.acquire() as conn:
        assert await origins(conn, last) == {UNKNOWN}
        await record(pool, [coin(number, f"address-{'ab'[number % 2]}1") for number in range(MANY)])
        assert await origins(conn, MANY) == await origins(conn, last) == {ALICE, BOB}
        assert await list_unlinked(conn, ALICE, 9) == []


async def test_a_replaced_spender_gives_the_coin_free_and_the_next_takes_it(pool: Pool) -> None:
    async def spent_by() -> str | None:
        async with pool.acquire() as conn:
            spender: str | None = await conn.fetchval("SELECT spent_by FROM bank.coins WHERE txid = $1", txid(1))
        return spender

    await record(pool, [coin(1, "address-a1"), coin(2, "change-1", change=True, height=None)], spend(2, 1, height=None))
    assert await spent_by() == txid(2)
    await record(pool, [coin(3, "change-1", change=True, height=None)], spend(3, 1, height=None), gone=[txid(2)])
    assert await spent_by() == txid(3)
    await record(pool, [], gone=[txid(3)])
    assert await spent_by() is None
    await record(pool, [coin(2, "change-1", change=True)], spend(2, 1))
    assert await spent_by() == txid(2)
    await record(pool, [], spend(3, 1, height=None))
    assert await spent_by() == txid(2), "in a block before in the mempool"
    await record(pool, [], spend(3, 1, height=12), unmined=[txid(2)])
    assert await spent_by() == txid(3)
    async with pool.acquire() as conn:
        assert await origins(conn, 2) == await origins(conn, 3) == {ALICE}


async def test_a_coin_of_a_reorganised_block_is_free_again_when_it_is_mined_again(pool: Pool) -> None:
    async with pool.acquire() as conn:

        async def free() -> list[str]:
            return [each.outpoint.txid for each in await list_unlinked(conn, BOB, 9)]

        await record(pool, [coin(1, "address-a1")])
        assert await free() == [txid(1)]
        await record(pool, [], unmined=[txid(1)])
        assert await free() == []
        assert await list_unsettled_txids(conn, 100) == {txid(1)}
        await record(pool, [], gone=[txid(1)])
        assert await list_unsettled_txids(conn, 100) == set()
        await record(pool, [coin(1, "address-a1", height=12)])
        assert await free() == [txid(1)]
        assert await list_unsettled_txids(conn, 11) == {txid(1)}
        assert await list_unsettled_txids(conn, 12) == set()


async def test_change_and_spends_are_looked_at_again_in_the_blocks_below_the_fork(pool: Pool) -> None:
    await record(pool, [coin(1, "address-a1"), coin(2, "change-1", change=True, height=12)], spend(3, 1, height=13))
    async with pool.acquire() as conn:
        assert await list_unsettled_txids(conn, 13) == await list_unsettled_txids(conn, 17) == {txid(2), txid(3)}
        assert await list_unsettled_txids(conn, 18) == {txid(3)}
        assert await list_unsettled_txids(conn, 19) == set()


async def test_a_deposit_that_operators_give_to_somebody_is_his_with_all_that_descends_from_it(pool: Pool) -> None:
    await record(pool, [coin(1, "address-x"), coin(2, "change-1", change=True)], spend(2, 1))
    async with pool.acquire() as conn:
        assert await origins(conn, 2) == {UNKNOWN}
        assert await list_unlinked(conn, BOB, 9) == []
        await conn.execute(
            """INSERT INTO bank.deposits(id, txid, vout, address, wallet_id, account_id, amount_sat, sight,
                   block_height, block_hash, required, deep, workflow_id)
               VALUES ('dep_1', $1, 0, 'address-x', 'wal_acc_alice', 'acc_alice', 5000, 'mined', 10, $1, 1, 6, 'w')""",
            txid(1),
        )
        for _ in range(2):
            async with conn.transaction():
                await retrace_in_tx(conn, [txid(1)])
            assert await origins(conn, 1) == await origins(conn, 2) == {ALICE}
        assert len(await list_unlinked(conn, BOB, 9)) == 1


async def test_a_coin_of_nothing_is_no_coin(pool: Pool) -> None:
    nothing = SeenCoin(txid=txid(1), vout=0, amount_sat=0, address=None, change=False, block_height=1)
    await record(pool, [nothing])
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM bank.coins") == 0
