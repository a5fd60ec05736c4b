"""Traffic at the hot wallet, with comparisons beside it all the time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from engine.domain.errors import Unavailable
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.hot_wallet.comparison import HotReconciliation, brief

Found = set[tuple[str, str, int]]


class Traffic:
    """Deposits that are paid, mined, replaced, reorganised and double spent, one storm after the other."""

    def __init__(self, hot: HotBank) -> None:
        self._hot, self._chain = hot, hot.chain

    async def storm(self, number: int) -> None:
        users = [await self._hot.user() for _ in range(3)]
        sent = [await self._hot.pay(user, 20_000 + number) for user in users]
        await self._hot.mine()
        double = await asyncio.to_thread(self._chain.double_spend, sent[0])
        await asyncio.to_thread(self._chain.reorg, 1 + number % 3, without=[sent[1].txid], with_=[double])
        again = await self._hot.pay(users[2], 30_000)
        await asyncio.to_thread(self._chain.bump, again, fee_rate=30, amount_sat=29_000)
        await self._hot.mine(2)


@asynccontextmanager
async def compared(hot: HotBank) -> AsyncIterator[Found]:
    """All that is found by comparisons one after the other, for the length of the block."""
    found: Found = set()
    done = asyncio.Event()

    async def compare() -> None:
        while not done.is_set():
            with suppress(Unavailable):
                found.update(brief(each) for each in (await HotReconciliation(hot).compare()).findings)

    comparing = asyncio.create_task(compare())
    try:
        yield found
    finally:
        done.set()
        await comparing


async def until_found(hot: HotBank, wanted: Found) -> None:
    found: Found = set()

    async def look() -> bool | None:
        nonlocal found
        report = await HotReconciliation(hot).compare()
        found = {brief(each) for each in report.findings}
        return True if found == wanted else None

    try:
        await eventually(look, "the findings", limit_s=30)
    except AssertionError:
        assert found == wanted


def named(found: Found) -> Found:
    return {each for each in found if each[0] != "place_moving"}
