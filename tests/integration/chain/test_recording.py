"""What the pump writes of a block that came and went between two answers of bitcoind."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
import pytest_asyncio

from activities.chain.look import Look
from activities.chain.recording import Recorder
from engine.bank.chain import cursor
from engine.bank.chain.coin import SeenCoin, SeenSpend, record_in_tx
from engine.clients.bitcoind.answer import ChainInfo, Outpoint, Sighting
from engine.clients.bitcoind.chain import Bitcoind
from engine.domain.deposit import Block, Sight
from engine.ledger.database import Pool, open_pool, transaction
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.integration

COIN, SPENDER = "aa" * 32, "bb" * 32
CHANGE = SeenCoin(txid=SPENDER, vout=0, amount_sat=4_000, address="change", change=True, block_height=101)


def block(height: int, branch: str) -> Block:
    return Block(height=height, hash=f"{height:03d}{branch}" * 16)


@dataclass
class Told:
    """A bitcoind that lists nothing of the wallet, and that says of each transaction what the test has put here."""

    sights: dict[str, Sighting] = field(default_factory=dict)

    async def look_up(self, txids: Iterable[str]) -> dict[str, Sighting]:
        return {txid: self.sights.get(txid, Sighting(kind=Sight.GONE)) for txid in txids}

    async def read_spends(self, _txids: Iterable[str]) -> dict[str, list[Outpoint]]:
        return {}


@pytest_asyncio.fixture
async def pool(ledger_db: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_db.app_dsn, min_size=0, max_size=2)
    async with transaction(pool) as conn:
        blocks = [block(100, "a"), block(101, "a")]
        assert await cursor.adopt_in_tx(conn, "hot", network="regtest", blocks=blocks, work="0" * 64)
        coin = SeenCoin(txid=COIN, vout=0, amount_sat=5_000, address="address-x1", change=True, block_height=90)
        spend = SeenSpend(txid=SPENDER, outpoint=(COIN, 0), block_height=101)
        await conn.execute("INSERT INTO bank.addresses(address, hd_index, made_height) VALUES ('address-x1', 0, 0)")
        await record_in_tx(conn, [coin], [], unmined=[], gone=[])
        await record_in_tx(conn, [CHANGE], [spend], unmined=[], gone=[])
    yield pool
    await pool.close()


async def record(pool: Pool, told: Told, fork: Block, blocks: Sequence[Block]) -> None:
    info = ChainInfo(
        network="regtest",
        tip=blocks[-1],
        headers=blocks[-1].height,
        work=f"{blocks[-1].height:064x}",
        initial_download=False,
        pruned_below=None,
        version=290400,
        subversion="",
        warnings="",
    )
    look = Look(info=info, fork=fork, blocks=tuple(blocks), entries=(), problem=None)
    async with pool.acquire() as conn:
        chain = await cursor.find_chain(conn, "hot")
        epoch = await cursor.take_epoch(conn, "hot")
    assert chain is not None
    await Recorder(cast("Bitcoind", told), pool).record(chain, epoch, look, whole=True)


async def spent_by(pool: Pool) -> tuple[str | None, int | None]:
    row = await pool.fetchrow("SELECT spent_by, spent_height FROM bank.coins WHERE txid = $1", COIN)
    assert row is not None
    return row["spent_by"], row["spent_height"]


async def test_a_spend_in_a_block_after_the_look_is_in_no_block_until_a_look_has_it(pool: Pool) -> None:
    """Its first block was left, and the one that it is in now is left too before the pump looks again."""
    assert await spent_by(pool) == (SPENDER, 101)
    told = Told({SPENDER: Sighting(kind=Sight.MINED, block=block(109, "b"))})
    branch = [block(height, "b") for height in range(101, 109)]
    await record(pool, told, block(100, "a"), branch)
    assert await spent_by(pool) == (SPENDER, None)
    told.sights.clear()
    await record(pool, told, branch[-1], [block(109, "c")])
    assert await spent_by(pool) == (None, None)
    assert await pool.fetchval("SELECT gone FROM bank.coins WHERE txid = $1", SPENDER)


async def test_a_spend_that_was_written_into_a_block_which_never_stood_is_found_gone(pool: Pool) -> None:
    told = Told({SPENDER: Sighting(kind=Sight.MINED, block=block(101, "b"))})
    await record(pool, told, block(100, "a"), [block(101, "b"), block(102, "b")])
    assert await spent_by(pool) == (SPENDER, 101)
    told.sights.clear()
    await record(pool, told, block(102, "b"), [block(103, "b")])
    assert await spent_by(pool) == (None, None)
