"""What two operators decide about a deposit is done once, whatever dies on the way."""

import asyncio

import pytest

from api.service import temporal
from engine.bank.chain.deposit_decision import NewDepositDecision, find_decidable, propose_in_tx
from engine.contracts.deposit import DepositApproval, deposit_start
from engine.domain.deposit_decision import DepositDecisionKind
from engine.domain.errors import Unavailable
from engine.domain.ids import AccountId, DepositDecisionId, DepositId, new_id
from engine.ledger.database import transaction
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.deposit.worker import Point
from workflows.deposit import DepositWorkflow

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

AMOUNT_SAT = 40_000
CAROL, DAVE = AccountId("acct_carol"), AccountId("acct_dave")


async def unattributed(hot: HotBank) -> DepositId:
    """Paid to an address that the books do not know."""
    sent = await hot.pay(None, AMOUNT_SAT)
    await hot.mine()

    async def look() -> str | None:
        found: str | None = await hot.pool.fetchval(
            "SELECT id FROM bank.deposits WHERE txid = $1 AND status = 'unattributed'", sent.txid
        )
        return found

    return DepositId(await eventually(look, "the deposit to be nobody's"))


async def propose(hot: HotBank, deposit: DepositId, user: Depositor) -> DepositDecisionId:
    async with transaction(hot.pool) as conn:
        known = await find_decidable(conn, deposit)
        assert known is not None
        new = NewDepositDecision(
            id=DepositDecisionId(new_id("ddec")),
            deposit_id=deposit,
            kind=DepositDecisionKind.ATTRIBUTE,
            wallet_id=user.wallet_id,
            receivable_id=None,
            amount_msat=known.amount_of(DepositDecisionKind.ATTRIBUTE),
            reason="seen the papers",
            proposed_by=CAROL,
        )
        return await propose_in_tx(conn, new)


async def approve(hot: HotBank, deposit: DepositId, decision: DepositDecisionId) -> None:
    """As the API does it, again and again until it is told that it is done."""
    client = await hot.temporal()
    async with hot.pool.acquire() as conn:
        known = await find_decidable(conn, deposit)
    assert known is not None
    start = deposit_start(
        deposit, known.workflow_id, txid=known.txid, amount_sat=known.amount_sat, account=known.account_id
    )
    approval = DepositApproval(decision=decision, operator=DAVE, key_id="key_dave")

    async def tell() -> bool | None:
        try:
            await temporal.tell(client, start.again(), DepositWorkflow.decide, approval, limit_s=15)
        except Unavailable:
            return None
        return True

    await eventually(tell, "the decision to be carried out")


async def is_done_once(hot: HotBank, deposit: DepositId, decision: DepositDecisionId) -> None:
    row = await hot.pool.fetchrow("SELECT status, decided_by, ref FROM bank.deposit_decisions WHERE id = $1", decision)
    assert row is not None
    assert (row["status"], row["decided_by"]) == ("done", DAVE)
    assert row["ref"] == await hot.pool.fetchval("SELECT release_ref FROM bank.deposits WHERE id = $1", deposit)


@pytest.mark.parametrize("point", ["decide before commit", "decide after commit"])
async def test_a_worker_that_dies_with_a_decision_has_carried_it_out_once(hot: HotBank, point: Point) -> None:
    user = await hot.user()
    deposit = await unattributed(hot)
    decision = await propose(hot, deposit, user)
    await hot.dies(point)
    await approve(hot, deposit, decision)
    await hot.died()
    await approve(hot, deposit, decision)
    await hot.shows(user, "credited", AMOUNT_SAT)
    await is_done_once(hot, deposit, decision)


async def test_a_decision_finds_a_workflow_that_was_terminated_by_hand(hot: HotBank) -> None:
    user = await hot.user()
    deposit = await unattributed(hot)
    decision = await propose(hot, deposit, user)
    client = await hot.temporal()
    workflow_id = await hot.pool.fetchval("SELECT workflow_id FROM bank.deposits WHERE id = $1", deposit)
    await client.get_workflow_handle(workflow_id).terminate("by hand")
    await approve(hot, deposit, decision)
    await hot.shows(user, "credited", AMOUNT_SAT)
    await is_done_once(hot, deposit, decision)


async def test_a_decision_waits_for_a_worker_and_a_reorganisation_takes_it_back(hot: HotBank) -> None:
    user = await hot.user()
    deposit = await unattributed(hot)
    decision = await propose(hot, deposit, user)
    async with hot.worker.away():
        approving = asyncio.create_task(approve(hot, deposit, decision))
        await asyncio.sleep(0)
    await approving
    await hot.shows(user, "credited", AMOUNT_SAT)
    txid = await hot.pool.fetchval("SELECT txid FROM bank.deposits WHERE id = $1", deposit)
    await asyncio.to_thread(lambda: hot.chain.reorg(1, without=[txid]))
    await hot.shows(user, "reversed", incoming=AMOUNT_SAT)
    await hot.mine()
    await hot.shows(user, "credited", AMOUNT_SAT)
    await is_credited_again(hot, deposit)


async def is_credited_again(hot: HotBank, deposit: DepositId) -> None:
    """It has an owner now, so nobody must decide again."""
    row = await hot.pool.fetchrow("SELECT place, confs, release_ref FROM bank.deposits WHERE id = $1", deposit)
    assert row is not None
    assert (row["place"], row["confs"], row["release_ref"]) == ("wallet", 2, None)
