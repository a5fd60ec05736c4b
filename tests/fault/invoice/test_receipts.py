"""Something dies between two steps of a page of receipts. Each of them is credited once, for what was paid.

    the pump has started the page   →   the activity waits in its transaction   →   committed, and Temporal has not been
    told   →   ended, and the cursor has not moved

The moments are made certain by holding what comes next: a balance that the page needs, Temporal while the ledger
commits, or a cursor that is put back to where a crash would have left it. The API plays no part in a receipt.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from infra.local.outside import Outside
from tests.fixtures.stack import Account, Bank, Json, eventually
from tests.helpers.lane import locked_wallet, waiting_for
from tests.helpers.receipt import AMOUNT_MSAT, arriving, at_rest, carriers

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

RECEIPTS = 5
TOTAL_MSAT = sum(AMOUNT_MSAT + number for number in range(1, RECEIPTS + 1))
WORKERS = ["worker-1", "worker-2"]


@asynccontextmanager
async def a_page_in_its_transaction(
    bank: Bank, shop: Outside, payee: Account
) -> AsyncIterator[tuple[list[Json], AsyncExitStack]]:
    """The page's activity has locked its invoices and waits for the payee's balance until the locks are closed."""
    async with AsyncExitStack() as locks:
        holder = await locks.enter_async_context(locked_wallet(bank, payee))
        async with arriving(bank, shop, payee, RECEIPTS) as invoices:
            pass
        await waiting_for(bank, holder)
        yield invoices, locks


async def check(bank: Bank, payee: Account, invoices: list[Json]) -> None:
    """Each once, and not each alone."""
    assert any(each.startswith("receipts-") for each in await carriers(bank, invoices))
    for invoice in invoices:
        settled = await bank.credited(payee, invoice["id"])
        assert settled["received_msat"] == invoice["amount_msat"]
    assert (await payee.wallet())["available_msat"] == TOTAL_MSAT


async def booked(bank: Bank, invoices: list[Json]) -> int:
    refs = [f"ln:{invoice['payment_hash']}:recv" for invoice in invoices]
    found: int = await bank.database.fetchval(
        "SELECT count(*) FROM ledger.transfers WHERE external_ref = ANY($1)", refs
    )
    return found


@pytest.mark.parametrize("victims", [WORKERS, ["temporal"]], ids=lambda names: names[0])
async def test_killed_in_the_middle_of_the_transaction(bank: Bank, shop: Outside, victims: list[str]) -> None:
    alice = await bank.open_account()
    async with a_page_in_its_transaction(bank, shop, alice) as (invoices, locks):
        kills = asyncio.create_task(bank.kill(*victims))
        await asyncio.wait({kills}, timeout=0.2)
        assert await booked(bank, invoices) == 0
        await locks.aclose()
        await kills
    await check(bank, alice, invoices)


async def test_postgres_killed_in_the_middle_of_the_transaction(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account()
    async with a_page_in_its_transaction(bank, shop, alice) as (invoices, _locks):
        await asyncio.to_thread(bank.stack.kill, "postgres")
    await check(bank, alice, invoices)


@pytest.mark.parametrize("victims", [WORKERS, ["temporal"], ["postgres"]], ids=lambda names: names[0])
async def test_killed_after_the_commit_and_before_temporal_was_told(
    bank: Bank, shop: Outside, victims: list[str]
) -> None:
    """The page is done again, and finds what was done."""
    alice = await bank.open_account()
    async with a_page_in_its_transaction(bank, shop, alice) as (invoices, locks):
        with bank.stack.frozen("temporal"):
            await locks.aclose()

            async def committed() -> bool | None:
                return True if await booked(bank, invoices) else None

            await eventually(committed, "the page's transaction to be committed")
            restarts = {name: bank.stack.process(name).restarts for name in victims}
            for name in victims:
                bank.stack.kill(name, wait=False)
        for name, count in restarts.items():
            await asyncio.to_thread(bank.stack.wait_back, name, count)
    await check(bank, alice, invoices)


async def cursors(bank: Bank) -> dict[str, int]:
    rows = await bank.database.fetch("SELECT name, settle_index FROM bank.nodes")
    return {row["name"]: row["settle_index"] for row in rows}


@pytest.mark.parametrize("cursor", ["where it was", "0"])
async def test_workers_killed_after_the_credit_and_before_the_cursor_moved(
    bank: Bank, shop: Outside, cursor: str
) -> None:
    """The node tells all of it again, in other pages; from a cursor of 0 everything that it ever received."""
    alice = await bank.open_account()
    before = await cursors(bank)
    async with arriving(bank, shop, alice, RECEIPTS) as invoices:
        pass
    await check(bank, alice, invoices)
    for name in WORKERS:
        await asyncio.to_thread(bank.stack.hold, name)
    moved = await cursors(bank)
    for name, index in before.items():
        put_back = index if cursor == "where it was" else 0
        await bank.database.execute("UPDATE bank.nodes SET settle_index = $2 WHERE name = $1", name, put_back)
    for name in WORKERS:
        await asyncio.to_thread(bank.stack.release, name)

    async def told_again() -> bool | None:
        now = await cursors(bank)
        return True if all(now[name] >= index for name, index in moved.items()) else None

    await eventually(told_again, "the pumps to have told all of it again")
    await at_rest(bank)
    await check(bank, alice, invoices)
