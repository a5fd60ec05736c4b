"""Workflows that are ended by hand, one of each kind and in each state, and Temporal's data lost.

The pump begins what is due, the janitor what waits for operators, and a worker the pump.
"""

import asyncio

import asyncpg
import pytest

from engine.contracts import workflow_ids
from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from infra.local.chain.payer import Sent
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.deposit.depositor import WALLET, Depositor
from tests.helpers.running_workflow import terminate, tidied

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


def workflow_of(sent: Sent) -> str:
    return workflow_ids.deposit(Outpoint(txid=Txid(sent.txid), vout=sent.vout))


async def credited(hot: HotBank, amount_sat: int = 50_000) -> tuple[Depositor, Sent]:
    user = await hot.user()
    sent = await hot.pay(user, amount_sat)
    await hot.mine()
    await hot.shows(user, "credited", amount_sat)
    return user, sent


async def test_the_pump(hot: HotBank) -> None:
    alice = await hot.user()
    await terminate(hot, workflow_ids.chain_pump(WALLET))
    await hot.pay(alice, 50_000)
    await hot.mine()
    await hot.shows(alice, "credited", 50_000)
    assert [row["confs"] for row in await hot.rows(alice)] == [1]


@pytest.mark.parametrize("begins", ["pump", "janitor"])
async def test_a_deposit_that_is_pending_or_credited(hot: HotBank, begins: str) -> None:
    """In every state that waits for a block; the next step finds it ended, or begun again before."""
    alice = await hot.user()
    sent = await hot.pay(alice, 50_000)
    await hot.shows(alice, "pending", incoming=50_000)

    async def end() -> None:
        await terminate(hot, workflow_of(sent))
        if begins == "janitor":
            await tidied(hot, workflow_of(sent))

    await end()
    await hot.mine()
    await hot.shows(alice, "credited", 50_000)
    await end()
    conflict = await asyncio.to_thread(hot.chain.double_spend, sent)
    old = await asyncio.to_thread(hot.chain.tip)
    await hot.spend(alice, 20_000)
    await asyncio.to_thread(lambda: hot.chain.reorg(1, with_=[conflict]))
    await hot.shows(alice, "reversed")
    await end()
    await asyncio.to_thread(hot.chain.come_back, old)
    await hot.shows(alice, "credited", 30_000)
    await end()
    await hot.mine(6)

    async def final() -> bool | None:
        return True if (await hot.rows(alice))[0]["final_at"] else None

    await eventually(final, "the deposit to lie deep")
    assert [(row["holds"], row["confs"]) for row in await hot.rows(alice)] == [(1, 2)]


async def test_a_receivable_and_a_deposit_for_nobody_wait_for_operators_again(hot: HotBank) -> None:
    alice, sent = await credited(hot)
    await hot.spend(alice, 50_000)
    conflict = await asyncio.to_thread(hot.chain.double_spend, sent)
    await asyncio.to_thread(lambda: hot.chain.reorg(1, with_=[conflict]))
    await hot.shows(alice, "reversed")
    nobodys = await hot.pay(None, 60_000)
    await hot.mine()

    async def parked() -> bool | None:
        is_parked = "SELECT status = 'unattributed' FROM bank.deposits WHERE txid = $1"
        return True if await hot.pool.fetchval(is_parked, nobodys.txid) else None

    await eventually(parked, "the deposit to be parked")
    for each in (sent, nobodys):
        await terminate(hot, workflow_of(each))
    await tidied(hot, workflow_of(sent), workflow_of(nobodys))


async def test_a_page_of_deposits_whose_worker_is_gone_as_well(hot: HotBank) -> None:
    """Terminated within its transaction: nobody else knows that the page was begun."""
    users = [await hot.user() for _ in range(2)]
    addresses = [await hot.address(users[number % 2]) for number in range(24)]
    await asyncio.to_thread(hot.chain.pay_many, [(address, 2_000) for address in addresses])
    for user in users:
        await hot.shows(user, "pending", incoming=24_000)
    holder = await asyncpg.connect(hot.database.owner_dsn)
    await holder.execute("BEGIN")
    await holder.execute("SELECT FROM ledger.balances WHERE account_id = $1 FOR UPDATE", users[0].ledger_account_id)
    await hot.mine()
    temporal = await hot.temporal()
    query = 'ExecutionStatus = "Running" AND WorkflowType = "DepositPageWorkflow"'

    async def listed() -> list[str] | None:
        return [found.id async for found in temporal.list_workflows(query)] or None

    pages = await eventually(listed, "the page's workflow")
    await hot.worker.kill()
    for page in pages:
        await terminate(hot, page)
    holder.terminate()
    for user in users:
        await hot.shows(user, "credited", 24_000)
        assert {row["confs"] for row in await hot.rows(user)} == {1}


async def test_the_data_of_temporal_is_lost(hot: HotBank) -> None:
    """A fresh Temporal at the same address, while deposits are in every state and another one comes."""
    waiting, unseen = await hot.user(), await hot.user()
    has_it, _ = await credited(hot)
    lost, sent = await credited(hot)
    spent, spent_sent = await credited(hot)
    await hot.spend(spent, 30_000)
    nobodys = await hot.pay(None, 60_000)
    await hot.pay(waiting, 50_000)
    await hot.shows(waiting, "pending", incoming=50_000)
    address = await hot.address(unseen)
    await hot.environment.shutdown()
    await asyncio.to_thread(hot.chain.pay, address, 50_000)
    conflict = await asyncio.to_thread(hot.chain.double_spend, sent)
    hot.environment = await hot.start_temporal()
    await hot.shows(unseen, "pending", incoming=50_000)
    await asyncio.to_thread(lambda: hot.chain.reorg(3, with_=[conflict], without=[spent_sent.txid]))
    await hot.shows(lost, "reversed")
    await hot.shows(spent, "reversed", incoming=50_000)
    await hot.mine()
    await hot.shows(waiting, "credited", 50_000)
    await hot.shows(unseen, "credited", 50_000)
    await hot.shows(has_it, "credited", 50_000)
    await hot.shows(spent, "credited", 20_000)
    await tidied(hot, workflow_of(nobodys))
