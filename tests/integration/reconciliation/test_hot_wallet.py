"""The hot wallet against the books, on a real bitcoind: silence when they agree, else each planted difference."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.contracts.reconciliation import RunStatus
from engine.domain.errors import Unavailable
from infra.local.bitcoin_rpc import HOT
from tests.fixtures.postgres import Database
from tests.helpers.chain import STRANGER, Chain
from tests.helpers.deposit.depositor import Depositors
from tests.helpers.hot_wallet import by_hand
from tests.helpers.hot_wallet.comparison import HotReconciliation
from tests.helpers.ledger.bank import run_as

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def bank(ledger_db: Database, chain: Chain) -> AsyncIterator[Depositors]:
    chain.pay(chain.address(), 2_000_000)
    chain.mine()
    async with Depositors.open(ledger_db.app_dsn, chain) as bank:
        yield bank


@pytest.fixture
def hot(bank: Depositors) -> HotReconciliation:
    return HotReconciliation(bank)


async def deposit(bank: Depositors, amount_sat: int) -> tuple[str, int]:
    """A deposit that is credited."""
    sent = bank.chain.pay(await bank.address(await bank.user()), amount_sat)
    bank.chain.mine()
    await bank.follow()
    return sent.txid, sent.vout


async def test_deposits_in_every_state_are_no_difference(
    bank: Depositors, chain: Chain, hot: HotReconciliation
) -> None:
    assert await hot.in_flight() == []
    sent = chain.pay(await bank.address(await bank.user()), 50_000)
    assert await hot.in_flight() == [], "in the mempool it is nobody's yet"
    await bank.follow()
    assert await hot.in_flight() == []
    chain.mine()
    assert await hot.in_flight() == [("deposit", sent.outpoint, -50_000)], "the pump has not seen the block"
    await bank.look()
    assert await hot.in_flight() == [("deposit", sent.outpoint, -50_000)], "seen, and not booked"
    await bank.follow()
    assert await hot.in_flight() == []
    chain.reorg(1, without=[sent.txid])
    assert await hot.in_flight() == [("deposit_left_chain", sent.outpoint, 50_000)], "the pump has not seen it"
    await bank.look()
    assert await hot.in_flight() == [("deposit_left_chain", sent.outpoint, 50_000)]
    await bank.follow()
    assert await hot.in_flight() == []
    new = chain.pay(await bank.address(await bank.user()), 40_000)
    chain.mine()
    assert sorted(await hot.in_flight()) == sorted(
        [("coin_not_recorded", new.outpoint, -40_000), ("deposit", sent.outpoint, -50_000)]
    )
    await bank.follow()
    chain.reorg(1, with_=[chain.double_spend(new)])
    assert await hot.in_flight() == [("deposit_left_chain", new.outpoint, 40_000)]
    await bank.follow()
    assert await hot.in_flight() == []


async def test_parked_deposits_are_no_difference(bank: Depositors, chain: Chain, hot: HotReconciliation) -> None:
    """Below the minimum, and to an address that is in nobody's books."""
    alice = await bank.user()
    chain.pay_many([(await bank.address(alice), 700), (chain.address(), 30_000)])
    chain.mine(6)
    await bank.follow()
    assert {row["status"] for row in await bank.rows()} == {"below_minimum", "unattributed"}
    assert await hot.in_flight() == []


async def test_coins_spent_by_hand_are_found_with_what_left(
    bank: Depositors, chain: Chain, hot: HotReconciliation
) -> None:
    first, second = await deposit(bank, 90_000), await deposit(bank, 60_000)
    spender, left_sat = by_hand.spend(chain, [first, second], 100_000)
    planted = [("coin_spent", spender, left_sat)]
    assert 100_000 < left_sat < 102_000
    assert await hot.findings() == planted, "bitcoind alone knows of it"
    await bank.follow()
    assert await hot.findings() == planted
    chain.mine()
    assert await hot.findings() == planted, "mined, and the pump has not seen it"
    await bank.follow()
    assert await hot.findings() == planted
    (change,) = [each for each in (await bank.bitcoind.read_coins()).coins if each.txid == spender]
    again, more_sat = by_hand.spend(chain, [(change.txid, change.vout)], 10_000)
    both = sorted([*planted, ("coin_spent", again, more_sat)])
    await bank.follow()
    assert sorted(await hot.findings()) == both, "what spends the change of the first"
    chain.mine(7)
    await bank.follow()
    assert sorted(await hot.findings()) == both


