"""Members that no payout can ever take fail once, whichever groups of the queue they are planned in."""

import asyncio

import pytest

from engine.bank.withdrawal.balance import lock_available_in_tx
from engine.domain.ids import WithdrawalId
from engine.ledger.database import transaction
from infra.local.bitcoin_rpc import HOT
from tests.helpers.deposit.depositor import Depositor
from tests.helpers.payout.desk import PayoutDesk
from tests.helpers.withdrawal.rules import set_rules

pytestmark = pytest.mark.integration

_WAITS = """SELECT EXISTS(SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                       WHERE NOT l.granted AND a.datname = current_database())"""
_DEAR = {"floor": 500_000, "ceiling": 500_000, "fallback": 500_000, "stale_s": 3600}
"""A share of 15,500 sat for a key hash, and of 21,500 sat for a taproot key, above the cap of 20,000 sat."""


async def _status(desk: PayoutDesk, asked: WithdrawalId) -> tuple[str, str | None]:
    row = await desk.bank.pool.fetchrow("SELECT status, failure_code FROM bank.withdrawals WHERE id = $1", asked)
    assert row is not None
    return row["status"], row["failure_code"]


async def test_an_unlinked_one_fails_once_although_the_others_of_its_group_wait(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    """Together nobody can go, and then each is planned by itself."""
    bank = payout_desk.bank
    other = await bank.user()
    bank.chain.pay(await bank.address(other), 200_000)
    bank.chain.mine(6)
    await bank.follow()
    waits = await payout_desk.opened(saver, 350_000, alone=False, unlinked=True)
    taproot = bank.chain.call("getnewaddress", "", "bech32m", wallet=HOT)
    fails = await payout_desk.opened(other, 50_000, to=taproot, alone=False, unlinked=True)
    await set_rules(bank.pool, rate=_DEAR)
    assert await payout_desk.form() == []
    assert await _status(payout_desk, fails) == ("failed", "fee_cap_too_low")
    assert await _status(payout_desk, waits) == ("queued", None)
    assert await bank.money(other) == (200_000, 0)
    await bank.prove()


async def test_members_fail_by_their_accounts_while_others_lock_the_same(
    payout_desk: PayoutDesk, saver: Depositor
) -> None:
    """The younger account has asked first. Who locks both, the older one first as all do, waits for nobody."""
    bank = payout_desk.bank
    other = await bank.user()
    bank.chain.pay(await bank.address(other), 200_000)
    bank.chain.mine(6)
    await bank.follow()
    for user in (other, saver):
        await payout_desk.opened(user, 50_000, alone=False)
    await set_rules(bank.pool, rate={**_DEAR, "floor": 700_000, "ceiling": 700_000, "fallback": 700_000})
    assert saver.ledger_account_id < other.ledger_account_id
    async with transaction(bank.pool) as conn:
        await lock_available_in_tx(conn, [saver.ledger_account_id])
        forming = asyncio.create_task(payout_desk.form())
        while not await bank.pool.fetchval(_WAITS):
            await asyncio.sleep(0.02)
        await conn.execute("SET LOCAL lock_timeout = '200ms'")
        await lock_available_in_tx(conn, [other.ledger_account_id])
    assert await forming == []
    ended = await bank.pool.fetch("SELECT status, failure_code FROM bank.withdrawals")
    assert [tuple(row) for row in ended] == [("failed", "fee_cap_too_low")] * 2
    await bank.prove()
