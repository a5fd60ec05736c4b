"""Random chains against the books: whatever happens between two looks, the money is what an oracle says.

Payments are replaced, stolen back, evicted, mined, reorganised away and brought back; their owners spend, are locked,
and leave; operators release and forgive. Looks and bookings come at any moment. Hypothesis shortens what fails.
"""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fixtures.postgres import Database
from tests.helpers.chain_model.bank import ModelBank
from tests.helpers.chain_model.node import FakeBitcoind, Tx, new_hash
from tests.helpers.chain_model.oracle import Deposit, Person

pytestmark = [pytest.mark.property, pytest.mark.timeout(600)]

AMOUNTS = [500, 50_000, 70_000, 2_000_000, 150_000_000]
"""Below the minimum; small; with three confirmations; above the limits."""
_WEIGHTS = {
    "wait": 1, "pay": 6, "pay both": 2, "replace": 6, "steal": 2, "evict": 2, "send again": 4, "mine": 10,
    "mine other": 4, "reorganise": 8, "leave": 1, "come back": 2, "look": 10, "look meanwhile": 6, "rescan": 1,
    "book": 10, "book together": 6, "spend": 6, "spend all": 4, "unlock": 2, "close": 2, "release": 4, "forgive": 1,
}  # fmt: skip
_STEPS = [name for name, weight in _WEIGHTS.items() for _ in range(weight)]
_BLOCKS_BEFORE = 60
_MEANWHILE = ["mine", "mine other", "reorganise", "reorganise", "come back", "replace", "steal", "evict", "send again"]
Move = tuple[str, int, int]


@dataclass
class Payment:
    """What a person would call one: all its versions spend the same coin."""

    number: int
    coin: str
    lines: list[str]
    """The addresses that it pays."""
    versions: list[Tx] = field(default_factory=list)