async def test_a_spend_by_hand_that_is_replaced_or_evicted_is_found_as_it_is(
    bank: Depositors, chain: Chain, hot: HotReconciliation
) -> None:
    coin = await deposit(bank, 90_000)
    spender, left_sat = by_hand.spend(chain, [coin], 20_000)
    await bank.follow()
    assert await hot.findings() == [("coin_spent", spender, left_sat)]
    bumped = chain.call("bumpfee", spender, wallet=HOT)["txid"]
    chain.sync()
    more_sat = by_hand.left(chain, bumped)
    assert more_sat > left_sat
    assert await hot.findings() == [("coin_spent", bumped, more_sat)]
    await bank.follow()
    assert await hot.findings() == [("coin_spent", bumped, more_sat)]
    chain.mine()
    await bank.follow()
    assert await hot.findings() == [("coin_spent", bumped, more_sat)]
    chain.reorg(1, without=[bumped])
    chain.evict(bumped)
    chain.call("abandontransaction", bumped, wallet=HOT)
    await bank.follow()
    assert await hot.in_flight() == [("coin_not_listed", f"{coin[0]}:{coin[1]}", 90_000)], "the first still has it"
    for wallet in (HOT, STRANGER):  # a wallet that knows of one would send it again at its next start
        by_hand.abandon(chain, wallet)
    assert await hot.in_flight() == []


async def test_a_coin_at_a_change_address_is_found_until_it_is_capital(
    bank: Depositors, chain: Chain, hot: HotReconciliation
) -> None:
    sent = chain.pay(by_hand.change_address(chain), 70_000)
    await bank.follow()
    assert await hot.in_flight() == []
    chain.mine()
    planted = [("coin_not_in_books", sent.outpoint, -70_000)]
    assert await hot.findings() == planted
    await bank.follow()
    assert await hot.findings() == planted
    assert await hot.run() is RunStatus.DIFFERS
    await hot.correct(-70_000, reference=sent.outpoint)
    assert await hot.in_flight() == []
    assert await hot.run() is RunStatus.CLEAN


async def test_coins_that_the_wallet_has_no_key_for_are_found_one_by_one(
    bank: Depositors, chain: Chain, hot: HotReconciliation
) -> None:
    whole = chain.copy_wallet()
    await deposit(bank, 90_000)
    coins = (await bank.bitcoind.read_coins()).coins
    chain.call("createwallet", "empty", False, True)
    chain.restore_wallet(HOT, chain.copy_wallet("empty"))
    try:
        found = await hot.findings()
    finally:
        chain.restore_wallet(HOT, whole)
    assert sorted(found) == sorted(("coin_without_key", f"{each.txid}:{each.vout}", each.amount_sat) for each in coins)
    chain.call("rescanblockchain", wallet=HOT)
    assert await hot.in_flight() == []


async def test_locked_immature_and_worthless_outputs_are_no_difference(
    bank: Depositors, chain: Chain, hot: HotReconciliation
) -> None:
    txid, vout = await deposit(bank, 90_000)
    chain.call("lockunspent", False, [{"txid": txid, "vout": vout}], wallet=HOT)
    reward = chain.coinbase_to(await bank.address(await bank.user()))
    await bank.follow()
    assert await hot.in_flight() == []
    chain.mine(99)
    await bank.follow()
    assert await hot.in_flight() == []
    chain.mine()
    (_kind, ref, _amount) = (await hot.in_flight())[0]
    assert ref == f"{reward}:0"
    await bank.follow()
    assert await hot.in_flight() == []


