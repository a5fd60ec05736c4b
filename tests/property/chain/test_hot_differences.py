"""Random wallets, books and accidents: each difference is found by its name and amount, and nothing is left over.

The rows are real and read by the real queries. bitcoind is a list of coins that the test makes.
"""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from activities.reconciliation.coin import Asked, Match, Matcher
from engine.bank.chain.coin import SeenCoin, SeenSpend, record_in_tx, record_opening_in_tx
from engine.bank.chain.cut import read_books
from engine.clients.bitcoind.answer import Coin, CoinCut, Sighting
from engine.domain.deposit import Block, Sight
from engine.ledger.book import credit, debit
from engine.ledger.database import Connection, Pool, open_pool, snapshot
from tests.fixtures.postgres import Database
from tests.helpers.hot_wallet.coin import give_addresses
from tests.helpers.ledger.bank import open_bank

pytestmark = pytest.mark.property

TIP = 1_000
NOBODY, DEPOSIT, OPENING, CHANGE = "nobody", "address-a1", "opening", "change"
_DEPOSIT = """
INSERT INTO bank.deposits(id, txid, vout, address, wallet_id, account_id, amount_sat, sight, block_height, block_hash,
       required, deep, workflow_id, status, conf_ref, place, final_at)
VALUES ('dep_' || $1::text || $2::int, $1, $2, $3, 'wal_acc_a', 'acc_a', $4, $5, $6,
        CASE WHEN $6::int IS NULL THEN NULL ELSE $1 END, 1, 6, 'w',
        CASE WHEN $7::boolean THEN 'credited' ELSE 'pending' END,
        CASE WHEN $7 THEN 'chain:' || $1::text || ':' || $2::int || ':conf:1' END, CASE WHEN $7 THEN 'wallet' END,
        CASE WHEN $7 AND $8::boolean THEN clock_timestamp() END)"""

_PAYOUT = """
INSERT INTO bank.payouts(id, wallet, kind, speed, status, fee_booked_sat, booked_ref, workflow_id, block_height,
       confirmed_version, final_at)
VALUES ('payout_' || $1, 'hot', 'consolidation', 'slow', $2, coalesce($3::bigint, 0),
        CASE WHEN $3 IS NULL THEN NULL ELSE 'batch:' || $1 END, 'w', CASE WHEN $2 = 'final' THEN 1 END,
        CASE WHEN $2 = 'final' THEN 1 END, CASE WHEN $2 = 'final' THEN clock_timestamp() END)"""
_VERSION = """
INSERT INTO bank.payout_versions(payout_id, number, kind, rate_sat_kvb, fee_sat, weight, psbt, raw, txid, signed_at)
VALUES ('payout_' || $1, 1, 'first', 1000, $2, 400, 'psbt', '00', $1, clock_timestamp())"""


@dataclass
class Out:
    """A coin as it really is."""

    txid: str
    vout: int
    sat: int
    kind: str
    height: int | None
    own: bool = False
    booked: bool = False
    final: bool = False
    spent_by: str | None = None
    lost: bool = False

    @property
    def point(self) -> tuple[str, int]:
        return self.txid, self.vout

    @property
    def name(self) -> str:
        return f"{self.txid}:{self.vout}"

    @property
    def stands(self) -> bool:
        """Whether it is the wallet's beyond doubt."""
        return self.height is not None or self.own or self.spent_by is not None


@dataclass
class Payout:
    """A spend of ours. It pays nobody: all that leaves is its fee."""

    txid: str
    leaves: int
    """By its plan."""
    booked: int | None
    over: bool
    sent: bool

    @property
    def status(self) -> str:
        return "final" if self.over else "signed" if self.booked is None else "broadcast"


