"""On chain: thousands of deposits in one block, and lone ones. Who pays meanwhile: `bystander.py`.

A deposit counts as credited when a query sees it so. The time runs from the moment at which the miner begins the block,
so bitcoind's own work is part of it. Every deposit pays an address of its own.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

from infra.bench.chain.wallet import Crowd, Outsider, give_addresses, list_owners
from infra.bench.contest import Begin, Contest, Contestant, Work, Wrong, eventually, measured
from infra.bench.figures import Goal
from infra.bench.http import Wire
from infra.bench.machine import Meter
from infra.bench.people import People, expect
from infra.bench.report import Fact
from infra.bench.servers import Servers

COMPONENTS = ("api", "worker", "temporal", "postgres", "redis", "bitcoind")
"""Whose CPU a deposit costs. The Lightning nodes read every block as well, but not for its sake."""
_REMEMBERING = ("bitcoind", "worker", "api", "postgres")
FEW_ADDRESSES = 1_000
MOST_S = 60.0
"""The goal for a crowd: from its block to the last credit."""
BYSTANDERS = 16
"""So many users pay each other and get no deposits; all others do."""
_AMOUNT_SAT = 20_000
_LOOK_EVERY_S, _LOOK_AT_ONE_S = 0.1, 0.01
_LIMIT_S = 300.0
_CREDITED, _SEEN = "status = 'credited'", "hold_ref IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything, in each round."""

    rounds: int
    crowd: int
    lone: int
    addresses: int


WHOLE = Size(rounds=2, crowd=10_000, lone=30, addresses=100_000)
QUICK = Size(rounds=1, crowd=500, lone=10, addresses=3_000)


class Bank:
    """The bank that is paid, and the miner who pays it. One for all contests of the scenario."""

    def __init__(self, servers: Servers, people: People) -> None:
        self.servers, self.people = servers, people
        self.outsider = Outsider(servers)
        self.bystanders, self.payees = people.everybody[:BYSTANDERS], people.everybody[BYSTANDERS:]

    async def crowd(self, size: int) -> Crowd:
        """Payments to so many addresses."""
        return await self.promise(await list_owners(self.servers, self.payees, size))

    async def promise(self, owners: Mapping[str, int]) -> Crowd:
        """Payments to these addresses, signed and not broadcast."""
        return await asyncio.to_thread(self.outsider.sign, owners, _AMOUNT_SAT)

    async def deposit(self, crowd: Crowd, *, seen: bool) -> list[float]:
        """Mine it in one block. Returns the milliseconds until each deposit was credited, once all are.

        With `seen`, the block comes when all of it is incoming.
        """
        if seen:
            await self.broadcast(crowd)
        async with self.servers.books() as connection:
            if seen:
                await follow(connection, crowd.txids, crowd.size, _SEEN)
            began = await self.mine(crowd, seen=seen)
            took_ms = await follow(connection, crowd.txids, crowd.size, _CREDITED, began=began)
        for each in crowd.owners.values():
            self.people.received(each, 1000 * _AMOUNT_SAT)
        return took_ms

    async def is_followed(self) -> bool:
        """Whether the bank has seen the last block, and without a problem."""
        tip = await asyncio.to_thread(self.outsider.tip)
        async with self.servers.books() as connection:
            return bool(await connection.fetchval("SELECT tip_hash = $1 AND problem IS NULL FROM bank.chains", tip))

    async def broadcast(self, crowd: Crowd) -> None:
        """Into the mempool."""
        for each in crowd.sent:
            await asyncio.to_thread(self.outsider.send, each.hex)

    async def mine(self, crowd: Crowd, *, seen: bool) -> float:
        """Into one block, from the mempool or from nowhere. Returns when the miner began it."""
        address = await asyncio.to_thread(self.outsider.address, self.outsider.payer)
        contents = crowd.txids if seen else [each.hex for each in crowd.sent]
        began = time.monotonic()
        await asyncio.to_thread(self.outsider.call, "generateblock", address, contents)
        return began


