"""Withdrawals in the real books, without Temporal and bitcoind: opened, refused, cancelled and paid in the books."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.domain.ids import AccountId, WalletId
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import address_of, fill_pool
from tests.helpers.api import ADMIN, User
from tests.helpers.limit import capped, set_limits, set_rules, used
from tests.helpers.withdrawal.teller import CAP_SAT, SAT, Withdrawers, outside, running_withdrawers

pytestmark = pytest.mark.integration

AMOUNT_SAT = 100_000
FEES = {"withdrawal": [{"flat_msat": 200_000}], "internal": [{"flat_msat": 1_500}]}


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Withdrawers]:
    async with running_withdrawers(ledger_db, tmp_path) as found:
        yield found


async def give_address(bank: Withdrawers, user: User, number: int = 7) -> str:
    """An address of this user, as the pool would give it."""
    await fill_pool(bank.payers.api.database, 1, start=number)
    address = address_of(number)
    await bank.payers.api.database.execute(
        """UPDATE bank.addresses SET wallet_id = $2, account_id = $3, purpose = 'api', given_at = clock_timestamp()
            WHERE address = $1""",
        address,
        WalletId(user.wallet_id),
        AccountId(user.id),
    )
    return address


async def set_status(bank: Withdrawers, user: User, status: str) -> None:
    answer = await bank.payers.api.http.patch(
        f"/v1/admin/accounts/{user.id}", json={"status": status, "note": "test"}, headers=ADMIN
    )
    assert answer.status_code == 200, answer.text


async def test_amount_fee_cap_and_our_fee_are_held_until_it_is_cancelled(bank: Withdrawers) -> None:
    await set_rules(bank.payers, "fees", FEES)
    alice = await bank.user(10**9)
    made = await bank.opened(alice, AMOUNT_SAT)
    held = (AMOUNT_SAT + CAP_SAT + 200) * SAT
    assert await alice.balance() == (10**9, held)
    state = await bank.look(made)
    assert (state.status, state.joins, state.needs_operator) == ("queued", True, False)
    assert await bank.cancel(made) == "cancelled"
    assert await bank.cancel(made) == "cancelled"
    assert await alice.balance() == (10**9, 0)
    assert await bank.settled("liab:payout-queue") == 0


async def test_the_same_key_gets_the_first_answer(bank: Withdrawers) -> None:
    alice = await bank.user(10**9)
    first = await bank.open(alice, AMOUNT_SAT, key="k")
    assert await bank.open(alice, AMOUNT_SAT, key="k") == first
    assert (await alice.balance())[1] == (AMOUNT_SAT + CAP_SAT) * SAT
    other = await bank.open(alice, AMOUNT_SAT + 1, key="k")
    assert (other.state, other.refusal, other.body_hash) == (None, None, first.body_hash)
    refused = await bank.open(alice, 10**7, key="poor")
    assert refused.refusal is not None
    assert refused.refusal.code == "insufficient_funds"
    await bank.payers.fund(alice, 10**11)
    assert await bank.open(alice, 10**7, key="poor") == refused


async def test_two_at_once_with_one_key_hold_once(bank: Withdrawers) -> None:
    alice = await bank.user(10**9)
    found = await asyncio.gather(*(bank.open(alice, AMOUNT_SAT, key="k") for _ in range(5)))
    assert [each.state.status for each in found if each.state] == ["queued"] * 5
    assert (await alice.balance())[1] == (AMOUNT_SAT + CAP_SAT) * SAT


async def test_two_at_once_with_one_balance_hold_once(bank: Withdrawers) -> None:
    alice = await bank.user((AMOUNT_SAT + CAP_SAT) * SAT)
    outcomes = await asyncio.gather(*(bank.outcome(alice, AMOUNT_SAT) for _ in range(5)))
    assert sorted(outcomes) == [*["insufficient_funds"] * 4, "queued"]
    assert await alice.available() == 0


async def test_a_key_of_a_payment_belongs_to_it(bank: Withdrawers) -> None:
    alice, bob = await bank.user(10**9), await bank.user(0)
    assert await bank.payers.outcome(alice, bob, 1_000, key="k") == "settled"
    found = await bank.open(alice, AMOUNT_SAT, key="k")
    assert (found.state, found.refusal) == (None, None)


async def test_each_refusal_holds_nothing(bank: Withdrawers) -> None:
    await set_rules(bank.payers, "fees", FEES)
    alice = await bank.user(10**9)
    assert await bank.outcome(alice, 10**6) == "insufficient_funds"
    assert await bank.outcome(alice, 293) == "dust_amount"
    assert await bank.outcome(alice, 999) == "amount_too_small"
    assert await bank.outcome(alice, AMOUNT_SAT, max_fee_sat=230) == "fee_limit_exceeded"
    assert await bank.outcome(alice, AMOUNT_SAT, max_fee_sat=231) == "queued"
    assert await bank.outcome(alice, AMOUNT_SAT, max_fee_sat=2**63) == "invalid_request"
    assert await bank.outcome(alice, 2**63) == "invalid_request"
    assert await bank.outcome(alice, -1) == "invalid_request"
    assert await bank.outcome(alice, AMOUNT_SAT, unlinked=True) == "mix_pool_insufficient"
    assert await bank.outcome(await bank.user(0), None) == "insufficient_funds"
    assert await bank.outcome(await bank.user(999_999), None) == "amount_too_small"
    await set_rules(bank.payers, "fees", {"withdrawal": [{"flat_msat": 900_000}]})
    assert await bank.outcome(alice, 1_200, fee_from="amount") == "amount_too_small"
    assert (await alice.balance())[1] == (AMOUNT_SAT + 231) * SAT


async def test_an_address_in_capitals_is_the_same_and_another_script_stops_it(bank: Withdrawers) -> None:
    alice = await bank.user(10**9)
    made = await bank.opened(alice, AMOUNT_SAT, address=outside().upper())
    assert await bank.column(made, "address") == outside()
    with pytest.raises(Exception, match="does not pay"):
        await bank.open(alice, AMOUNT_SAT, script="0014" + "ab" * 20)
    assert await bank.outcome(alice, AMOUNT_SAT) == "queued"


async def test_a_locked_account_is_refused_and_may_still_cancel(bank: Withdrawers) -> None:
    alice = await bank.user(10**9)
    made = await bank.opened(alice, AMOUNT_SAT)
    await set_status(bank, alice, "locked")
    refused = await bank.open(alice, AMOUNT_SAT)
    assert refused.refusal is not None
    assert (refused.refusal.code, refused.refusal.fields["account_status"]) == ("account_locked", "locked")
    assert "locked" in (await bank.look(made)).waits_for
    assert await bank.cancel(made) == "cancelled"
    assert await alice.balance() == (10**9, 0)


async def test_the_whole_hold_counts_and_what_is_given_back_does_not(bank: Withdrawers) -> None:
    held_sat = AMOUNT_SAT + CAP_SAT
    await set_limits(bank.payers, {"0": {"withdrawal": {"day_sat": held_sat + 10}}})
    alice = await bank.user(10**9)
    made = await bank.opened(alice, AMOUNT_SAT)
    assert await used(alice, "withdrawal") == held_sat * SAT
    refused = await bank.open(alice, 1_000)
    assert refused.refusal is not None
    assert (refused.refusal.code, refused.refusal.fields["kind"]) == ("limit_exceeded", "withdrawal")
    assert await bank.cancel(made) == "cancelled"
    assert await used(alice, "withdrawal") == 0
    paid = await bank.opened(alice, AMOUNT_SAT)
    payout = await bank.seal([paid], fee_sat=110)
    await bank.sign(payout)
    await bank.send(payout)
    assert await used(alice, "withdrawal") == (AMOUNT_SAT + 110) * SAT


async def test_the_caps_of_the_key_count_the_hold(bank: Withdrawers) -> None:
    alice = await bank.user(10**9)
    careful = await capped(bank.payers, alice, day=AMOUNT_SAT)
    assert await bank.outcome(careful, AMOUNT_SAT) == "spend_limit_exceeded"
    assert await bank.outcome(careful, AMOUNT_SAT - CAP_SAT) == "queued"
    assert await bank.outcome(alice, AMOUNT_SAT) == "queued"


async def test_all_that_is_there_leaves_exactly_nothing(bank: Withdrawers) -> None:
    await set_rules(bank.payers, "fees", FEES)
    alice = await bank.user(123_456_789)
    made = await bank.opened(alice, None)
    assert await alice.balance() == (123_456_789, 123_456_789)
    payout = await bank.seal([made], fee_sat=110)
    await bank.sign(payout)
    await bank.send(payout)
    assert await alice.balance() == (0, 0)
    assert await bank.column(made, "paid_sat") == 123_456 - 200 - 110
    assert await bank.settled("asset:hot") == -(123_456 - 200) * SAT
    assert await bank.settled("income:withdraw-fee") == -200_789


async def test_a_user_who_withdraws_all_keeps_nothing_but_what_comes_in_meanwhile(bank: Withdrawers) -> None:
    alice = await bank.user(50_000_123)

    async def credit() -> None:
        for _ in range(20):
            await bank.payers.fund(alice, 1_001)

    async def withdraw() -> tuple[int, int]:
        made = await bank.opened(alice, None)
        left = await bank.pool.fetchval(
            """SELECT b.balance_after FROM ledger.entries b JOIN ledger.transfers t ON t.id = b.transfer_id
                WHERE t.external_ref = $1 AND b.account_id = $2""",
            f"wd:{made}:hold",
            await bank.pool.fetchval("SELECT ledger_account_id FROM bank.wallets WHERE id = $1", alice.wallet_id),
        )
        return int(await bank.column(made, "held_msat")), int(left)

    (held_msat, after_msat), *_ = await asyncio.gather(withdraw(), credit(), credit())
    balance, held = await alice.balance()
    assert (balance, held) == (50_000_123 + 40 * 1_001, held_msat)
    assert after_msat == held_msat
    assert (balance - held) % 1_001 == 0, "what is left came in afterwards, and whole"


async def test_a_user_of_ours_is_paid_in_the_books(bank: Withdrawers) -> None:
    await set_rules(bank.payers, "fees", FEES)
    await set_limits(bank.payers, {"0": {"internal": {"day_sat": 10**6}, "withdrawal": {"day_sat": 0}}})
    alice, bob = await bank.user(10**9), await bank.user(0)
    address = await give_address(bank, bob)
    made = await bank.opened(alice, AMOUNT_SAT, address=address.upper())
    state = await bank.look(made)
    assert (state.status, state.ended, state.txid) == ("confirmed", True, None)
    assert await bob.balance() == (AMOUNT_SAT * SAT, 0)
    assert await alice.balance() == (10**9 - AMOUNT_SAT * SAT - 1_500, 0)
    assert await used(alice, "internal") == AMOUNT_SAT * SAT + 1_500
    assert await bank.cancel(made) == "withdrawal_ended"
    assert await bank.outcome(alice, AMOUNT_SAT, address=address, key="again") == "confirmed"
    assert await bank.outcome(alice, AMOUNT_SAT, address=address, key="again") == "confirmed"
    assert await bob.available() == 2 * AMOUNT_SAT * SAT


async def test_all_of_it_to_a_user_of_ours_leaves_nothing(bank: Withdrawers) -> None:
    await set_rules(bank.payers, "fees", FEES)
    alice, bob = await bank.user(2_000_999), await bank.user(0)
    assert await bank.outcome(alice, None, address=await give_address(bank, bob)) == "confirmed"
    assert await alice.balance() == (0, 0)
    assert await bob.available() == 1_999 * SAT


async def test_users_who_send_all_to_each_other_at_once_do_not_block(bank: Withdrawers) -> None:
    alice, bob = await bank.user(5_000_000), await bank.user(7_000_000)
    to_alice, to_bob = await give_address(bank, alice, 7), await give_address(bank, bob, 8)
    outcomes = await asyncio.gather(
        bank.outcome(alice, None, address=to_bob), bank.outcome(bob, None, address=to_alice)
    )
    assert set(outcomes) <= {"confirmed", "insufficient_funds"}
    assert await alice.available() + await bob.available() == 12_000_000


async def test_addresses_that_cannot_be_paid(bank: Withdrawers) -> None:
    alice, bob = await bank.user(10**9), await bank.user(0)
    mine, closed = await give_address(bank, alice, 7), await give_address(bank, bob, 8)
    await set_status(bank, bob, "closed")
    assert await bank.outcome(alice, AMOUNT_SAT, address=mine) == "self_payment"
    assert await bank.outcome(alice, AMOUNT_SAT, address=closed) == "payee_closed"
    (in_pool,) = await fill_pool(bank.payers.api.database, 1, start=9)
    await bank.coin(1_000, address=address_of(55))
    assert await bank.outcome(alice, AMOUNT_SAT, address=in_pool) == "invalid_destination"
    assert await bank.outcome(alice, AMOUNT_SAT, address=address_of(55)) == "invalid_destination"
    assert await alice.balance() == (10**9, 0)


async def test_unlinked_coins_are_needed_or_waited_for(bank: Withdrawers) -> None:
    alice, bob = await bank.user(10**9), await bank.user(0)
    await bank.coin(AMOUNT_SAT * 2, origins=[alice.id])
    await bank.coin(AMOUNT_SAT * 2, origins=["unknown", bob.id])
    await bank.coin(AMOUNT_SAT // 2, origins=[bob.id])
    assert await bank.outcome(alice, AMOUNT_SAT, unlinked=True) == "mix_pool_insufficient"
    assert await bank.outcome(alice, AMOUNT_SAT, unlinked=True, wait_for_unlinked=True) == "queued"
    await bank.coin(AMOUNT_SAT, origins=[bob.id])
    assert await bank.outcome(alice, AMOUNT_SAT, unlinked=True) == "queued"
