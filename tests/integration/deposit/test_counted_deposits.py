"""Deposits that are credited, taken back and replaced in any order: limits count what was credited, once."""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from engine.domain.ids import DepositId
from tests.fixtures.postgres import Database
from tests.helpers.api import User
from tests.helpers.ledger.deposit import Depositor
from tests.helpers.limit import set_limits, used
from tests.helpers.payer import Payers, running_payers
from tests.helpers.withdrawal.teller import SAT

pytestmark = pytest.mark.integration

LIMIT_SAT = 10_000
STEPS = 14


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Payers]:
    async with running_payers(ledger_db, tmp_path) as payers:
        yield payers


@dataclass
class Expected:
    """One deposit by the rule alone: a credit counts what earlier ones have not, and nothing of it is given back."""

    amount_sat: int
    counted_sat: int = 0
    seen_sat: int = 0
    """What its sight counts beyond that, until it is gone or credited."""
    over_limit: bool = False
    state: str = "gone"

    @property
    def used_sat(self) -> int:
        return self.counted_sat + self.seen_sat


@dataclass
class Model:
    """A user's deposits, beside the real books."""

    depositor: Depositor
    user: User
    deposits: dict[DepositId, Expected]
    height: int = 10

    @property
    def used_sat(self) -> int:
        return sum(each.used_sat for each in self.deposits.values())

    async def see(self, amount_sat: int) -> None:
        each = Expected(amount_sat)
        self._count(each)
        self.deposits[await self.depositor.see(self.user, amount_sat)] = each

    async def return_with(self, found: DepositId, amount_sat: int) -> None:
        each = self.deposits[found]
        each.amount_sat = amount_sat
        self._count(each)
        await self.depositor.show_other(found, amount_sat)

    async def vanish(self, found: DepositId) -> None:
        each = self.deposits[found]
        each.seen_sat, each.over_limit, each.state = 0, False, "gone"
        await self.depositor.drop(found)

    async def book(self, found: DepositId) -> None:
        each = self.deposits[found]
        each.state = "held" if each.over_limit else "credited"
        if not each.over_limit:
            each.counted_sat, each.seen_sat = max(each.counted_sat, each.amount_sat), 0
        self.height += 1
        await self.depositor.book(found, self.height)

    def _count(self, each: Expected) -> None:
        more_sat = max(0, each.amount_sat - each.counted_sat)
        each.over_limit = self.used_sat + more_sat > LIMIT_SAT and more_sat > 0
        each.seen_sat = 0 if each.over_limit else more_sat
        each.state = "seen"

    async def agrees(self) -> None:
        assert await used(self.user, "deposit") == self.used_sat * SAT
        assert self.used_sat <= LIMIT_SAT
        credited_sat = 0
        for found, each in self.deposits.items():
            status = (await self.user.get(f"/v1/deposits/{found}")).json()["status"]
            if each.state in {"credited", "held"}:
                assert status == each.state, (found, each)
            credited_sat += each.amount_sat if each.state == "credited" else 0
        assert credited_sat <= self.used_sat
        assert (await self.user.balance())[0] == credited_sat * SAT


@pytest.mark.parametrize("seed", range(5))
async def test_a_limit_counts_what_was_credited_in_any_order(bank: Payers, seed: int) -> None:
    await set_limits(bank, {"0": {"deposit": {"day_sat": LIMIT_SAT}}})
    chance = random.Random(seed)
    model = Model(Depositor(bank.pool), await bank.api.open_account(), {})
    for _ in range(STEPS):
        known = list(model.deposits)
        if not known or (len(known) < 3 and chance.random() < 0.2):
            await model.see(chance.randrange(1_000, 9_000))
        else:
            found = chance.choice(known)
            match model.deposits[found].state:
                case "seen":
                    await (model.book(found) if chance.random() < 0.7 else model.vanish(found))
                case "gone":
                    await model.return_with(found, chance.randrange(1_000, 9_000))
                case _:
                    await model.vanish(found)
        await model.agrees()