class InOneBlock(Contestant):
    """A crowd. With `seen`, all of it waits in the mempool before its block, and that work is part of its CPU."""

    components = COMPONENTS

    def __init__(self, bank: Bank, size: int, *, seen: bool) -> None:
        self.name = f"{size:,} in one block, {'seen before' if seen else 'not seen before'}"
        self._bank, self._size, self._seen = bank, size, seen

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:  # noqa: ARG002 - it takes what it takes
        crowd = await self._bank.crowd(self._size)
        begin()
        return crowd_work(await self._bank.deposit(crowd, seen=self._seen))

    async def check(self) -> None:
        await self._bank.people.check()


class Lone(Contestant):
    """One deposit after the other, each to a new address and in a block of its own."""

    name, components = "one in a block", COMPONENTS

    def __init__(self, bank: Bank, count: int) -> None:
        self._bank, self._count = bank, count
        self._wire = Wire(bank.servers.stack.home.ports()["api-1"])

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:  # noqa: ARG002 - it takes what it takes
        took_ms: list[float] = []
        await self._deposit()
        begin()
        began = time.monotonic()
        for _ in range(self._count):
            took_ms += await self._deposit()
        return measured(took_ms, time.monotonic() - began)

    async def _deposit(self) -> list[float]:
        bank = self._bank
        person = random.choice(bank.payees)
        key = f"Bearer {person.key}"
        asked = await self._wire.ask("POST", "/v1/addresses", {"wallet_id": person.wallet_id}, Authorization=key)
        address = expect(asked)["address"]
        return await bank.deposit(await bank.promise({address: person.number}), seen=True)

    async def check(self) -> None:
        await self._bank.people.check()


async def follow(
    connection: asyncpg.Connection, txids: Sequence[str], size: int, condition: str, *, began: float | None = None
) -> list[float]:
    """The milliseconds until each output of these transactions fulfilled the condition. Raises Wrong."""
    began = time.monotonic() if began is None else began
    query = f"SELECT count(*) FROM bank.deposits WHERE txid = ANY($1) AND {condition}"  # noqa: S608 - our own
    took_ms: list[float] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(_LIMIT_S):
            while len(took_ms) < size:
                count: int = await connection.fetchval(query, txids)
                now_ms = 1000 * (time.monotonic() - began)
                took_ms += [now_ms] * (count - len(took_ms))
                await asyncio.sleep(_LOOK_EVERY_S if size > 1 else _LOOK_AT_ONE_S)
    if len(took_ms) != size:
        raise Wrong(f"of {size} deposits {len(took_ms)} came as far as {condition} within {_LIMIT_S:.0f} s")
    return took_ms


def crowd_work(took_ms: Iterable[float]) -> Work:
    """The report of a crowd. It took as long as its last deposit."""
    all_ms = list(took_ms)
    return measured(all_ms, max(all_ms) / 1000)


def crowds(bank: Bank, size: int) -> Contest:
    """A crowd that was seen in the mempool, and one that was not."""
    contestants = [InOneBlock(bank, size, seen=seen) for seen in (True, False)]
    goals = [Goal(each.name, measure="whole", at_most=MOST_S) for each in contestants]
    goals += [Goal(each.name, measure="p99") for each in contestants]
    return Contest("deposits in one block", "credits/s", contestants, goals)


def lone(bank: Bank, count: int) -> Contest:
    """Deposits one by one."""
    contestant = Lone(bank, count)
    goals = [Goal(contestant.name, measure="p50"), Goal(contestant.name, measure="p99")]
    return Contest("lone deposits", "deposits/s", [contestant], goals)


async def measure_memory(bank: Bank, meter: Meter, addresses: int) -> list[Fact]:
    """Megabytes with so many addresses, and how long it took to make them. bitcoind is measured after a restart."""
    took_s = await give_addresses(bank.servers, bank.payees, addresses)
    await eventually(bank.is_followed, "the pump to be at the tip")
    used = meter.memory_mb()
    when = f"with {addresses:,} addresses"
    facts = [Fact(f"memory {when}: {name}", used[name], "MB") for name in _REMEMBERING]
    return [*facts, Fact(f"until the wallet had {addresses:,} addresses", took_s, "s")]
