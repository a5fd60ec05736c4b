"""Payouts of one who has many coins, by several processes without Temporal: what stands at the end is proved.

await stage.sweep(prepare, others)        hold a call at each of its places, while others go on
await stage.assert_each_is_paid_once()
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from activities.payout.story import Step
from engine.bank.withdrawal import payout
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.errors import EngineError
from engine.domain.ids import PayoutId, WithdrawalId
from engine.ledger.database import transaction
from tests.helpers.chain import STRANGER, Chain
from tests.helpers.deposit.depositor import Depositor, Depositors
from tests.helpers.payout.desk import PayoutDesk
from tests.helpers.payout.late_call import LateDesk, opened_late_desk

AMOUNT_SAT, COIN_SAT = 50_000, 100_000
_COINS = 100
_RATE = 3_000
_LOCKED = """SELECT EXISTS(SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                        WHERE NOT l.granted AND a.datname = current_database())"""
_JOINS_NONE = """
INSERT INTO bank.rulebooks(name, version, content, note, set_by)
SELECT name, version + 1, jsonb_set(content, '{coins,long_term_rate}', '1000'), 'a test', 'test'
  FROM bank.rulebooks WHERE name = 'withdrawals' ORDER BY version DESC LIMIT 1"""
"""No payout takes more coins than it needs, so there are enough for many payouts."""
Fate = Literal["goes on", "dies"]


@dataclass
class Stage:
    """A bank, one who pays, and two processes."""

    bank: Depositors
    desk: PayoutDesk
    late: LateDesk
    alice: Depositor
    asked: dict[str, int] = field(default_factory=dict)
    """What each address is to get, in satoshi."""
    errors: list[str] = field(default_factory=list)

    async def opened(self, amount_sat: int = AMOUNT_SAT, *, alone: bool = True) -> WithdrawalId:
        address = await asyncio.to_thread(self.bank.chain.address, STRANGER)
        self.asked[address] = amount_sat
        return await self.desk.opened(self.alice, amount_sat, to=address, alone=alone)

    async def at(self, step: Step, amount_sat: int = AMOUNT_SAT) -> PayoutId:
        """A payout whose next step is this one."""
        await self.opened(amount_sat)
        (made,) = await self.desk.form()
        await self.steps_until(made, step)
        return made

    async def steps_until(self, made: PayoutId, step: Step = Step.WATCH) -> None:
        for _ in range(20):
            if (await self.desk.story(made)).step is step:
                return
            await self.desk.step(made)
        raise AssertionError(f"{made} does not come to {step}: {await self.desk.story(made)}")

    async def wants_bump(self, made: PayoutId, rate_sat_kvb: int | None = None) -> None:
        versions = len((await self.desk.story(made)).versions)
        async with transaction(self.bank.pool) as conn:
            await payout.set_bump_in_tx(conn, made, rate_sat_kvb or _RATE * 2**versions)

    async def booked_and_bumped(self, made: PayoutId) -> None:
        await self.steps_until(made)
        await self.wants_bump(made)
        await self.desk.step(made)
        await self.steps_until(made)
        assert (await self.desk.story(made)).payout.problem is None

    async def mined(self, blocks: int = 1) -> None:
        await asyncio.to_thread(self.bank.chain.mine, blocks)
        await self.bank.follow()

    async def mined_alone(self, made: PayoutId) -> None:
        """A block has its first version and nothing else."""
        raw = (await self.desk.story(made)).versions[0].raw
        assert raw is not None
        await asyncio.to_thread(lambda: self.bank.chain.mine(txs=[raw]))
        await self.bank.follow()

    async def sweep(
        self,
        prepare: Callable[[], Awaitable[PayoutId | None]],
        meanwhile: Callable[[PayoutId | None], Awaitable[None]],
        fate: Fate = "goes on",
    ) -> int:
        """Hold a call at each of its places in turn, and see what the other call makes of it. How many there were.

        Whatever the late call does in the end, nothing is left to do for the payout, and nobody is called for it.
        """
        at = 1
        while True:
            made = await prepare()
            call = self.late.desk.form() if made is None else self.late.desk.step(made)
            if not await self.late.begin(at, call):
                await meanwhile(made)
                return at - 1
            if fate == "dies":
                await self.late.die()
                await meanwhile(made)
            else:
                await self._beside(meanwhile(made))
            if made is not None:
                story = await self.desk.story(made)
                assert story.step in (Step.WATCH, Step.NONE), f"{self.late.where}: {story.step} is due again"
                assert story.payout.problem is None, f"{self.late.where}: {story.payout.problem}"
            at += 1

    async def _beside(self, others: Awaitable[None]) -> None:
        """While the late call stands still, as far as its locks let them."""
        going = asyncio.ensure_future(others)
        while not going.done() and not await self.bank.pool.fetchval(_LOCKED):
            await asyncio.wait([going], timeout=0.05)
        if going.done():
            going.result()
        error = await self.late.go_on()
        await going
        if error is not None and not isinstance(error, EngineError):
            raise error
        if error is not None:
            self.errors.append(f"{self.late.where}: {error}")

    async def assert_each_is_paid_once(self, *, cancelled: int = 0) -> None:
        """When all is confirmed and deep."""
        await self.mined()
        alive = "SELECT id FROM bank.payouts WHERE status NOT IN ('final', 'dissolved') ORDER BY created_at"
        for depth in (1, 6):
            for row in await self.bank.pool.fetch(alive):
                await self.desk.step(row["id"], times=2)
                assert (await self.desk.story(row["id"])).payout.problem is None, self.errors
            await self.mined(depth)
        for row in await self.bank.pool.fetch(alive):
            await self.steps_until(row["id"], Step.NONE)
        rows = await self.bank.pool.fetch(
            """SELECT status, paid_sat, miner_fee_sat FROM bank.withdrawals
                WHERE account_id = $1 AND status <> 'cancelled'""",
            self.alice.id,
        )
        told = await self.bank.pool.fetchval("SELECT count(*) FROM bank.withdrawals WHERE status = 'cancelled'")
        assert told == cancelled
        assert [row["status"] for row in rows] == ["confirmed"] * len(self.asked), self.errors
        assert await asyncio.to_thread(self._received) == self.asked, self.errors
        left_sat = _COINS * COIN_SAT - sum(row["paid_sat"] + row["miner_fee_sat"] for row in rows)
        assert await self.bank.money(self.alice) == (left_sat, 0), self.errors
        assert await self.desk.spending.frozen() == frozenset(), "coins that nobody has stay locked"
        assert await self.bank.pool.fetchval("SELECT count(*) FROM bank.coin_reservations") == 0
        await self.bank.prove()

    def _received(self) -> dict[str, int]:
        told = self.bank.chain.call("listreceivedbyaddress", 1, wallet=STRANGER)
        return {
            each["address"]: int(Decimal(str(each["amount"])).scaleb(8))
            for each in told
            if each["address"] in self.asked
        }


@asynccontextmanager
async def opened_stage(dsn: str, chain: Chain) -> AsyncIterator[Stage]:
    """Alice has many coins of one size, so each payout of one takes one."""
    async with Depositors.open(dsn, chain) as bank, opened_late_desk(dsn, chain) as late:
        await bank.pool.execute(_JOINS_NONE)
        alice = await bank.user()
        paid = [(await bank.address(alice), COIN_SAT) for _ in range(_COINS)]
        await asyncio.to_thread(chain.pay_many, paid)
        await asyncio.to_thread(chain.mine, 6)
        await bank.follow()
        rpc = Rpc(chain.url, chain.auth_file)
        yield Stage(bank, PayoutDesk(bank, rpc), late, alice)
        await rpc.close()
