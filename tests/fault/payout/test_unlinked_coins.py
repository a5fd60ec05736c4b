"""Unlinked withdrawals on a real node: no coin that pays them has to do with a deposit of any member.

The books choose by `bank.coin_origins`, and the chain has the last word: where the books are wrong, nothing is signed.
"""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from engine.clients.bitcoind.rpc import Rpc
from engine.domain.deposit import Outpoint
from engine.domain.ids import PayoutId, Txid, WithdrawalId
from tests.fixtures.postgres import Database
from tests.helpers.chain import Chain
from tests.helpers.deposit.depositor import Depositor, Depositors
from tests.helpers.payout.desk import PayoutDesk, own_coins_only

pytestmark = pytest.mark.fault


@pytest_asyncio.fixture
async def bank(ledger_db: Database, chain: Chain) -> AsyncIterator[Depositors]:
    with own_coins_only(chain):
        async with Depositors.open(ledger_db.app_dsn, chain) as bank:
            yield bank
            await bank.prove()


@pytest_asyncio.fixture
async def desk(bank: Depositors, chain: Chain) -> AsyncIterator[PayoutDesk]:
    rpc = Rpc(chain.url, chain.auth_file)
    yield PayoutDesk(bank, rpc)
    await rpc.close()


async def deposited(bank: Depositors, *amounts_sat: int) -> tuple[Depositor, list[str]]:
    """A user with deposits of these amounts, and the coins."""
    user = await bank.user()
    coins = [bank.chain.pay(await bank.address(user), amount_sat).outpoint for amount_sat in amounts_sat]
    bank.chain.mine(2)
    await bank.follow()
    return user, coins


async def mined(bank: Depositors, desk: PayoutDesk, *payouts: PayoutId) -> None:
    """Send and book each, and put them into a block."""
    for each in payouts:
        await desk.step(each, times=4)
    bank.chain.mine(2)
    await bank.follow()


def outpoint(coin: str) -> Outpoint:
    txid, vout = coin.split(":")
    return Outpoint(txid=Txid(txid), vout=int(vout))


async def spends(desk: PayoutDesk, of: PayoutId) -> set[str]:
    return {str(each.outpoint) for each in (await desk.story(of)).current.inputs}


async def waits_for(bank: Depositors, asked: WithdrawalId) -> str | None:
    note: str | None = await bank.pool.fetchval(
        "SELECT waits_for FROM bank.withdrawals WHERE id = $1 AND status = 'queued'", asked
    )
    return note


async def forget_origins(database: Database) -> None:
    """The books do not know any more where any coin comes from."""
    conn = await asyncpg.connect(database.superuser_dsn)
    await conn.execute("DELETE FROM bank.coin_origins")
    await conn.close()


async def assert_not_signed(bank: Depositors, desk: PayoutDesk, made: PayoutId) -> None:
    """Its member waits again, for other coins, and says why; the linked ones are not chosen a second time."""
    await desk.step(made, times=2)
    story = await desk.story(made)
    assert story.payout.status == "dissolved"
    assert (story.current.raw, story.current.txid) == (None, None)
    spent = await spends(desk, made)
    waiting = await bank.pool.fetchval("SELECT id FROM bank.withdrawals WHERE status = 'queued'")
    assert "the chain has shown" in str(await waits_for(bank, waiting))
    for again in await desk.form():
        assert not spent & await spends(desk, again)


async def test_an_own_deposit_never_pays_and_anybody_else_s_does(bank: Depositors, desk: PayoutDesk) -> None:
    alice, _ = await deposited(bank, 500_000)
    asked = await desk.opened(alice, 50_000, unlinked=True)
    assert await desk.form() == []
    assert "coins" in str(await waits_for(bank, asked))
    _, coins = await deposited(bank, 100_000)
    (made,) = await desk.form()
    assert await spends(desk, made) == set(coins)
    await mined(bank, desk, made)
    assert await waits_for(bank, asked) is None


async def test_members_share_a_coin_that_is_nobody_s_of_theirs_or_go_by_themselves(
    bank: Depositors, desk: PayoutDesk
) -> None:
    alice, of_alice = await deposited(bank, 200_000)
    bob, of_bob = await deposited(bank, 200_000)
    for user in (alice, bob):
        await desk.opened(user, 50_000, alone=False, unlinked=True)
    first, second = await desk.form()
    assert [await spends(desk, each) for each in (first, second)] == [set(of_bob), set(of_alice)]
    await mined(bank, desk, first, second)

    _, of_carol = await deposited(bank, 300_000)
    for user in (alice, bob):
        await desk.opened(user, 20_000, alone=False, unlinked=True)
    (together,) = await desk.form()
    assert len((await desk.story(together)).members) == 2
    assert await spends(desk, together) == set(of_carol)
    await mined(bank, desk, together)


async def test_change_is_linked_to_whose_deposit_was_spent_and_to_whom_was_paid(
    bank: Depositors, desk: PayoutDesk
) -> None:
    """Bob's withdrawal spends Alice's deposit. Its change is no coin for Alice, nor for Bob, but one for Carol."""
    alice, of_alice = await deposited(bank, 500_000)
    bob, _ = await deposited(bank, 100_000)
    first = await desk.formed(bob, 30_000, unlinked=True)
    assert await spends(desk, first) == set(of_alice)
    await mined(bank, desk, first)
    for_alice = await desk.opened(alice, 150_000, unlinked=True)
    for_bob = await desk.opened(bob, 45_000, unlinked=True)
    assert await desk.form() == []
    carol, _ = await deposited(bank, 40_000)
    made = await desk.formed(carol, 15_000, unlinked=True)
    assert await waits_for(bank, for_alice)
    assert await waits_for(bank, for_bob)
    await desk.step(made, times=4)
    assert (await desk.story(made)).payout.booked_ref is not None


