"""Who pays while deposits are credited, beside nobody, and beside the same blocks that pay strangers."""

import asyncio
import random
import secrets
import time
from collections.abc import Coroutine

from engine.domain import bech32
from infra.bench.chain.deposits import COMPONENTS, Bank
from infra.bench.chain.wallet import Crowd
from infra.bench.contest import Begin, Contest, Contestant, Work, measured
from infra.bench.figures import Goal
from infra.bench.http import Wire
from infra.bench.people import pay

MOST_SLOWER = 1.5
PAYMENTS_PER_S = 10
PAYMENT_MSAT = 1000
ALONE_S = 15.0


class Bystander(Contestant):
    """Payments between users without deposits, at a steady pace, each begun at its time whatever became of the last."""

    components: tuple[str, ...] = ()  # most of it would be the crowd's

    def __init__(self, bank: Bank, name: str = "@username") -> None:
        self.name = name
        self._bank = bank
        self._port = bank.servers.stack.home.ports()["api-1"]
        self._free: list[Wire] = []

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:  # noqa: ARG002 - one, at its pace
        others = await self._others(seconds)
        for _ in range(PAYMENTS_PER_S):
            await self._pay()
        begin()
        took_ms: list[float] = []
        began = time.monotonic()
        for other in others:
            took_ms += await self._pay_during(other)
        return measured(took_ms, time.monotonic() - began)

    async def _others(self, seconds: float) -> list[Coroutine[object, object, object]]:
        """What goes on beside the payments, one after the other."""
        return [asyncio.sleep(seconds)]

    async def _pay_during(self, other: Coroutine[object, object, object]) -> list[float]:
        """Payments for as long as the other work takes, and what each took."""
        took_ms: list[float] = []

        async def one() -> None:
            start = time.monotonic()
            await self._pay()
            took_ms.append(1000 * (time.monotonic() - start))

        async with asyncio.TaskGroup() as group:
            working = group.create_task(other)
            at = time.monotonic()
            while not working.done():
                group.create_task(one())
                at += 1 / PAYMENTS_PER_S
                await asyncio.wait([working], timeout=max(0.0, at - time.monotonic()))
        return took_ms

    async def _pay(self) -> None:
        wire = self._free.pop() if self._free else Wire(self._port)
        payer, payee = random.sample(self._bank.bystanders, 2)
        to = f"@{payee.username}"
        await pay(wire, self._bank.people, payer, to, payee.number, amount_msat=PAYMENT_MSAT)
        self._free.append(wire)

    async def check(self) -> None:
        await self._bank.people.check()


class Alone(Bystander):
    """With nobody else there."""

    components = COMPONENTS


class BesideCredits(Bystander):
    """Until the last credit of a crowd: once from its broadcast on, and once from its block."""

    def __init__(self, bank: Bank, size: int) -> None:
        super().__init__(bank, f"@username, {size:,} credited")
        self._size = size

    async def _others(self, seconds: float) -> list[Coroutine[object, object, object]]:  # noqa: ARG002 - as they take
        crowds = [await self._bank.crowd(self._size) for _ in range(2)]
        return [self._bank.deposit(crowd, seen=seen) for crowd, seen in zip(crowds, (True, False), strict=True)]


class BesideStrangers(Bystander):
    """The same blocks come and nothing is credited: what the nodes' own work costs on these cores."""

    def __init__(self, bank: Bank, size: int) -> None:
        super().__init__(bank, f"@username, {size:,} paid to strangers")
        self._size = size

    async def _others(self, seconds: float) -> list[Coroutine[object, object, object]]:
        crowds = [await self._bank.promise({foreign_address(): 0 for _ in range(self._size)}) for _ in range(2)]

        async def pass_by(crowd: Crowd, *, seen: bool) -> None:
            if seen:
                await self._bank.broadcast(crowd)
            await self._bank.mine(crowd, seen=seen)
            await asyncio.sleep(seconds)

        return [pass_by(crowd, seen=seen) for crowd, seen in zip(crowds, (True, False), strict=True)]


def bystanders(bank: Bank, size: int) -> Contest:
    """Payments with nobody else there, while a crowd is credited, and while the same blocks pay strangers."""
    alone, beside, passing = Alone(bank), BesideCredits(bank, size), BesideStrangers(bank, size)
    goals = [
        Goal(beside.name, alone.name, "p50", at_most=MOST_SLOWER),
        Goal(beside.name, alone.name, "p99", at_most=MOST_SLOWER),
        Goal(beside.name, passing.name, "p50", at_most=MOST_SLOWER),
        Goal(beside.name, passing.name, "p99", at_most=MOST_SLOWER),
    ]
    return Contest("payments while deposits are credited", "payments/s", [alone, beside, passing], goals)


def foreign_address() -> str:
    """Of a random key hash; regtest, SegWit version 0 (BIP173)."""
    return bech32.write("bcrt", [0, *bech32.to_words(secrets.token_bytes(20))])
