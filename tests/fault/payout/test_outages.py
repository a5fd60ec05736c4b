"""PostgreSQL and bitcoind are away at each step of a payout, longer than any try of it. Each payee is paid once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fixtures.chain_line import Mode
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.postgres_line import BrokenLine, broken_line
from tests.fixtures.stack import eventually
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.withdrawal.withdrawer import Asked, Withdrawer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

AMOUNT_SAT = 50_000
STATEMENTS = {
    "open": b"INSERT INTO bank.withdrawals",
    "form": b"INSERT INTO bank.payouts",
    "draft": b"SET psbt",
    "sign": b"SET raw",
    "send": b"SET broadcast_at = coalesce",
    "book": b"SET status = 'broadcast', booked_ref",
}
CONFIRM = b"SET status = 'confirmed', confirmed_version"
OUTAGE_S, MINUTE_S = 12.0, 60.0
"""A step is tried again after 10 s at the latest."""
CALLS: list[tuple[str, Mode]] = [
    ("listlockunspent", "silent"),  # form
    ("lockunspent", "silent"),  # draft
    ("getrawchangeaddress", "lost"),
    ("converttopsbt", "silent"),
    ("walletprocesspsbt", "silent"),  # draft and sign
    ("sendrawtransaction", "silent"),
    ("sendrawtransaction", "lost"),  # it has the transaction, and loses it with its mempool
]


@asynccontextmanager
async def behind_line(hot: HotBank) -> AsyncIterator[BrokenLine]:
    """Another worker does all the work, over a line to PostgreSQL that may go away."""
    async with broken_line(hot.database.app_dsn) as line, hot.worker.away():
        other = hot.make_worker("behind-line", MILLRACE_POSTGRES_DSN=line.dsn)
        supervising = asyncio.create_task(other.supervise())
        try:
            yield line
        finally:
            supervising.cancel()
            await other.kill()


async def outage(line: BrokenLine, length_s: float) -> None:
    """Wait for its begin, and for its end."""

    async def began() -> bool | None:
        return True if line.is_away else None

    await eventually(began, "the outage")
    await asyncio.sleep(length_s)
    assert line.refused > 0
    line.come_back()


async def paid_once(out: Withdrawer, alice: Depositor, asked: Asked) -> None:
    await out.reaches(asked, "broadcast")
    await out.hot.mine()
    row = await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == AMOUNT_SAT
    assert len(await out.versions(asked)) == 1
    assert await out.hot.money(alice) == (100_000 - AMOUNT_SAT - row["miner_fee_sat"], 0)
    await out.payout_is(asked, "problem IS NULL")


@pytest.mark.parametrize("step", STATEMENTS)
async def test_postgres_goes_away_in_this_step(hot: HotBank, step: str) -> None:
    """For a minute while the signed bytes are stored, else for longer than any try."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    async with behind_line(hot) as line:
        line.will_go_away(STATEMENTS[step])
        asking = asyncio.create_task(out.ask(alice, AMOUNT_SAT))
        await outage(line, MINUTE_S if step == "sign" else OUTAGE_S)
        await paid_once(out, alice, await asking)


async def test_postgres_goes_away_when_a_block_has_it(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    async with behind_line(hot) as line:
        asked = await out.ask(alice, AMOUNT_SAT)
        await out.reaches(asked, "broadcast")
        line.will_go_away(CONFIRM)
        await hot.mine()
        await outage(line, OUTAGE_S)
        row = await out.reaches(asked, "confirmed")
    assert await out.received(asked.address) == AMOUNT_SAT
    assert await hot.money(alice) == (100_000 - AMOUNT_SAT - row["miner_fee_sat"], 0)


@pytest.mark.parametrize(("method", "mode"), CALLS)
async def test_bitcoind_dies_while_it_is_asked(hot: HotBank, method: str, mode: Mode) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    hot.chain.line.methods, hot.chain.line.mode = {method}, mode
    asked = await out.ask(alice, AMOUNT_SAT)

    async def met() -> bool | None:
        return True if hot.chain.line.hits else None

    await eventually(met, f"{method} to be called")
    await asyncio.to_thread(hot.chain.kill)
    hot.chain.line.reset()
    await hot.problem("unreachable", "cut_off", "timed_out")
    await asyncio.to_thread(hot.chain.start)
    await paid_once(out, alice, asked)


async def test_bitcoind_dies_while_a_payout_waits_for_a_block_and_for_its_depth(hot: HotBank) -> None:
    """Its mempool is lost, and the same bytes are sent again."""
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await out.funded(100_000)
    asked = await out.ask(alice, AMOUNT_SAT)
    txid = (await out.reaches(asked, "broadcast"))["txid"]
    await out.payout_is(asked, "p.status = 'broadcast'")

    async def dies() -> None:
        await asyncio.to_thread(hot.chain.kill)
        await hot.problem("unreachable", "cut_off", "timed_out")
        await asyncio.to_thread(hot.chain.start)

    await dies()

    async def there() -> bool | None:
        return True if txid in await asyncio.to_thread(hot.chain.mempool) else None

    await eventually(there, "the payout to be sent again")
    await paid_once(out, alice, asked)
    await dies()
    await hot.mine(6)
    await out.payout_is(asked, "p.status = 'final'")