async def test_an_explained_spend_stays_explained_until_the_books_are_corrected(
    ledger_db: Database, bank: Depositors, chain: Chain, hot: HotReconciliation
) -> None:
    spender, left_sat = by_hand.spend(chain, [await deposit(bank, 90_000)], 20_000)
    await bank.follow()
    assert await hot.run() is RunStatus.DIFFERS
    case = await hot.case()
    await hot.explain(case)
    assert await hot.run() is RunStatus.EXPLAINED
    await hot.correct(left_sat - 1, case=case)
    assert await hot.findings() == [("coin_spent", spender, 1)]
    await hot.correct(1, reference=spender)
    assert await hot.in_flight() == []
    assert await hot.run() is RunStatus.CLEAN
    assert await bank.pool.fetchval("SELECT status FROM bank.cases") == "closed"
    await forget(ledger_db)
    assert await hot.in_flight() == []


async def test_an_old_explained_spend_is_carried_and_a_new_one_is_found_beside_it(
    ledger_db: Database, bank: Depositors, chain: Chain, hot: HotReconciliation
) -> None:
    spender, left_sat = by_hand.spend(chain, [await deposit(bank, 90_000)], 20_000)
    await bank.follow()
    assert await hot.run() is RunStatus.DIFFERS
    await hot.explain(await hot.case())
    await forget(ledger_db)
    assert await hot.findings() == [("coin_spent", spender, left_sat)]
    assert await hot.run() is RunStatus.EXPLAINED
    again, more_sat = by_hand.spend(chain, [await deposit(bank, 50_000)], 10_000)
    await bank.follow()
    both = sorted([("coin_spent", spender, left_sat), ("coin_spent", again, more_sat)])
    assert sorted(await hot.findings()) == both
    chain.mine()
    await bank.follow()
    assert sorted(await hot.findings()) == both


async def forget(database: Database) -> None:
    """All that was seen until now was seen long ago, also by the cases."""
    columns = {"coins": "seen_at", "coin_spends": "seen_at", "cases": "created_at", "chains": "adopted_at"}
    statements = [f"UPDATE bank.{table} SET {name} = {name} - interval '90 days'" for table, name in columns.items()]
    await run_as(database.owner_dsn, *statements)


async def test_a_correction_that_names_nothing_is_a_difference(bank: Depositors, hot: HotReconciliation) -> None:
    await hot.correct(500)
    (found,) = (await hot.compare()).findings
    assert (found.kind, found.amount_msat) == ("difference", -500_000)
    assert [each.kind for each in found.suspects] == ["correction"]
    await hot.correct(-500, reference="the other one was wrong")
    assert await hot.in_flight() == []


async def test_nothing_is_said_of_a_bitcoind_that_cannot_be_believed(
    bank: Depositors, chain: Chain, hot: HotReconciliation
) -> None:
    await deposit(bank, 90_000)
    chain.stop()
    with pytest.raises(Unavailable):
        await hot.compare()
    chain.start()
    chain.other_chain()
    with pytest.raises(Unavailable) as refused:
        await hot.compare()
    assert refused.value.fields["reason"] in ("other_network", "behind")
    chain.own_chain()
    assert await hot.in_flight() == []


async def test_nothing_is_found_while_deposits_and_reorganisations_go_on(
    bank: Depositors, chain: Chain, hot: HotReconciliation
) -> None:
    """Runs beside all of it see what is in flight, or that nothing is at rest."""
    addresses = [await bank.address(await bank.user()) for _ in range(5)]
    numbers = itertools.count()
    done = asyncio.Event()

    def storm() -> None:
        sent = [chain.pay(each, 20_000 + next(numbers)) for each in addresses]
        chain.mine()
        chain.reorg(1 + next(numbers) % 3, without=[sent[0].txid], with_=[chain.double_spend(sent[1])])
        chain.bump(chain.pay(addresses[2], 30_000), fee_rate=30, amount_sat=29_000)

    async def disturb() -> None:
        for _ in range(8):
            await asyncio.to_thread(storm)
        done.set()

    async def follow() -> None:
        while not done.is_set():
            await bank.follow()

    async def compare() -> list[str]:
        found: list[str] = []
        while not done.is_set():
            found += [each.kind.value for each in (await hot.compare()).findings]
        return found

    *_, found = await asyncio.gather(disturb(), follow(), compare())
    assert set(found) <= {"place_moving"}
    await bank.follow()
    assert await hot.findings() == []