@dataclass
class World:
    chance: random.Random
    coins: list[Out] = field(default_factory=list)
    payouts: dict[str, Payout] = field(default_factory=dict)

    def grow(self) -> None:
        for _ in range(self.chance.randint(5, 30)):
            kind = self.chance.choice([DEPOSIT, DEPOSIT, DEPOSIT, NOBODY, OPENING])
            mined = kind == OPENING or self.chance.random() < 0.8
            coin = self._coin(self._hash(), 0, kind, self.chance.randint(1, TIP) if mined else None)
            self.coins.append(coin)
        for _ in range(self.chance.randint(0, 5)):
            self._spend()
        for _ in range(self.chance.randint(0, 2)):
            self._pay_out(self._hash(), sent=False)
        for coin in self.coins:
            unspent = coin.spent_by is None and coin.height is not None
            coin.lost = unspent and coin.kind != NOBODY and (coin.booked or coin.kind != DEPOSIT) and self._rarely()

    def _spend(self) -> None:
        free = [each for each in self.coins if each.spent_by is None]
        inputs = self.chance.sample(free, min(len(free), self.chance.randint(1, 4)))
        txid, height = self._hash(), self.chance.choice([None, TIP])
        left = sum(each.sat for each in inputs)
        for vout, kind in enumerate(self.chance.choices([CHANGE, DEPOSIT], [3, 1], k=self.chance.randint(0, 2))):
            coin = self._coin(txid, vout, kind, height)
            coin.sat, coin.own = max(1, left // 3), True
            self.coins.append(coin)
        for each in inputs:
            each.spent_by = txid
        if self.chance.random() < 0.6:
            self._pay_out(txid, sent=True)

    def _pay_out(self, txid: str, *, sent: bool) -> None:
        """Booked or not, with the fee that it pays or another one; one that is over perhaps wrongly."""
        leaves = (self._left(txid) if sent else 0) or self.chance.randint(1, 1_000)
        if self._rarely():
            leaves += 1_000  # one of its outputs is the wallet's own
        other = leaves + self.chance.randint(1, 500)
        booked = self.chance.choice([None, leaves, leaves, other])
        over = booked is not None and self.chance.random() < 0.3
        self.payouts[txid] = Payout(txid, leaves, booked, over, sent)

    def _left(self, spender: str) -> int:
        left = sum(each.sat for each in self.coins if each.spent_by == spender)
        return left - sum(each.sat for each in self.coins if each.txid == spender and each.kind == CHANGE)

    def _coin(self, txid: str, vout: int, kind: str, height: int | None) -> Out:
        coin = Out(txid, vout, self.chance.randint(1, 10**6), kind, height)
        if kind == DEPOSIT:
            coin.booked = self.chance.random() < (0.7 if height is not None else 0.1)
            coin.final = coin.booked and height is not None and self.chance.random() < 0.7
        return coin

    def _rarely(self) -> bool:
        return self.chance.random() < 0.1

    def _hash(self) -> str:
        return self.chance.randbytes(32).hex()

    def height_of(self, spender: str) -> int | None:
        return next((each.height for each in self.coins if each.txid == spender), TIP)

    def cut(self) -> CoinCut:
        """What bitcoind lists."""
        return CoinCut(
            tip=Block(height=TIP, hash="0" * 64),
            coins=tuple(
                Coin(
                    txid=each.txid,
                    vout=each.vout,
                    amount_sat=each.sat,
                    address=each.kind,
                    confirmations=0 if each.height is None else TIP + 1 - each.height,
                    safe=each.height is not None or (each.own and self.chance.random() < 0.5),
                )
                for each in self.coins
                if each.spent_by is None and not each.lost
            ),
        )

    def answers(self, match: Match) -> Asked:
        """What bitcoind says of the coins that it does not list: it has no key for them."""
        points = [(each.txid, each.vout) for each in match.missing]
        return Asked(
            sights={txid: Sighting(kind=Sight.GONE, known=False) for txid, _vout in points},
            unspent=dict.fromkeys(points, True),
        )

    def findings(self) -> set[tuple[str, str, int]]:
        """What must be found."""
        found = {("coin_without_key", each.name, each.sat) for each in self.coins if each.lost}
        found |= {
            ("coin_not_in_books", each.name, -each.sat) for each in self.coins if each.kind == NOBODY and each.stands
        }
        for spender in {each.spent_by for each in self.coins if each.spent_by}:
            payout = self.payouts.get(spender)
            if payout is None:
                found.add(("coin_spent", spender, self._left(spender)))
            else:
                found.add(("amount_differs", spender, self._left(spender) - payout.leaves))
        found |= {
            ("amount_differs", each.txid, (each.leaves if each.sent else 0) - (each.booked or 0))
            for each in self._known_payouts()
            if each.over
        }
        return {each for each in found if each[2]}

    def in_flight(self) -> dict[str, int]:
        """What must be in flight, by outpoint."""
        deposits = {
            each.name: each.sat if each.booked else -each.sat
            for each in self.coins
            if each.kind == DEPOSIT and each.booked != each.stands
        }
        payouts = {
            each.txid: (each.leaves if each.sent else 0) - (each.booked or 0)
            for each in self.payouts.values()
            if not each.over
        }
        return deposits | {txid: sat for txid, sat in payouts.items() if sat}

    def _known_payouts(self) -> list[Payout]:
        """A payout that is over, and that nobody has seen lately, is history."""
        return [each for each in self.payouts.values() if each.sent or not each.over]

    def books_sat(self) -> int:
        came = sum(each.sat for each in self.coins if each.booked or each.kind == OPENING)
        return came - sum(each.booked or 0 for each in self._known_payouts())


@pytest_asyncio.fixture
async def pool(ledger_db: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_db.app_dsn, min_size=0, max_size=2)
    async with pool.acquire() as conn:
        await give_addresses(conn, {"acc_a": [DEPOSIT]})
        await conn.execute(
            """INSERT INTO bank.chains(wallet, network, anchor_height, anchor_hash, tip_height, tip_hash, tip_work,
                   adopted_height) VALUES ('hot', 'regtest', 0, $1, $2, $1, $1, 0)""",
            "0" * 64,
            TIP,
        )
    yield pool
    await pool.close()


async def write(conn: Connection, world: World) -> None:
    """What the pump and the deposits' workflows would have written."""
    seen = {
        each.point: SeenCoin(
            txid=each.txid,
            vout=each.vout,
            amount_sat=each.sat,
            address=each.kind,
            change=each.kind == CHANGE,
            block_height=each.height,
        )
        for each in world.coins
    }
    spends = [
        SeenSpend(txid=each.spent_by, outpoint=each.point, block_height=world.height_of(each.spent_by))
        for each in world.coins
        if each.spent_by is not None
    ]
    async with conn.transaction():
        await record_opening_in_tx(conn, [seen[each.point] for each in world.coins if each.kind == OPENING])
        await record_in_tx(conn, list(seen.values()), spends, unmined=[], gone=[])
        for each in world.coins:
            if each.kind == DEPOSIT:
                sight = "mempool" if each.height is None else "mined"
                row = (each.txid, each.vout, each.kind, each.sat, sight, each.height, each.booked, each.final)
                await conn.execute(_DEPOSIT, *row)
        for payout in world.payouts.values():
            await conn.execute(_PAYOUT, payout.txid, payout.status, payout.booked)
            await conn.execute(_VERSION, payout.txid, payout.leaves)


@pytest.mark.parametrize("seed", range(60))
async def test_each_difference_is_found_by_name_and_nothing_is_left(pool: Pool, seed: int) -> None:
    world = World(random.Random(seed))
    world.grow()
    bank = await open_bank(pool)
    if world.books_sat():
        more, less = ("hot", "capital") if world.books_sat() > 0 else ("capital", "hot")
        msat = 1000 * abs(world.books_sat())
        await bank.post("booked", [debit(bank[more], msat), credit(bank[less], msat)])
    async with pool.acquire() as conn:
        await write(conn, world)
    cut = world.cut()
    async with snapshot(pool) as conn:
        books = await read_books(conn, "hot", cut.coins, datetime.fromtimestamp(0, UTC))
    asked = world.answers(Matcher(cut, books, TIP, Asked()).match())
    match = Matcher(cut, books, TIP, asked).match()
    found = {(each.kind.value, each.subject, each.amount_msat // 1000) for each in match.findings}
    assert found == world.findings()
    assert {each.ref: each.amount_msat // 1000 for each in match.account.in_flight} == world.in_flight()
    assert match.account.difference_msat == sum(each.amount_msat for each in match.findings)
    assert match.missing == []
