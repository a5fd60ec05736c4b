"""Anything that happens to a chain and to the bank's processes, in any order: at rest the books say what bitcoind says.

For each user, whatever came before:

    available − owed = confirmed outputs − spent        incoming = unconfirmed outputs
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from infra.local.bitcoin_rpc import HOT, RpcError
from infra.local.chain.payer import Sent, satoshi
from infra.local.parts.store import Failed
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.deposit.depositor import Depositor

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

STEPS, USERS = 14, 3


@dataclass
class Story:
    """One run, repeatable by its seed but for the moments at which the bank looks."""

    hot: HotBank
    chance: random.Random
    users: list[Depositor] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)
    tips: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    async def begin(self) -> None:
        for _ in range(USERS):
            user = await self.hot.user()
            self.users.append(user)
            self.addresses[user.id], self.spent[user.id] = await self.hot.address(user), 0

    async def step(self) -> None:
        happens: list[Callable[[], Awaitable[None]]] = [
            *(self.pay, self.pay, self.mine, self.mine, self.bump, self.evict, self.bring_back, self.spend),
            *(self.reorganise, self.reorganise, self.take_up_an_old_tip, self.kill_worker, self.kill_bitcoind),
        ]
        one = self.chance.choice(happens)
        self.told.append(one.__name__)
        await one()
        if self.chance.random() < 0.5:  # else the next thing happens before anybody has looked
            await self.hot.at_rest()

    async def pay(self) -> None:
        payments = [
            (self.addresses[self.chance.choice(self.users).id], self.chance.randint(2_000, 90_000))
            for _ in range(self.chance.choice([1, 1, 2, 3, 12]))
        ]
        self.sent.append(self.chance.choice(await asyncio.to_thread(self.hot.chain.pay_many, payments)))

    async def mine(self) -> None:
        self.tips += await self.hot.mine(self.chance.randint(1, 2))

    async def bump(self) -> None:
        """By fee, with another amount, or to somebody else."""
        amount_sat = self.chance.choice([None, self.chance.randint(2_000, 90_000)])
        to = self.chance.choice([None, None, self.addresses[self.chance.choice(self.users).id]])
        to = await asyncio.to_thread(self.hot.chain.address, "stranger") if self.chance.random() < 0.2 else to
        rate = 50 + 10 * len(self.told)
        for sent in reversed(self.sent):
            try:
                self.sent.append(
                    await asyncio.to_thread(
                        partial(self.hot.chain.bump, sent, fee_rate=rate, amount_sat=amount_sat, to=to)
                    )
                )
            except RpcError:  # it is in a block
                continue
            return

    async def evict(self) -> None:
        mempool = await asyncio.to_thread(self.hot.chain.mempool)
        if mempool:
            self.evicted.append(await asyncio.to_thread(self.hot.chain.evict, self.chance.choice(sorted(mempool))))

    async def bring_back(self) -> None:
        if self.evicted:
            try:
                await asyncio.to_thread(self.hot.chain.send, self.chance.choice(self.evicted))
            except RpcError:
                return  # it is in a block, or another one has its place

    async def spend(self) -> None:
        user = self.chance.choice(self.users)
        available, _ = await self.hot.money(user)
        if available > 1:
            amount_sat = self.chance.randint(1, available)
            try:
                await self.hot.spend(user, amount_sat)
            except Exception:  # noqa: BLE001 - it was taken back in this moment
                return
            self.spent[user.id] += amount_sat

    async def reorganise(self) -> None:
        depth = self.chance.randint(1, 4)
        mined = [sent for sent in self.sent if self.chance.random() < 0.4]
        conflicts = [
            await asyncio.to_thread(self.hot.chain.double_spend, sent) for sent in mined if self.chance.random() < 0.5
        ]
        left_out = [sent.txid for sent in mined]
        self.tips.append(await asyncio.to_thread(self.hot.chain.tip))
        try:
            self.tips += await asyncio.to_thread(
                lambda: self.hot.chain.reorg(depth, without=left_out, with_=conflicts[:1])
            )
        except (Failed, RpcError):  # the coins were spent below the fork
            return

    async def take_up_an_old_tip(self) -> None:
        if self.tips:
            tip = self.chance.choice(self.tips)
            header = await asyncio.to_thread(self.hot.chain.call, "getblockheader", tip)
            if await asyncio.to_thread(self.hot.chain.height) - header["height"] < 8:
                self.tips += await asyncio.to_thread(self.hot.chain.come_back, tip)

    async def kill_worker(self) -> None:
        await self.hot.worker.kill()

    async def kill_bitcoind(self) -> None:
        await asyncio.to_thread(self.hot.chain.kill)
        await asyncio.to_thread(self.hot.chain.start)

    async def agreed(self) -> bool | None:
        """Whether each user has what bitcoind has."""
        for user in self.users:
            asked = ("listunspent", 0, 9999999, [self.addresses[user.id]], True)
            there = await asyncio.to_thread(partial(self.hot.chain.call, *asked, wallet=HOT))
            confirmed = sum(satoshi(each["amount"]) for each in there if each["confirmations"] > 0)
            waiting = sum(satoshi(each["amount"]) for each in there if each["confirmations"] == 0)
            available, incoming = await self.hot.money(user)
            owed = sum(amount for status, amount in await self.hot.receivables(user) if status == "open")
            if (available - owed, incoming) != (confirmed - self.spent[user.id], waiting):
                return None
        return True


@pytest.mark.parametrize("seed", range(4))
async def test_at_rest_the_books_say_what_bitcoind_says(hot: HotBank, seed: int) -> None:
    story = Story(hot, random.Random(seed))
    await story.begin()
    for _ in range(STEPS):
        await story.step()
    await hot.at_rest()
    try:
        await eventually(story.agreed, "books and bitcoind to agree on each user", limit_s=20)
    except AssertionError as error:
        raise AssertionError(f"{error}, after {story.told}") from None
