"""Coins that strangers and payees have to do with, and what is free of them."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from engine.bank.chain.coin import SeenCoin, SeenSpend, read_origins, record_in_tx
from engine.bank.withdrawal.coin import list_free
from engine.domain.ids import AccountId
from engine.ledger.database import transaction
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import address_of
from tests.helpers.withdrawal.teller import Withdrawers, running_withdrawers

pytestmark = pytest.mark.integration

MANY = 10_000


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Withdrawers]:
    async with running_withdrawers(ledger_db, tmp_path) as found:
        yield found


async def free(bank: Withdrawers, unlinked_to: Sequence[AccountId] | None = None, limit: int = 100) -> list[int]:
    """The amounts of the coins that may be spent."""
    async with bank.pool.acquire() as conn:
        coins = await list_free(conn, "hot", min_depth=1, limit=limit, unlinked_to=unlinked_to)
    return [each.amount_sat for each in coins]


async def record_change(bank: Withdrawers, txid: str, of: tuple[str, int], amount_sat: int) -> None:
    """As the pump does, when a block has the transaction."""
    seen = SeenCoin(txid=txid, vout=1, amount_sat=amount_sat, address=address_of(5), change=True, block_height=90)
    spend = SeenSpend(txid=txid, outpoint=of, block_height=90)
    async with transaction(bank.pool) as conn:
        await record_in_tx(conn, [seen], [spend], unmined=[], gone=[])


async def test_a_stranger_s_coin_on_a_change_address_is_not_in_the_books_and_not_spent(bank: Withdrawers) -> None:
    """Change addresses are seen by everybody who looks at the chain. No deposit is booked for what is paid there."""
    await bank.coin(1_000, ours=False)
    await bank.coin(2_000)
    assert await free(bank) == [2_000]


async def test_the_spender_of_a_stranger_s_coin_is_no_transaction_of_ours(bank: Withdrawers) -> None:
    txid = hashlib.sha256(b"a stranger's").hexdigest()
    await record_change(bank, txid, (hashlib.sha256(b"not in the wallet").hexdigest(), 0), 3_000)
    assert await free(bank) == []


async def test_change_is_linked_to_those_for_whom_its_payout_has_paid(bank: Withdrawers) -> None:
    """Who looks at the payout sees payee and change side by side, so it must not pay the same user again."""
    alice, bob = await bank.user(), await bank.user()
    house = await bank.coin(10**6, opening=True, change=False)
    made = await bank.seal([await bank.opened(alice, 100_000)], coin=house)
    txid = await bank.sign(made)
    await bank.send(made)
    await record_change(bank, txid, (house.txid, house.vout), 899_670)
    async with bank.pool.acquire() as conn:
        assert await read_origins(conn, [(txid, 1)]) == {(txid, 1): {alice.id}}
    assert await free(bank, [AccountId(alice.id)]) == []
    assert await free(bank, [AccountId(bob.id)]) == [899_670]


async def test_all_of_ten_thousand_coins_are_listed(bank: Withdrawers) -> None:
    house = await bank.coin(1, opening=True, change=False)
    await bank.payers.api.database.execute(
        """WITH made AS (
                INSERT INTO bank.coins(txid, vout, amount_sat, address, block_height, opening, change)
                SELECT lpad(to_hex(n), 64, '0'), 0, n + 1, 'bcrt1qmany', 10, n % 2 = 0, n % 2 = 1
                  FROM generate_series(1, 10000) n RETURNING txid, change)
           INSERT INTO bank.coin_spends(txid, vout, spender, block_height)
           SELECT $1, 0, txid, 10 FROM made WHERE change""",
        house.txid,
    )
    for linked in (None, [AccountId("acct_a")]):
        found = await free(bank, linked, 2 * MANY)
        assert (len(found), found[0]) == (MANY + 1, MANY + 1)