async def test_a_joined_coin_is_linked_to_all_whose_coins_it_joins(bank: Depositors, desk: PayoutDesk) -> None:
    alice, of_alice = await deposited(bank, 200_000)
    bob, of_bob = await deposited(bank, 100_000)
    joined = await desk.consolidation([(outpoint(of_alice[0]), 200_000), (outpoint(of_bob[0]), 100_000)], 1_000)
    await mined(bank, desk, joined)
    waiting = [await desk.opened(each, 50_000, unlinked=True) for each in (alice, bob)]
    assert await desk.form() == []
    carol, _ = await deposited(bank, 45_000)
    made = await desk.formed(carol, 20_000, unlinked=True)
    assert await spends(desk, made) == {f"{await desk.txid(joined)}:0"}
    for each in waiting:
        assert await waits_for(bank, each)
    await mined(bank, desk, made)


async def test_a_bump_adds_only_unlinked_coins(bank: Depositors, desk: PayoutDesk) -> None:
    alice, of_alice = await deposited(bank, 500_000)
    _, of_bob = await deposited(bank, 50_000, 40_000)
    made = await desk.formed(alice, 49_650, unlinked=True)
    await desk.step(made, times=4)
    first = await spends(desk, made)
    assert first < set(of_bob)
    await desk.bumped(made, 20_000)
    assert await spends(desk, made) == set(of_bob)
    assert not await spends(desk, made) & set(of_alice)
    await desk.step(made)  # its fee is booked


async def test_a_bump_for_which_only_linked_coins_are_there_is_not_made(bank: Depositors, desk: PayoutDesk) -> None:
    alice, _ = await deposited(bank, 500_000)
    await deposited(bank, 50_000)
    made = await desk.formed(alice, 49_650, unlinked=True)
    await desk.step(made, times=4)
    await desk.pay_more(made, 100_000)
    story = await desk.story(made)
    assert len(story.versions) == 1
    assert "no coins" in str(story.payout.problem)


async def test_the_chain_finds_a_deposit_whose_origin_the_books_have_lost(
    bank: Depositors, desk: PayoutDesk, ledger_db: Database
) -> None:
    alice, coins = await deposited(bank, 200_000)
    await forget_origins(ledger_db)
    made = await desk.formed(alice, 50_000, unlinked=True)
    assert await spends(desk, made) == set(coins)
    await assert_not_signed(bank, desk, made)


async def test_the_chain_finds_a_deposit_behind_change(bank: Depositors, desk: PayoutDesk, ledger_db: Database) -> None:
    """Two payouts lie between the deposit and the coin, and the books have lost the origins of all."""
    alice, of_alice = await deposited(bank, 400_000)
    bob, _ = await deposited(bank, 40_000)
    first = await desk.formed(bob, 15_000, unlinked=True)
    assert await spends(desk, first) == set(of_alice)
    await mined(bank, desk, first)
    carol, _ = await deposited(bank, 90_000)
    second = await desk.formed(carol, 60_000, unlinked=True)
    await mined(bank, desk, second)
    await forget_origins(ledger_db)
    made = await desk.formed(alice, 150_000, unlinked=True)
    assert {each.split(":")[0] for each in await spends(desk, made)} == {await desk.txid(second)}
    await assert_not_signed(bank, desk, made)


async def test_the_chain_finds_the_change_of_a_payout_to_the_same_user(
    bank: Depositors, desk: PayoutDesk, ledger_db: Database
) -> None:
    """Whoever knows one of her withdrawals sees its change. No deposit of hers is behind it."""
    alice, of_alice = await deposited(bank, 70_000, 70_000)
    await deposited(bank, 300_000)
    first = await desk.formed(alice, 20_000, unlinked=True)
    await mined(bank, desk, first)
    await forget_origins(ledger_db)
    made = await desk.formed(alice, 90_000, unlinked=True)
    assert not await spends(desk, made) & set(of_alice)
    await assert_not_signed(bank, desk, made)


async def test_a_bump_is_left_out_when_the_chain_finds_its_coin_linked(
    bank: Depositors, desk: PayoutDesk, ledger_db: Database
) -> None:
    """The first version stays as it is, and operators are told."""
    await deposited(bank, 50_000)
    alice, of_alice = await deposited(bank, 400_000)
    made = await desk.formed(alice, 49_000, unlinked=True)
    await desk.step(made, times=4)
    first = await desk.txid(made)
    await forget_origins(ledger_db)
    await desk.pay_more(made, 100_000)
    assert await spends(desk, made) & set(of_alice)
    await desk.step(made, times=2)
    story = await desk.story(made)
    assert [each.raw is None for each in story.versions] == [False, True]
    assert story.current.txid == first
    assert "version 2 is not signed" in str(story.payout.problem)
    await desk.mine()
    await desk.step(made)
    assert (await desk.story(made)).payout.confirmed_version == 1
