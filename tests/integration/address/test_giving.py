"""Addresses are given from the pool: each once, to one wallet, whoever asks at the same moment."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from engine.bank.account.account import NewAccount, list_wallets, open_bank_account_in_tx
from engine.bank.chain.address import Purpose, Wanted, find_current, find_owners, give_in_tx
from engine.bank.idempotency import Claim
from engine.domain.errors import NotFound, Refused, Unavailable
from engine.domain.ids import AccountId, WalletId, new_id
from engine.ledger.database import Pool, borrowed, open_pool, transaction
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import address_of, fill_pool

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def pool(ledger_db: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_db.app_dsn, max_size=20)
    yield pool
    await pool.close()


@pytest_asyncio.fixture
async def owner(ledger_db: Database) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(ledger_db.owner_dsn)
    yield conn
    await conn.close()


async def open_wallet(pool: Pool) -> tuple[AccountId, WalletId]:
    account = AccountId(new_id("acct"))
    async with transaction(pool) as conn:
        await open_bank_account_in_tx(conn, NewAccount(id=account, username=None))
        (wallet,) = await list_wallets(conn, account)
    return account, wallet.id


def wanted(owner: tuple[AccountId, WalletId], purpose: Purpose = "api", most_unpaid: int = 1000) -> Wanted:
    return Wanted(account_id=owner[0], wallet_id=owner[1], purpose=purpose, most_unpaid=most_unpaid)


async def give(pool: Pool, asked: Wanted, claim: Claim | None = None) -> Mapping[str, Any] | None:
    async with transaction(pool) as conn:
        if claim is None:
            return await give_in_tx(conn, asked)
        return await give_in_tx(
            conn,
            asked,
            lambda address: Claim(
                account_id=claim.account_id, key=claim.key, body_hash=claim.body_hash, resource_id=address
            ),
        )


async def address(pool: Pool, asked: Wanted) -> str:
    row = await give(pool, asked)
    assert row is not None
    return str(row["address"])


async def test_the_lowest_index_is_given_first_and_its_owner_is_found(pool: Pool, owner: asyncpg.Connection) -> None:
    made = await fill_pool(owner, 3)
    alice, bob = await open_wallet(pool), await open_wallet(pool)
    assert [await address(pool, wanted(alice)), await address(pool, wanted(bob))] == made[:2]
    async with borrowed(pool) as conn:
        assert await find_owners(conn, [*made, address_of(99)]) == {made[0]: alice[1], made[1]: bob[1]}


async def test_fifty_callers_and_twenty_addresses(pool: Pool, owner: asyncpg.Connection) -> None:
    made = await fill_pool(owner, 20)
    wallets = [await open_wallet(pool) for _ in range(10)]
    answers = await asyncio.gather(
        *(give(pool, wanted(wallets[number % 10])) for number in range(50)), return_exceptions=True
    )
    rows = [each for each in answers if isinstance(each, dict)]
    refused = [each for each in answers if isinstance(each, Unavailable)]
    assert (len(rows), len(refused)) == (20, 30)
    assert {each.code for each in refused} == {"no_address_ready"}
    assert sorted(row["address"] for row in rows) == sorted(made)
    stored = await owner.fetch("SELECT address, wallet_id FROM bank.addresses WHERE wallet_id IS NOT NULL")
    assert {tuple(row) for row in stored} == {(row["address"], row["wallet_id"]) for row in rows}


async def test_a_wallet_with_as_many_unpaid_addresses_as_are_allowed_gets_the_oldest_again(
    pool: Pool, owner: asyncpg.Connection
) -> None:
    await fill_pool(owner, 30)
    alice = await open_wallet(pool)
    asked = wanted(alice, most_unpaid=5)
    given = await asyncio.gather(*(address(pool, asked) for _ in range(20)))  # they race, and the bound is exact
    assert len(set(given)) == 5
    oldest = await address(pool, asked)
    assert oldest in given
    await owner.execute("UPDATE bank.addresses SET paid = true WHERE address = $1", oldest)
    fresh = await address(pool, asked)
    assert fresh not in given
    assert await owner.fetchval("SELECT count(*) FROM bank.addresses WHERE wallet_id IS NOT NULL") == 6
    bob = await open_wallet(pool)
    assert await address(pool, wanted(bob, most_unpaid=5)) not in {*given, fresh}


async def test_a_tip_address_is_the_same_until_it_is_paid(pool: Pool, owner: asyncpg.Connection) -> None:
    await fill_pool(owner, 10)
    alice = await open_wallet(pool)
    asked = wanted(alice, "tip", 1)
    first = set(await asyncio.gather(*(address(pool, asked) for _ in range(10))))
    assert len(first) == 1
    assert await address(pool, wanted(alice)) not in first
    async with borrowed(pool) as conn:
        assert {await find_current(conn, alice[1], "tip")} == first
    await owner.execute("UPDATE bank.addresses SET paid = true WHERE address = $1", *first)
    assert await address(pool, asked) not in first


async def test_the_same_key_gives_one_address(pool: Pool, owner: asyncpg.Connection) -> None:
    await fill_pool(owner, 5)
    alice = await open_wallet(pool)
    claim = Claim(account_id=alice[0], key="once", body_hash=b"x" * 32, resource_id="")
    answers = await asyncio.gather(*(give(pool, wanted(alice), claim) for _ in range(8)))
    (row,) = [each for each in answers if each is not None]
    assert await owner.fetchval("SELECT resource_id FROM bank.idempotency_keys WHERE key = 'once'") == row["address"]
    assert await owner.fetchval("SELECT count(*) FROM bank.addresses WHERE wallet_id IS NOT NULL") == 1


@pytest.mark.parametrize("status", ["locked", "closed"])
async def test_a_closed_account_gets_none_and_a_locked_one_still_receives(
    pool: Pool, owner: asyncpg.Connection, status: str
) -> None:
    await fill_pool(owner, 1)
    alice = await open_wallet(pool)
    await owner.execute("UPDATE bank.accounts SET status = $2 WHERE id = $1", alice[0], status)
    if status == "locked":
        assert await address(pool, wanted(alice))
        return
    with pytest.raises(Refused) as refused:
        await give(pool, wanted(alice))
    assert refused.value.code == "account_locked"


async def test_closing_an_account_waits_for_an_address_that_is_being_given(
    pool: Pool, owner: asyncpg.Connection
) -> None:
    await fill_pool(owner, 1)
    alice = await open_wallet(pool)
    async with transaction(pool) as conn:
        assert await give_in_tx(conn, wanted(alice))
        await owner.execute("SET lock_timeout = '200ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await owner.execute("UPDATE bank.accounts SET status = 'closed' WHERE id = $1", alice[0])


async def test_another_accounts_wallet_is_not_found(pool: Pool, owner: asyncpg.Connection) -> None:
    await fill_pool(owner, 1)
    alice, bob = await open_wallet(pool), await open_wallet(pool)
    with pytest.raises(NotFound):
        await give(pool, wanted((alice[0], bob[1])))


async def test_an_address_in_the_making_is_skipped_and_comes_back_when_the_other_gives_up(
    pool: Pool, owner: asyncpg.Connection
) -> None:
    made = await fill_pool(owner, 2)
    alice, bob = await open_wallet(pool), await open_wallet(pool)

    async def dies() -> None:
        async with transaction(pool) as conn:
            row = await give_in_tx(conn, wanted(alice))
            assert row is not None
            assert row["address"] == made[0]
            assert await address(pool, wanted(bob)) == made[1]
            raise RuntimeError("the process dies")

    with pytest.raises(RuntimeError):
        await dies()
    assert await address(pool, wanted(alice)) == made[0]
