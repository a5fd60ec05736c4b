"""Deposits against their postings: silence in every state, and each contradiction by the deposit or the reference."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities.reconciliation.reconciliation import Reconciliations
from engine.contracts.reconciliation import BooksCheck
from tests.fixtures.postgres import Database
from tests.helpers.chain import Chain
from tests.helpers.deposit.depositor import Depositors
from tests.helpers.ledger.bank import run_as

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def bank(ledger_db: Database, chain: Chain) -> AsyncIterator[Depositors]:
    async with Depositors.open(ledger_db.app_dsn, chain) as bank:
        yield bank


async def found(bank: Depositors) -> set[tuple[str, str]]:
    checked = await ActivityEnvironment().run(Reconciliations(bank.pool).check_books, BooksCheck(stuck_after_s=3600))
    return {(each.kind.value, each.subject) for each in checked}


async def test_no_state_of_a_deposit_contradicts_its_postings(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    sent = chain.pay(await bank.address(alice), 50_000)
    small = chain.pay(await bank.address(alice), 500)
    for _ in range(2):
        await bank.follow()
        assert await found(bank) == set()
        chain.mine(6)
        await bank.follow()
        assert {row["status"] for row in await bank.rows()} == {"credited", "below_minimum"}
        assert await found(bank) == set()
        chain.reorg(6, without=[sent.txid, small.txid])
    await bank.follow()
    assert await found(bank) == set()
    chain.reorg(1, with_=[chain.double_spend(sent)])
    await bank.follow()
    assert await found(bank) == set()


async def test_a_hold_and_its_deposit_that_do_not_name_each_other_are_found(
    ledger_db: Database, bank: Depositors, chain: Chain
) -> None:
    chain.pay(await bank.address(await bank.user()), 50_000)
    await bank.follow()
    row = await bank.row()
    await run_as(ledger_db.owner_dsn, "UPDATE bank.deposits SET hold_ref = hold_ref || ':9'")
    assert await found(bank) == {("hold_without_deposit", row["hold_ref"]), ("deposit_without_hold", row["id"])}


@pytest.mark.parametrize(
    "damage",
    ["amount_sat = amount_sat + 1", "place = 'pending'", "release_ref = replace(conf_ref, 'conf', 'release')"],
)
async def test_a_deposit_that_is_booked_otherwise_is_found(
    ledger_db: Database, bank: Depositors, chain: Chain, damage: str
) -> None:
    chain.pay(await bank.address(await bank.user()), 50_000)
    chain.mine()
    await bank.follow()
    row = await bank.row()
    await run_as(ledger_db.owner_dsn, f"UPDATE bank.deposits SET {damage}")
    assert await found(bank) == {("deposit_not_as_booked", row["id"])}


async def test_a_booking_that_no_deposit_has_is_found(ledger_db: Database, bank: Depositors, chain: Chain) -> None:
    chain.pay(await bank.address(await bank.user()), 50_000)
    chain.mine()
    await bank.follow()
    row = await bank.row()
    await run_as(ledger_db.owner_dsn, "UPDATE bank.deposits SET conf_ref = NULL, place = NULL, status = 'pending'")
    assert await found(bank) == {("deposit_not_as_booked", row["conf_ref"])}
