"""Operators decide about withdrawals, and a place in a payout is decided by the row's lock."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.bank.withdrawal import payout, queue
from engine.bank.withdrawal.coin import release_in_tx
from engine.domain.errors import EngineError, InvariantBroken
from engine.domain.ids import WithdrawalId
from engine.domain.withdrawal.decision import WithdrawalDecisionKind
from engine.domain.withdrawal.withdrawal import Speed
from engine.ledger.database import transaction
from tests.fixtures.postgres import Database
from tests.helpers.api import User
from tests.helpers.withdrawal.teller import CAP_SAT, SAT, Withdrawers, running_withdrawers

pytestmark = pytest.mark.integration

AMOUNT_SAT = 100_000
LARGE_SAT = 10_000_001
HUGE_SAT = 100_000_001
APPROVE, REJECT, HOLD, RESUME = (
    WithdrawalDecisionKind.APPROVE,
    WithdrawalDecisionKind.REJECT,
    WithdrawalDecisionKind.HOLD,
    WithdrawalDecisionKind.RESUME,
)
CAROL, DAVE = "acct_carol", "acct_dave"


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Withdrawers]:
    async with running_withdrawers(ledger_db, tmp_path) as found:
        yield found


@pytest_asyncio.fixture
async def alice(bank: Withdrawers) -> User:
    return await bank.user(10**12)


async def let_time_pass(bank: Withdrawers, withdrawal: WithdrawalId) -> None:
    await bank.payers.api.database.execute(
        "UPDATE bank.withdrawals SET approve_until = clock_timestamp() WHERE id = $1", withdrawal
    )


async def queued(bank: Withdrawers) -> list[WithdrawalId]:
    async with transaction(bank.pool) as conn:
        return [each.id for each in await queue.list_queued_in_tx(conn, Speed.STANDARD, limit=10)]


async def sealed_or_code(bank: Withdrawers, made: WithdrawalId) -> str:
    try:
        await bank.seal([made])
    except (EngineError, KeyError) as refused:
        return type(refused).__name__
    return "sealed"


async def test_a_large_one_waits_for_an_operator(bank: Withdrawers, alice: User) -> None:
    small, made = await bank.opened(alice, 10_000_000), await bank.opened(alice, LARGE_SAT)
    state = await bank.look(made)
    assert (state.status, state.joins, state.needs_operator) == ("queued", False, True)
    assert state.approve_in_s is not None
    assert 86_390 < state.approve_in_s <= 86_400
    assert await queued(bank) == [small]
    word = await bank.propose(made, APPROVE, CAROL)
    assert await bank.decide(made, word, CAROL) == "queued"
    assert await bank.decide(made, word, CAROL) == "queued"
    assert await bank.decide(made, word, DAVE) == "decision_made"
    state = await bank.look(made)
    assert (state.joins, state.needs_operator, state.approve_in_s) == (True, False, None)
    assert await queued(bank) == [small, made]
    again = await bank.propose(made, APPROVE, CAROL)
    assert await bank.decide(made, again, DAVE) == "withdrawal_not_waiting"


async def test_above_an_amount_another_operator_decides(bank: Withdrawers, alice: User) -> None:
    made = await bank.opened(alice, HUGE_SAT)
    word = await bank.propose(made, APPROVE, CAROL)
    assert await bank.decide(made, word, CAROL) == "own_proposal"
    assert await bank.propose(made, APPROVE, CAROL) == word
    with pytest.raises(EngineError) as refused:
        await bank.propose(made, REJECT, DAVE)
    assert refused.value.code == "decision_open"
    outcomes = await asyncio.gather(bank.decide(made, word, DAVE), bank.decide(made, word, "acct_erin"))
    assert sorted(outcomes) == ["decision_made", "queued"]
    assert (await bank.look(made)).joins
    lines = await bank.pool.fetch("SELECT action, subject FROM bank.audit WHERE subject = $1", word)
    assert [each["action"] for each in lines] == ["withdrawal_decision.approve"]


async def test_an_approval_that_does_not_come_in_time_ends_it(bank: Withdrawers, alice: User) -> None:
    made = await bank.opened(alice, LARGE_SAT)
    word = await bank.propose(made, APPROVE, CAROL)
    await let_time_pass(bank, made)
    assert await bank.decide(made, word, DAVE) == "withdrawal_not_waiting"
    states = await asyncio.gather(*(bank.look(made) for _ in range(3)))
    assert {(each.status, each.failure) for each in states} == {("failed", "approval_expired")}
    assert await bank.decide(made, word, DAVE) == "withdrawal_not_waiting"
    assert await bank.cancel(made) == "withdrawal_ended"
    assert await alice.balance() == (10**12, 0)


async def test_an_approval_and_the_end_of_its_time_at_once_agree(bank: Withdrawers, alice: User) -> None:
    for _ in range(5):
        made = await bank.opened(alice, LARGE_SAT)
        word = await bank.propose(made, APPROVE, CAROL)

        async def end(made: WithdrawalId = made) -> None:
            await let_time_pass(bank, made)
            await bank.look(made)

        decided, _ended = await asyncio.gather(bank.decide(made, word, DAVE), end())
        status, approval = await bank.column(made, "status"), await bank.column(made, "approval")
        assert (decided, status, approval) in [
            ("queued", "queued", "given"),
            ("withdrawal_not_waiting", "failed", "needed"),
        ]
        if status == "queued":
            assert await bank.cancel(made) == "cancelled"
    assert await alice.balance() == (10**12, 0)


async def test_an_owner_lets_no_withdrawal_of_his_own_go(bank: Withdrawers, alice: User) -> None:
    made = await bank.opened(alice, LARGE_SAT)
    own_key = str(bank.request(alice, 1).api_key_id)
    word = await bank.propose(made, APPROVE, alice.id)
    assert await bank.decide(made, word, alice.id, key_id=own_key) == "own_account"
    assert not (await bank.look(made)).joins
    assert await bank.decide(made, word, CAROL) == "queued"
    assert await bank.decide(made, await bank.propose(made, HOLD, alice.id), alice.id, key_id=own_key) == "queued"


async def test_a_rejected_one_gives_all_back(bank: Withdrawers, alice: User) -> None:
    made = await bank.opened(alice, LARGE_SAT)
    word = await bank.propose(made, REJECT, CAROL)
    assert await bank.decide(made, word, CAROL) == "failed"
    assert await bank.decide(made, word, CAROL) == "failed"
    assert (await bank.look(made)).failure == "rejected"
    assert await alice.balance() == (10**12, 0)


async def test_one_on_hold_is_not_sealed_until_it_is_resumed(bank: Withdrawers, alice: User) -> None:
    made = await bank.opened(alice, AMOUNT_SAT)
    assert await bank.decide(made, await bank.propose(made, HOLD, CAROL), CAROL) == "queued"
    state = await bank.look(made)
    assert (state.joins, state.needs_operator, state.waits_for) == (False, True, "an operator who resumes it")
    assert await queued(bank) == []
    second = await bank.propose(made, HOLD, CAROL)
    assert await bank.decide(made, second, CAROL) == "withdrawal_not_waiting"
    await bank.payers.api.database.execute("DELETE FROM bank.withdrawal_decisions WHERE id = $1", second)
    assert await bank.decide(made, await bank.propose(made, RESUME, CAROL), CAROL) == "queued"
    assert await queued(bank) == [made]


async def test_a_decision_about_another_withdrawal_is_refused(bank: Withdrawers, alice: User) -> None:
    made, other = await bank.opened(alice, LARGE_SAT), await bank.opened(alice, LARGE_SAT)
    word = await bank.propose(other, APPROVE, CAROL)
    assert await bank.decide(made, word, CAROL) == "decision_made"
    assert not (await bank.look(made)).joins


async def test_a_sealed_one_is_neither_cancelled_nor_decided(bank: Withdrawers, alice: User) -> None:
    made = await bank.opened(alice, AMOUNT_SAT)
    po = await bank.seal([made])
    assert await bank.cancel(made) == "already_batched"
    for kind in (REJECT, HOLD):
        word = await bank.propose(made, kind, CAROL)
        assert await bank.decide(made, word, CAROL) == "withdrawal_not_waiting"
        await bank.payers.api.database.execute("DELETE FROM bank.withdrawal_decisions")
    txid = await bank.sign(po)
    assert (await bank.look(made)).txid is None
    await bank.send(po)
    state = await bank.look(made)
    assert (state.status, state.txid, state.payout_id) == ("broadcast", txid, po)
    assert await bank.cancel(made) == "already_batched"
    assert await alice.balance() == (10**12 - (AMOUNT_SAT + 330) * SAT, 0)


async def test_a_withdrawal_is_cancelled_or_sealed_and_never_both(bank: Withdrawers, alice: User) -> None:
    for _ in range(10):
        made = await bank.opened(alice, AMOUNT_SAT)
        cancelled, sealed = await asyncio.gather(bank.cancel(made), sealed_or_code(bank, made))
        assert (cancelled, sealed) in [("cancelled", "KeyError"), ("already_batched", "sealed")], (cancelled, sealed)


async def test_a_locked_row_is_waited_for_and_then_left_out(bank: Withdrawers, alice: User) -> None:
    made, other = await bank.opened(alice, AMOUNT_SAT), await bank.opened(alice, AMOUNT_SAT)
    async with transaction(bank.pool) as conn:
        await conn.execute("SELECT FROM bank.withdrawals WHERE id = $1 FOR UPDATE", made)
        listing = asyncio.create_task(queued(bank))
        await asyncio.sleep(0.2)
        assert not listing.done()
        await conn.execute("UPDATE bank.withdrawals SET on_hold = true WHERE id = $1", made)
    assert await listing == [other]


async def test_two_batchers_seal_each_once(bank: Withdrawers, alice: User) -> None:
    made = [await bank.opened(alice, AMOUNT_SAT) for _ in range(3)]

    async def seal_all() -> str:
        try:
            await bank.seal(made)
        except (EngineError, KeyError) as refused:
            return type(refused).__name__
        return "sealed"

    assert sorted(await asyncio.gather(seal_all(), seal_all())) == ["KeyError", "sealed"]


async def test_a_dissolved_payout_gives_its_members_back_and_a_signed_one_never(bank: Withdrawers, alice: User) -> None:
    made = [await bank.opened(alice, AMOUNT_SAT) for _ in range(2)]
    po = await bank.seal(made)
    assert await queued(bank) == []
    async with transaction(bank.pool) as conn:
        await payout.get_row_in_tx(conn, po)
        assert sorted(await queue.give_back_in_tx(conn, po)) == sorted(made)
        await release_in_tx(conn, po)
        await payout.mark_dissolved_in_tx(conn, po)
    assert await queued(bank) == made
    second = await bank.seal(made)
    await bank.sign(second)
    async with transaction(bank.pool) as conn:
        assert await queue.give_back_in_tx(conn, second) == []
        with pytest.raises(InvariantBroken):
            await payout.mark_dissolved_in_tx(conn, second)
    assert [(await bank.row(each)).status for each in made] == ["batched", "batched"]


async def test_a_payout_takes_what_was_held_and_gives_the_rest_back(bank: Withdrawers, alice: User) -> None:
    made = [await bank.opened(alice, AMOUNT_SAT, fee_from=way) for way in ("balance", "amount", "balance")]
    held = (3 * AMOUNT_SAT + 2 * CAP_SAT) * SAT
    assert await alice.balance() == (10**12, held)
    assert await bank.cancel(made[0]) == "cancelled"
    po = await bank.seal(made[1:], fee_sat=221)
    await bank.sign(po)
    await bank.send(po)
    shares = [await bank.column(each, "miner_fee_sat") for each in made[1:]]
    assert shares == [111, 110]
    assert await alice.balance() == (10**12 - (2 * AMOUNT_SAT + 110) * SAT, 0)
    assert await bank.settled("asset:hot") == -(2 * AMOUNT_SAT + 110) * SAT
    assert await bank.column(made[1], "paid_sat") == AMOUNT_SAT - 111
