"""The rows of payouts: which coins are free, who has them, and which step follows which."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.bank.withdrawal import member, payout, queue, version
from engine.bank.withdrawal.coin import (
    list_free,
    list_reserved,
    lock_coins_in_tx,
    release_in_tx,
    reserve_in_tx,
    sum_free,
)
from engine.domain.deposit import Outpoint
from engine.domain.errors import Conflict, InvariantBroken
from engine.domain.ids import AccountId, PayoutId, Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.withdrawal import Speed, VersionKind
from engine.ledger.database import transaction
from tests.fixtures.postgres import Database
from tests.helpers.withdrawal.teller import Withdrawers, running_withdrawers

pytestmark = pytest.mark.integration

AMOUNT_SAT = 100_000


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Withdrawers]:
    async with running_withdrawers(ledger_db, tmp_path) as found:
        yield found


async def free(bank: Withdrawers, **more: Any) -> list[int]:
    """The amounts of the coins that may be spent."""
    async with bank.pool.acquire() as conn:
        coins = await list_free(conn, "hot", **{"min_depth": 1, "limit": 100, **more})
    return [each.amount_sat for each in coins]


async def payout_of_one(bank: Withdrawers, **more: Any) -> PayoutId:
    user = await bank.user(10**9)
    return await bank.seal([await bank.opened(user, AMOUNT_SAT)], **more)


async def test_a_coin_is_free_when_it_is_ours_deep_and_unspent(bank: Withdrawers) -> None:
    await bank.coin(1_000)
    await bank.coin(2_000, opening=True, change=False)
    await bank.coin(3_000, block_height=None)
    await bank.coin(4_000, gone=True)
    await bank.coin(5_000, spent_by="ab" * 32)
    await bank.coin(6_000, address=None)
    await bank.coin(7_000, block_height=98)
    await bank.coin(8_000, change=False)
    assert await free(bank) == [7_000, 2_000, 1_000]
    assert await free(bank, min_depth=3) == [7_000, 2_000, 1_000]
    assert await free(bank, min_depth=4) == [2_000, 1_000]
    assert await free(bank, limit=1) == [7_000]
    async with bank.pool.acquire() as conn:
        assert await sum_free(conn, "hot", min_depth=1, most=2) == 9_000
        assert await list_free(conn, "other", min_depth=1, limit=10) == []


async def test_a_deposit_is_free_once_it_is_booked_and_has_an_owner(bank: Withdrawers) -> None:
    alice = await bank.user(0)

    async def deposited(owner: Any, amount_sat: int, height: int | None = 100, **more: Any) -> None:
        found = await bank.depositor.see(owner, amount_sat, **more)
        if height is not None:
            await bank.depositor.book(found, height)
        row = await bank.pool.fetchrow("SELECT txid, vout, address FROM bank.deposits WHERE id = $1", found)
        assert row is not None
        await bank.coin(amount_sat, change=False, block_height=height, **row)

    await deposited(alice, 10_000)
    await deposited(alice, 20_000, None)
    await deposited(None, 30_000)
    await deposited(alice, 40_000, over_limit=True)
    assert await free(bank) == [40_000, 10_000]
    await bank.payers.api.database.execute("UPDATE bank.deposits SET coinbase = true WHERE amount_sat = 10000")
    assert await free(bank) == [40_000]
    await bank.depositor.reach(199)
    assert await free(bank) == [40_000, 10_000]
    await bank.payers.api.database.execute(
        "UPDATE bank.deposits SET sight = 'gone', block_height = NULL, block_hash = NULL"
    )
    assert await free(bank) == []


async def test_unlinked_coins_descend_from_none_of_the_accounts(bank: Withdrawers) -> None:
    await bank.coin(1_000)
    await bank.coin(2_000, origins=["acct_a"])
    await bank.coin(3_000, origins=["acct_b", "acct_a"])
    await bank.coin(4_000, origins=["unknown"])
    await bank.coin(5_000, origins=["acct_c"])
    assert await free(bank, unlinked_to=[AccountId("acct_a")]) == [5_000, 1_000]
    assert await free(bank, unlinked_to=[AccountId("acct_b"), AccountId("acct_c")]) == [2_000, 1_000]
    assert await free(bank, unlinked_to=[]) == [5_000, 3_000, 2_000, 1_000]
    assert await free(bank) == [5_000, 4_000, 3_000, 2_000, 1_000]


async def test_a_coin_is_promised_to_one_payout(bank: Withdrawers) -> None:
    coin, other = await bank.coin(10**6), await bank.coin(10**5)
    first = await payout_of_one(bank, coin=coin)
    assert await free(bank) == [10**5]
    user = await bank.user(10**9)
    made = await bank.opened(user, AMOUNT_SAT)
    with pytest.raises(Conflict) as refused:
        await bank.seal([made], coin=coin)
    assert refused.value.code == "coin_reserved"
    assert (await bank.row(made)).status == "queued"
    second = await bank.seal([made], coin=other)
    async with transaction(bank.pool) as conn:
        await reserve_in_tx(conn, first, [coin])
        assert await list_reserved(conn, first) == [coin]
        with pytest.raises(Conflict):
            await reserve_in_tx(conn, second, [coin])
        await release_in_tx(conn, first)
        await release_in_tx(conn, first)
    assert await free(bank) == [10**6]


async def test_the_coins_of_a_wallet_are_chosen_one_after_the_other(bank: Withdrawers) -> None:
    async with transaction(bank.pool) as conn:
        await lock_coins_in_tx(conn, "hot")

        async def choose(wallet: str) -> None:
            async with transaction(bank.pool) as second:
                await lock_coins_in_tx(second, wallet)

        await choose("other")
        waiting = asyncio.create_task(choose("hot"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    await waiting


async def test_each_step_follows_the_one_before(bank: Withdrawers) -> None:
    made = await payout_of_one(bank)
    async with transaction(bank.pool) as conn:
        row = await payout.get_row_in_tx(conn, made)
        assert (row.status, row.kind, row.speed, row.estimate["source"]) == ("planned", "batch", "standard", "fixed")
        for step in (
            payout.mark_broadcast_in_tx(conn, made, ref="x", fee_sat=Sat(1)),
            payout.mark_confirmed_in_tx(conn, made, version=1, block_height=7),
            payout.mark_final_in_tx(conn, made),
        ):
            with pytest.raises(InvariantBroken):
                await step
    await bank.sign(made)
    await bank.send(made)
    async with transaction(bank.pool) as conn:
        await payout.note_problem_in_tx(conn, made, "x" * 2_000)
        await payout.set_hold_in_tx(conn, made, on_hold=True)
        await payout.set_bump_in_tx(conn, made, 9_000)
        await payout.book_fee_in_tx(conn, made, number=1, fee_sat=Sat(990))
        with pytest.raises(InvariantBroken):
            await payout.book_fee_in_tx(conn, made, number=1, fee_sat=Sat(990))
        await payout.mark_confirmed_in_tx(conn, made, version=1, block_height=7)
        await member.mark_confirmed_in_tx(conn, made)
        row = await payout.get_row_in_tx(conn, made)
        assert (row.status, row.block_height, row.problem, row.bump_to_sat_kvb) == ("confirmed", 7, None, None)
        assert (row.fee_booked_sat, row.bookings, row.on_hold) == (990, 1, True)
        (paid,) = await member.list_members(conn, made)
        assert (paid.status, paid.place, paid.vout, paid.paid_sat) == ("confirmed", 0, 0, AMOUNT_SAT)
        await payout.mark_unconfirmed_in_tx(conn, made)
        await member.mark_unconfirmed_in_tx(conn, made)
        assert [each.status for each in await member.list_members(conn, made)] == ["broadcast"]
        assert [each.id for each in await payout.list_alive(conn, "hot", limit=10)] == [made]
        await payout.mark_confirmed_in_tx(conn, made, version=1, block_height=8)
        await member.mark_confirmed_in_tx(conn, made)
        await payout.mark_final_in_tx(conn, made)
        assert await payout.list_alive(conn, "hot", limit=10) == []


async def test_a_version_keeps_what_it_has(bank: Withdrawers) -> None:
    made = await payout_of_one(bank)
    txid = await bank.sign(made)
    coins = [Outpoint(txid=Txid(f"{number:064x}"), vout=number) for number in (9, 1, 5)]
    async with transaction(bank.pool) as conn:
        for step in (
            version.set_draft_in_tx(conn, made, 1, psbt="other", change_address=None),
            version.set_signed_in_tx(conn, made, 1, raw="11", txid=Txid("cd" * 32)),
        ):
            with pytest.raises(InvariantBroken):
                await step
        bump = version.NewVersion(
            payout_id=made,
            number=2,
            kind=VersionKind.BUMP,
            rate_sat_kvb=9_000,
            fee_sat=Sat(990),
            weight=440,
            change_sat=Sat(20_000),
            change_vout=1,
            inputs=[version.Input(outpoint=each, amount_sat=Sat(5)) for each in coins],
        )
        await version.add_in_tx(conn, bump)
        with pytest.raises(InvariantBroken):
            await version.add_in_tx(conn, bump)
        await version.set_draft_in_tx(conn, made, 2, psbt="cHNidA==", change_address="bcrt1qchange")
        await version.note_refused_in_tx(conn, made, 2, "too cheap")
        first, second = await version.list_versions(conn, made)
        assert (first.txid, first.kind, first.refused) == (txid, "first", None)
        assert [each.outpoint for each in second.inputs] == coins
        assert (second.change_address, second.raw, second.refused) == ("bcrt1qchange", None, "too cheap")
        found = await version.find_of_txid(conn, txid)
        assert found == first
        assert await version.find_of_txid(conn, Txid("00" * 32)) is None


async def test_the_queue_is_looked_at_and_noted(bank: Withdrawers) -> None:
    user = await bank.user(10**11)
    made = [await bank.opened(user, AMOUNT_SAT) for _ in range(3)]
    await bank.opened(user, 10_000_001)
    await bank.opened(user, AMOUNT_SAT, speed=Speed.FAST)
    async with transaction(bank.pool) as conn:
        assert (await queue.look(conn, Speed.STANDARD)).count == 3
        assert (await queue.look(conn, Speed.SLOW)).count == 0
        assert [each.id for each in await queue.list_queued_in_tx(conn, Speed.STANDARD, limit=2)] == made[:2]
        await queue.note_waits_in_tx(conn, {made[0]: "coins " * 200})
        assert await queue.list_accounts(conn, made) == {user.id}
    assert (await bank.look(made[0])).waits_for.startswith("coins coins")
    await bank.seal(made[:1])
    assert (await bank.row(made[0])).waits_for is None
