"""What becomes of deposits in the books: every state, on a real bitcoind and real Postgres."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.chain import Chain
from tests.helpers.deposit.depositor import Depositors

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def bank(ledger_db: Database, chain: Chain) -> AsyncIterator[Depositors]:
    async with Depositors.open(ledger_db.app_dsn, chain) as bank:
        yield bank
        await bank.prove()


async def test_seen_mined_credited_and_deep(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    sent = chain.pay(await bank.address(alice), 50_000)
    await bank.follow()
    assert await bank.money(alice) == (0, 50_000)
    assert (await bank.row())["status"] == "pending"
    chain.mine()
    await bank.follow()
    row = await bank.row()
    assert (row["status"], row["txid"], row["workflow_id"]) == (
        "credited",
        sent.txid,
        f"deposit-{sent.txid}-{sent.vout}",
    )
    assert await bank.money(alice) == (50_000, 0)
    chain.mine(4)
    await bank.follow()
    assert (await bank.row())["final_at"] is None
    chain.mine()
    await bank.follow()
    assert (await bank.row())["final_at"] is not None
    chain.mine(3)
    await bank.follow()
    assert await bank.money(alice) == (50_000, 0)


async def test_larger_amounts_need_more_confirmations(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    chain.pay(await bank.address(alice), 1_000_000)
    chain.pay(await bank.address(alice), 1_000_001)
    chain.mine()
    await bank.follow()
    assert await bank.money(alice) == (1_000_000, 1_000_001)
    chain.mine(2)
    await bank.follow()
    assert await bank.money(alice) == (2_000_001, 0)


async def test_made_while_everything_was_down_and_deep_in_one_step(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    chain.pay(await bank.address(alice), 50_000)
    chain.mine(8)
    await bank.follow()
    row = await bank.row()
    assert (row["status"], row["holds"], row["final_at"] is not None) == ("credited", 0, True)
    assert await bank.money(alice) == (50_000, 0)


async def test_many_outputs_of_one_transaction_and_an_address_paid_twice(bank: Depositors, chain: Chain) -> None:
    alice, bob = await bank.user(), await bank.user()
    hers, his = await bank.address(alice), await bank.address(bob)
    chain.pay_many([(hers, 10_000), (hers, 20_000), (his, 30_000), (await bank.address(bob), 40_000)])
    await bank.follow()
    assert (await bank.money(alice), await bank.money(bob)) == ((0, 30_000), (0, 70_000))
    chain.mine()
    chain.pay(hers, 5_000)  # years later
    chain.mine(2)
    await bank.follow()
    assert (await bank.money(alice), await bank.money(bob)) == ((35_000, 0), (70_000, 0))


@pytest.mark.parametrize("amount_sat", [None, 70_000, 20_000])
async def test_replaced_many_times_is_one_deposit(bank: Depositors, chain: Chain, amount_sat: int | None) -> None:
    alice = await bank.user()
    sent = chain.pay(await bank.address(alice), 50_000)
    await bank.follow()
    for rate in (10, 20, 40):
        sent = chain.bump(sent, fee_rate=rate, amount_sat=amount_sat)
        await bank.follow()
        assert await bank.money(alice) == (0, amount_sat or 50_000)
        assert (await bank.row())["txid"] == sent.txid
    chain.mine()
    await bank.follow()
    assert await bank.money(alice) == (amount_sat or 50_000, 0)
    assert (await bank.row())["status"] == "credited"


async def test_replaced_while_nobody_looked_is_one_deposit(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    sent = chain.pay(await bank.address(alice), 50_000)
    await bank.follow()
    for rate in (10, 20):
        sent = chain.bump(sent, fee_rate=rate)
    chain.mine()
    await bank.follow()
    assert (await bank.row())["txid"] == sent.txid
    assert await bank.money(alice) == (50_000, 0)


async def test_replaced_by_a_payment_to_somebody_else_is_dropped(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    sent = chain.pay(await bank.address(alice), 50_000)
    await bank.follow()
    chain.bump(sent, fee_rate=20, to=chain.address("miner"))
    await bank.follow()
    assert await bank.money(alice) == (0, 0)
    assert (await bank.row())["status"] == "dropped"
    chain.mine(7)
    await bank.follow()
    assert await bank.money(alice) == (0, 0)
    assert (await bank.row())["status"] == "dropped"


async def test_evicted_and_back(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    sent = chain.pay(await bank.address(alice), 50_000)
    await bank.follow()
    content = chain.evict(sent.txid)
    await bank.follow()
    assert await bank.money(alice) == (0, 0)
    assert (await bank.row())["status"] == "dropped"
    chain.return_(content)
    await bank.follow()
    assert await bank.money(alice) == (0, 50_000)
    chain.mine()
    await bank.follow()
    assert await bank.money(alice) == (50_000, 0)
    assert (await bank.row())["holds"] == 2


@pytest.mark.parametrize("depth", [1, 2, 6, 12])
@pytest.mark.parametrize("way", ["left out", "double spent"])
async def test_taken_back_by_a_reorganisation_and_credited_again(
    bank: Depositors, chain: Chain, depth: int, way: str
) -> None:
    alice = await bank.user()
    sent = chain.pay(await bank.address(alice), 50_000)
    rival = chain.double_spend(sent)
    chain.mine(depth)
    await bank.follow()
    assert await bank.money(alice) == (50_000, 0)
    double_spent, old = way == "double spent", chain.tip()
    if double_spent:
        chain.reorg(depth, with_=[rival])
    else:
        chain.reorg(depth, without=[sent.txid])
    await bank.follow()
    assert await bank.money(alice) == ((0, 0) if double_spent else (0, 50_000))
    assert (await bank.row())["status"] == "reversed"
    if double_spent:
        chain.come_back(old)
    else:
        chain.mine()
    await bank.follow()
    row = await bank.row()
    assert (row["status"], row["confs"]) == ("credited", 2)
    assert await bank.money(alice) == (50_000, 0)


@pytest.mark.parametrize("depth", [1, 6])
async def test_spent_money_becomes_a_receivable_and_is_repaid(bank: Depositors, chain: Chain, depth: int) -> None:
    alice = await bank.user()
    sent = chain.pay(await bank.address(alice), 50_000)
    chain.mine(depth)
    await bank.follow()
    await bank.spend(alice, 30_000)
    chain.reorg(depth, without=[sent.txid])
    await bank.follow()
    assert await bank.money(alice) == (0, 50_000)
    assert await bank.receivables(alice) == [("open", 30_000)]
    assert await bank.pool.fetchval("SELECT status FROM bank.accounts WHERE id = $1", alice.id) == "locked"
    assert await bank.settled("exp:loss") == 30_000
    chain.mine()
    await bank.follow()
    assert await bank.money(alice) == (20_000, 0)
    assert await bank.receivables(alice) == [("repaid", 30_000)]
    assert await bank.settled("exp:loss") == 0


async def test_an_invalidated_block_takes_money_back_although_the_chain_is_shorter_then(
    bank: Depositors, chain: Chain
) -> None:
    alice = await bank.user()
    chain.pay(await bank.address(alice), 50_000)
    chain.mine(2)
    await bank.follow()
    for block in (chain.tip(), chain.rpc().call("getblockhash", chain.height() - 1)):
        chain.invalidate(block)
    await bank.follow()
    assert (await bank.row())["status"] == "reversed"
    assert await bank.money(alice) == (0, 50_000)
    chain.mine()
    await bank.follow()
    assert (await bank.row())["status"] == "credited"
    assert await bank.money(alice) == (50_000, 0)


async def test_a_block_that_comes_back_changes_nothing(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    chain.pay(await bank.address(alice), 50_000)
    chain.mine(2)
    await bank.follow()
    block = chain.tip()
    chain.invalidate(block)
    chain.reconsider(block)
    await bank.follow()
    row = await bank.row()
    assert (row["status"], row["confs"]) == ("credited", 1)


async def test_mined_again_in_another_block_between_two_looks(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    chain.pay(await bank.address(alice), 50_000)
    chain.mine(2)
    await bank.follow()
    before = await bank.row()
    chain.reorg(2)
    await bank.follow()
    after = await bank.row()
    assert before["block_hash"] != after["block_hash"]
    assert (after["status"], after["confs"]) == ("credited", 1)


async def test_a_conflict_deeper_than_the_cursor(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    sent = chain.pay(await bank.address(alice), 50_000)
    rival = chain.double_spend(sent)
    await bank.follow()
    chain.mine(txs=[rival])
    chain.mine(3)
    height, found = chain.height(), chain.tip()
    await bank.pool.execute(  # a pump that looked, and whose node told it nothing of the conflict
        "INSERT INTO bank.blocks(wallet, height, hash) VALUES ('hot', $1, $2)", height, found
    )
    await bank.pool.execute("UPDATE bank.chains SET tip_height = $1, tip_hash = $2", height, found)
    chain.mine()
    await bank.follow()
    assert await bank.money(alice) == (0, 0)
    assert (await bank.row())["status"] == "dropped"


async def test_below_the_minimum_is_booked_and_not_credited(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    chain.pay(await bank.address(alice), 999)
    await bank.follow()
    assert (await bank.row())["status"] == "below_minimum"
    assert await bank.money(alice) == (0, 0)
    chain.mine()
    await bank.follow()
    assert await bank.settled("liab:deposits-pending") == -999
    assert (await bank.row())["status"] == "below_minimum"


async def test_for_nobody_it_waits_in_suspense(bank: Depositors, chain: Chain) -> None:
    chain.pay(await bank.address(None), 50_000)
    chain.pay(chain.address(), 60_000)
    chain.mine()
    await bank.follow()
    assert {row["status"] for row in await bank.rows()} == {"unattributed"}
    assert await bank.settled("suspense:in") == -110_000


async def test_a_coinbase_is_credited_when_it_is_mature(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    chain.coinbase_to(await bank.address(alice))
    await bank.follow()
    amount = (await bank.row())["amount_sat"]
    assert await bank.money(alice) == (0, amount)
    chain.mine(99)
    await bank.follow()
    assert await bank.money(alice) == (0, amount)
    chain.mine()
    await bank.follow()
    assert await bank.money(alice) == (amount, 0)


async def test_a_bare_multisig_is_ignored(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    address = await bank.address(alice)
    await asyncio.to_thread(chain.bare_multisig, address, 50_000, also_sat=7_000)
    await bank.follow()
    assert await bank.money(alice) == (7_000, 0)


async def test_many_in_one_block_share_their_workflows(bank: Depositors, chain: Chain) -> None:
    users = [await bank.user() for _ in range(5)]
    chain.pay_many([(await bank.address(users[number % 5]), 2_000 + number) for number in range(60)])
    await bank.follow()
    chain.mine()
    await bank.follow()
    assert {row["status"] for row in await bank.rows()} == {"credited"}
    assert not any(row["alone"] for row in await bank.rows())
    chain.mine(5)
    await bank.follow()
    assert all(row["final_at"] for row in await bank.rows())


async def test_limits_hold_what_exceeds_them(bank: Depositors, chain: Chain) -> None:
    await bank.pool.execute(
        """INSERT INTO bank.rulebooks(name, version, content, note, set_by)
           SELECT 'limits', max(version) + 1, '{"levels": {"0": {"deposit": {"day_sat": 60000}}}}', 'test', 'test'
             FROM bank.rulebooks WHERE name = 'limits'"""
    )
    alice = await bank.user()
    chain.pay(await bank.address(alice), 50_000)
    await bank.follow()
    chain.pay(await bank.address(alice), 10_001)
    chain.mine()
    await bank.follow()
    assert await bank.money(alice) == (50_000, 0)
    assert [row["status"] for row in await bank.rows(alice)] == ["credited", "held"]
    assert await bank.settled("liab:deposits-pending") == -10_001


async def test_a_rescan_from_any_height_changes_nothing(bank: Depositors, chain: Chain) -> None:
    alice = await bank.user()
    chain.pay(await bank.address(alice), 50_000)
    chain.mine(3)
    await bank.follow()
    before = [dict(row) for row in await bank.rows()]
    for height in (0, 1, chain.height() - 2, chain.height()):
        await bank.pool.execute("UPDATE bank.chains SET rescan_from = $1", height)
        await bank.follow()
        assert [dict(row) for row in await bank.rows()] == before
        assert await bank.pool.fetchval("SELECT rescan_from FROM bank.chains") is None