@dataclass
class World:
    """Takes the moves."""

    bank: ModelBank
    node: FakeBitcoind
    addresses: list[str]
    payments: list[Payment] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Tips of branches that were left."""

    async def take(self, name: str, first: int, second: int) -> None:
        await getattr(self, "_" + name.replace(" ", "_"))(first, second)

    async def rest(self) -> None:
        await self.bank.look()
        await self.bank.advance()

    async def _wait(self, _first: int, _second: int) -> None:
        """Nothing happens: what a shortened run is filled with."""

    async def _pay(self, first: int, second: int) -> None:
        self._begin([self.addresses[first % len(self.addresses)]], second)

    async def _pay_both(self, first: int, second: int) -> None:
        """Two outputs of one transaction, perhaps to the same address."""
        lines = [self.addresses[each % len(self.addresses)] for each in (first, first * second)]
        self._begin(lines, second)

    async def _replace(self, first: int, second: int) -> None:
        if payment := self._payment(first):
            self.node.broadcast(self._version(payment, second))

    async def _steal(self, first: int, _second: int) -> None:
        if payment := self._payment(first):
            self.node.broadcast(self._theft(payment))

    async def _evict(self, first: int, _second: int) -> None:
        if payment := self._payment(first):
            for version in payment.versions:
                self.node.evict(version.txid)

    async def _send_again(self, first: int, second: int) -> None:
        if payment := self._payment(first):
            self.node.broadcast(payment.versions[second % len(payment.versions)])

    async def _mine(self, first: int, _second: int) -> None:
        for _ in range(1 + first % 3):
            self.node.mine()

    async def _mine_other(self, first: int, second: int) -> None:
        """A block with a version of its own choice."""
        if payment := self._payment(first):
            self.node.mine([payment.versions[second % len(payment.versions)].txid])

    async def _reorganise(self, first: int, second: int) -> None:
        """A longer branch. For each payment in the blocks that are left: mined again, waiting, gone, or replaced."""
        chance, depth = random.Random(first * 1_000 + second), 1 + first % 7
        self.left.append(self.node.tip.hash)
        before = self.node.tip.height
        self.node.leave(depth)
        fates = [chance.choice(["again", "waits", "gone", "other", "stolen"]) for _ in self.payments]
        mined: list[str] = []
        for payment, fate in zip(self.payments, fates, strict=True):
            waiting = [each.txid for each in payment.versions if each.txid in self.node.mempool]
            match fate:
                case "again":
                    mined += waiting
                case "gone":
                    for txid in waiting:
                        self.node.evict(txid)
                case "other" if waiting:
                    other = self._version(payment, second)
                    self.node.broadcast(other)
                    mined += [other.txid] * (second % 2)
                case "stolen" if waiting:
                    theft = self._theft(payment)
                    self.node.broadcast(theft)
                    mined.append(theft.txid)
                case _:
                    pass
        self.node.mine(mined)
        while self.node.tip.height <= before:
            self.node.mine([])

    async def _leave(self, first: int, _second: int) -> None:
        self.left.append(self.node.tip.hash)
        self.node.leave(1 + first % 3)

    async def _come_back(self, first: int, _second: int) -> None:
        if self.left:
            there = self.left[first % len(self.left)]
            self.left.append(self.node.tip.hash)
            self.node.go_to(there)

    async def _look(self, _first: int, _second: int) -> None:
        await self.bank.look()

    async def _look_meanwhile(self, first: int, second: int) -> None:
        """The chain moves in the middle of the look; perhaps it is as before when the look is over."""
        there = self.node.tip.hash

        async def moves() -> None:
            await self.take(_MEANWHILE[first % len(_MEANWHILE)], second, first)

        def back() -> None:
            if second % 2:
                self.node.go_to(there)
            if second % 4 > 1:
                for txid in list(self.node.mempool):
                    self.node.evict(txid)

        await self.bank.look(meanwhile=moves, then=back)

    async def _book(self, _first: int, _second: int) -> None:
        await self.bank.advance()

    async def _book_together(self, _first: int, _second: int) -> None:
        await self.bank.advance(together=True)

    async def _rescan(self, first: int, _second: int) -> None:
        await self.bank.look(rescan_from=first % (self.node.tip.height + 1))

    async def _spend(self, first: int, second: int) -> None:
        await self.bank.spend(self._person(first), 1 + second % 100)

    async def _spend_all(self, first: int, _second: int) -> None:
        await self.bank.spend(self._person(first), 100)

    async def _unlock(self, first: int, _second: int) -> None:
        await self.bank.unlock(self._person(first))

    async def _close(self, first: int, _second: int) -> None:
        await self.bank.spend(self._person(first), 100)
        await self.bank.close(self._person(first))

    async def _release(self, first: int, second: int) -> None:
        if deposit := self._deposit(first):
            await self.bank.release(deposit, self._person(second))

    async def _forgive(self, first: int, _second: int) -> None:
        if deposit := self._deposit(first):
            await self.bank.forgive(deposit)

    def _begin(self, lines: list[str], amount: int) -> None:
        payment = Payment(len(self.payments), new_hash(), lines)
        self.payments.append(payment)
        self.node.broadcast(self._version(payment, amount))

    def _version(self, payment: Payment, amount: int) -> Tx:
        sats = AMOUNTS[amount % len(AMOUNTS)]
        outputs = tuple((address, sats + place) for place, address in enumerate(payment.lines))
        return self._made(payment, Tx(new_hash(), frozenset([payment.coin]), outputs))

    def _theft(self, payment: Payment) -> Tx:
        return self._made(payment, Tx(new_hash(), frozenset([payment.coin]), ((None, 1_000),)))

    def _made(self, payment: Payment, tx: Tx) -> Tx:
        payment.versions.append(tx)
        self.bank.know(payment.number, tx)
        return tx

    def _payment(self, number: int) -> Payment | None:
        return self.payments[number % len(self.payments)] if self.payments else None

    def _person(self, number: int) -> Person:
        return self.bank.oracle.people[number % len(self.bank.oracle.people)]

    def _deposit(self, number: int) -> Deposit | None:
        deposits = list(self.bank.oracle.deposits.values())
        return deposits[number % len(deposits)] if deposits else None


_MOVES = st.lists(st.tuples(st.sampled_from(_STEPS), st.integers(0, 50), st.integers(0, 50)), min_size=25, max_size=80)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
@given(moves=_MOVES)
async def test_the_books_are_what_the_chain_says(shared_ledger_db: Database, moves: list[Move]) -> None:
    node = FakeBitcoind()
    for _ in range(_BLOCKS_BEFORE):
        node.mine()
    async with ModelBank.open(shared_ledger_db, node) as bank:
        people = [await bank.person() for _ in range(3)]
        addresses = [await bank.address(each) for each in (*people, people[0], None)]
        world = World(bank, node, addresses)
        for name, first, second in moves:
            await world.take(name, first, second)
        await world.rest()


async def test_a_block_that_no_look_has_followed_is_looked_at_again(shared_ledger_db: Database) -> None:
    """Two reorganisations within one look: a transaction is found in a block that is gone when the next look begins."""
    node = FakeBitcoind()
    for _ in range(_BLOCKS_BEFORE):
        node.mine()
    fork = node.tip.hash
    async with ModelBank.open(shared_ledger_db, node) as bank:
        address = await bank.address(await bank.person())
        coin = frozenset([new_hash()])
        paid, theft = Tx(new_hash(), coin, ((address, 50_000),)), Tx(new_hash(), coin, ((None, 1_000),))
        for tx in (paid, theft):
            bank.know(0, tx)
        node.broadcast(paid)
        node.mine()
        await bank.look()
        await bank.advance()
        node.txs[theft.txid] = theft
        node.go_to(fork)
        node.mine([theft.txid])
        node.mine()
        stolen = node.tip.hash

        async def returns() -> None:
            node.go_to(fork)
            node.mine([paid.txid])

        await bank.look(meanwhile=returns, then=lambda: node.go_to(stolen))
        await bank.advance()
