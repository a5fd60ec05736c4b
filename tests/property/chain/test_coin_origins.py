"""Whose deposits each coin descends from: random graphs of transactions against a model that walks every ancestor.

Transactions are recorded in random order and in random pieces, some of them again and again. Meanwhile they leave
their blocks, vanish, come back and take each other's place.
"""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from engine.bank.chain.coin import (
    SeenCoin,
    SeenSpend,
    list_unlinked,
    read_origins,
    record_in_tx,
    record_opening_in_tx,
)
from engine.bank.chain.provenance import UNKNOWN
from engine.domain.ids import AccountId
from engine.ledger.database import Connection, Pool, open_pool
from tests.fixtures.postgres import Database
from tests.helpers.hot_wallet.coin import give_addresses

pytestmark = pytest.mark.property

ACCOUNTS = ["acc_a", "acc_b", "acc_c"]
_ROUNDS = 60


@dataclass
class Tx:
    """A transaction as the model has it."""

    txid: str
    inputs: list[tuple[str, int]]
    outputs: list[tuple[str, bool]]
    """Address, and whether it is change."""
    height: int | None = None
    alive: bool = False


@dataclass
class World:
    """The wallet's transactions."""

    chance: random.Random
    txs: dict[str, Tx] = field(default_factory=dict)
    opening: set[tuple[str, int]] = field(default_factory=set)

    def grow(self, count: int) -> None:
        """Add transactions: some pay us from outside, others spend up to four outputs, which may be spent already."""
        for _ in range(count):
            ours = [(tx.txid, vout) for tx in self.txs.values() for vout in range(len(tx.outputs))]
            spends = self.chance.random() < 0.6 and ours
            inputs = self.chance.sample(ours, min(len(ours), self.chance.randint(1, 4))) if spends else []
            if self.chance.random() < 0.2:
                inputs.append((self._hash(), 0))
            outputs = [self._output(own=bool(spends)) for _ in range(self.chance.randint(1, 3))]
            txid = self._hash()
            self.txs[txid] = Tx(txid=txid, inputs=inputs, outputs=outputs)

    def _output(self, *, own: bool) -> tuple[str, bool]:
        if own and self.chance.random() < 0.6:
            return f"change-{self.chance.randint(0, 9):04}", True
        return f"{self.chance.choice([*ACCOUNTS, 'nobody'])}-{self.chance.randint(0, 3):04}", False

    def _hash(self) -> str:
        return self.chance.randbytes(32).hex()

    def coins_of(self, tx: Tx) -> list[SeenCoin]:
        return [
            SeenCoin(
                txid=tx.txid, vout=vout, amount_sat=1_000 + vout, address=address, change=change, block_height=tx.height
            )
            for vout, (address, change) in enumerate(tx.outputs)
        ]

    def spends_of(self, tx: Tx) -> list[SeenSpend]:
        return [SeenSpend(txid=tx.txid, outpoint=each, block_height=tx.height) for each in tx.inputs]

    def origins(self, outpoint: tuple[str, int]) -> frozenset[str]:
        """By walking all ancestors."""
        if outpoint in self.opening:
            return frozenset()
        tx = self.txs[outpoint[0]]
        inputs = [each for each in tx.inputs if each[0] in self.txs]
        account = tx.outputs[outpoint[1]][0].split("-")[0]
        own = {account} if account in ACCOUNTS else set[str]()
        if not inputs:
            return frozenset(own or {UNKNOWN})
        return frozenset(own.union(*(self.origins(each) for each in inputs)))

    def spender(self, outpoint: tuple[str, int]) -> str | None:
        """The living transaction that spends it: there is one at most when the model is asked."""
        living = [tx.txid for tx in self.txs.values() if tx.alive and outpoint in tx.inputs]
        assert len(living) <= 1
        return living[0] if living else None


@pytest_asyncio.fixture
async def pool(ledger_db: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_db.app_dsn, min_size=0, max_size=2)
    async with pool.acquire() as conn:
        await give_addresses(conn, {name: [f"{name}-{number:04}" for number in range(4)] for name in ACCOUNTS})
    yield pool
    await pool.close()


async def tell(conn: Connection, world: World, txs: list[Tx]) -> None:
    """Record these transactions where they are now, in pieces and in any order."""
    pieces: list[SeenCoin | SeenSpend] = []
    for tx in txs:
        pieces += [*world.coins_of(tx), *world.spends_of(tx)]
    world.chance.shuffle(pieces)
    while pieces:
        size = world.chance.randint(1, len(pieces))
        page, pieces = pieces[:size], pieces[size:]
        for _ in range(world.chance.choice([1, 1, 2])):
            async with conn.transaction():
                await record_in_tx(
                    conn,
                    [each for each in page if isinstance(each, SeenCoin)],
                    [each for each in page if isinstance(each, SeenSpend)],
                    unmined=[],
                    gone=[],
                )


async def move(conn: Connection, world: World) -> None:
    """One transaction changes its place: into a block, back to the mempool, out of both, or back again."""
    tx = world.chance.choice(list(world.txs.values()))
    place = world.chance.choice(["mined", "mempool", "gone", "unmined"])
    if place == "gone":
        tx.alive, tx.height = False, None
    elif place == "unmined":
        tx.height = None
    else:
        tx.alive, tx.height = True, world.chance.randint(1, 9) if place == "mined" else None
    if place in ("mined", "mempool"):
        await tell(conn, world, [tx])
        return
    async with conn.transaction():
        await record_in_tx(conn, [], [], unmined=[tx.txid] * (place == "unmined"), gone=[tx.txid] * (place == "gone"))


async def compare(conn: Connection, world: World) -> None:
    rows = await conn.fetch("SELECT txid, vout, block_height, gone, spent_by, spent_height FROM bank.coins")
    known = {(row["txid"], row["vout"]): row for row in rows}
    assert set(known) == {(tx.txid, vout) for tx in world.txs.values() for vout in range(len(tx.outputs))}
    for outpoint, row in known.items():
        tx, spender = world.txs[outpoint[0]], world.spender(outpoint)
        assert (row["gone"], row["block_height"]) == (not tx.alive, tx.height)
        assert row["spent_by"] == spender
        assert row["spent_height"] == (None if spender is None else world.txs[spender].height)
    origins = await read_origins(conn, known)
    assert origins == {outpoint: world.origins(outpoint) for outpoint in known}
    for account in ACCOUNTS:
        free = {(each.outpoint.txid, each.outpoint.vout) for each in await list_unlinked(conn, AccountId(account), 999)}
        assert free == {
            outpoint
            for outpoint, row in known.items()
            if row["block_height"] is not None
            and row["spent_by"] is None
            and not origins[outpoint] & {account, UNKNOWN}
        }


@pytest.mark.parametrize("seed", range(8))
async def test_origins_come_out_right_in_whatever_order_they_are_recorded(pool: Pool, seed: int) -> None:
    world = World(random.Random(seed))
    async with pool.acquire() as conn:
        world.grow(3)
        for tx in world.txs.values():
            tx.inputs, tx.alive, tx.height = [], True, 1
            async with conn.transaction():
                await record_opening_in_tx(conn, world.coins_of(tx))
            world.opening |= {(tx.txid, vout) for vout in range(len(tx.outputs))}
        for generation in range(4):
            before = set(world.txs)
            world.grow(8)
            new = [tx for txid, tx in world.txs.items() if txid not in before]
            for tx in new:
                tx.alive, tx.height = True, world.chance.choice([None, generation + 2])
            await tell(conn, world, new)
            await settle_rivals(conn, world)
            await compare(conn, world)
        for _ in range(_ROUNDS):
            await move(conn, world)
        await settle_rivals(conn, world)
        await compare(conn, world)


async def settle_rivals(conn: Connection, world: World) -> None:
    """Of all living transactions that spend one output, let only one stay."""
    for outpoint in {each for tx in world.txs.values() for each in tx.inputs}:
        living = [tx for tx in world.txs.values() if tx.alive and outpoint in tx.inputs]
        for tx in living[1:]:
            tx.alive, tx.height = False, None
            async with conn.transaction():
                await record_in_tx(conn, [], [], unmined=[], gone=[tx.txid])
