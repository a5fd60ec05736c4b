"""Many postings in one call: the same books as one after the other, one verdict each."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.domain.errors import EngineError, InvariantBroken, Unavailable
from engine.domain.limit import Count
from engine.ledger.account import open_account_in_tx
from engine.ledger.book import Counted, Posting, credit, debit
from engine.ledger.database import transaction
from engine.ledger.store import post_batch_in_tx, post_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.ledger.bank import Bank, make, run_as, running_bank

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def bank(ledger_db: Database) -> AsyncIterator[Bank]:
    async with running_bank(ledger_db) as bank:
        yield bank


async def verdicts(bank: Bank, postings: list[Posting]) -> list[str]:
    """ "fresh", "repeat" or the refusal's code, for each."""
    async with transaction(bank.pool) as conn:
        found = await post_batch_in_tx(conn, postings)
    return [each.code if isinstance(each, EngineError) else "fresh" if each.fresh else "repeat" for each in found]


def pay(ref: str, payer: int, payee: int, amount: int) -> Posting:
    return make(ref, [debit(payer, amount), credit(payee, amount)])


async def history(bank: Bank, account: int) -> list[tuple[int, int, int, int]]:
    async with bank.pool.acquire() as conn:
        rows = await conn.fetch(
            "SELECT layer, amount, balance_after, version FROM ledger.entries WHERE account_id = $1 ORDER BY version",
            account,
        )
    return [tuple(row) for row in rows]


async def test_a_chain_within_one_batch_is_booked_in_its_order(bank: Bank) -> None:
    a, b, c = await bank.user(100), await bank.user(), await bank.user()
    assert await verdicts(bank, [pay("1", a, b, 100), pay("2", b, c, 60), pay("3", c, a, 50)]) == ["fresh"] * 3
    assert [(await bank.balance(each))[0] for each in (a, b, c)] == [50, 40, 10]
    assert await history(bank, a) == [(0, -100, -100, 1), (0, 100, 0, 2), (0, -50, -50, 3)]


async def test_a_refused_item_leaves_its_neighbours_alone(bank: Bank) -> None:
    a, b = await bank.user(100), await bank.user()
    postings = [pay("1", a, b, 70), pay("2", a, b, 31), pay("3", a, b, 30), pay("4", b, a, 1)]
    assert await verdicts(bank, postings) == ["fresh", "insufficient_funds", "fresh", "fresh"]
    assert [(await bank.balance(each))[0] for each in (a, b)] == [1, 99]
    assert await verdicts(bank, postings) == ["repeat", "insufficient_funds", "repeat", "repeat"]


async def test_money_that_comes_later_in_the_batch_is_not_there_yet(bank: Bank) -> None:
    a, b = await bank.user(10), await bank.user(10)
    assert await verdicts(bank, [pay("1", a, b, 15), pay("2", b, a, 10), pay("3", a, b, 15)]) == [
        "insufficient_funds",
        "fresh",
        "fresh",
    ]


async def test_one_reference_for_people_who_have_nothing_in_common_is_a_conflict_too(bank: Bank) -> None:
    a, b, c, d = await bank.user(100), await bank.user(), await bank.user(100), await bank.user()
    assert await verdicts(bank, [pay("1", a, b, 5), pay("1", c, d, 5)]) == ["fresh", "reference_conflict"]
    assert [(await bank.balance(each))[0] for each in (a, b, c, d)] == [95, 5, 100, 0]


async def test_repeats_conflicts_and_doubles_each_get_their_word(bank: Bank) -> None:
    a, b = await bank.user(100), await bank.user()
    await bank.post("old", [debit(a, 5), credit(b, 5)])
    assert await verdicts(
        bank, [pay("old", a, b, 5), pay("old", a, b, 6), pay("new", a, b, 7), pay("new", a, b, 7), pay("new", a, b, 8)]
    ) == ["repeat", "reference_conflict", "fresh", "repeat", "reference_conflict"]
    assert (await bank.balance(b))[0] == 12


async def test_holds_and_posts_go_together_and_a_hold_counts_at_once(bank: Bank) -> None:
    a, b = await bank.user(100), await bank.user()
    hold = make("hold", [debit(a, 60), credit(bank["outbox"], 60)], "hold")
    assert await verdicts(bank, [hold, pay("1", a, b, 41), pay("2", a, b, 40)]) == [
        "fresh",
        "insufficient_funds",
        "fresh",
    ]
    assert await bank.balance(a) == (0, 60, 0)
    await bank.post("settle", [debit(a, 60), credit(bank["channels"], 60)], "settle", relates_to=["hold"])
    assert await bank.balance(a) == (0, 0, 0)


async def test_a_refusal_by_postgres_itself_is_one_items_matter(bank: Bank) -> None:
    a, b = await bank.user(100), await bank.user()
    wordy = make("1", [debit(a, 1), credit(b, 1)], description="x" * 1001)
    nowhere = make("2", [debit(a, 1), credit(10**12, 1)])
    assert await verdicts(bank, [wordy, nowhere, pay("3", a, b, 1)]) == [
        "internal_error",
        "ledger_target_missing",
        "fresh",
    ]


async def test_an_item_not_balanced_per_currency_is_refused_alone(bank: Bank) -> None:
    a, b = await bank.user(100), await bank.user()
    async with transaction(bank.pool) as conn:
        dollars = await open_account_in_tx(conn, "income:dollars", "income", "USD", mode="append")
    mixed = make("1", [debit(a, 5), credit(dollars, 5)])
    assert await verdicts(bank, [mixed, pay("2", a, b, 5)]) == ["posting_malformed", "fresh"]


async def test_limits_count_on_accounts_with_a_balance_row_only(bank: Bank) -> None:
    a, b = await bank.user(100), await bank.user()
    counted = Counted(bank["channels"], [Count("send", 5, {})])
    misplaced = make("1", [debit(a, 5), credit(bank["channels"], 5)], counted=counted)
    assert await verdicts(bank, [misplaced, pay("2", a, b, 5)]) == ["posting_malformed", "fresh"]


async def test_a_database_whose_clock_was_set_back_books_nothing_and_blames_no_item(
    bank: Bank, ledger_db: Database
) -> None:
    """Also where the items are booked one by one, for one of them is a repeat."""
    a, b = await bank.user(100), await bank.user()
    assert await verdicts(bank, [pay("1", a, b, 5)]) == ["fresh"]
    closed = "INSERT INTO ledger.closing_times(at, last_seq) VALUES (clock_timestamp() + interval '1 hour', 0)"
    await run_as(ledger_db.superuser_dsn, "SET LOCAL ledger.posting = 'on'", closed)
    for postings in ([pay("2", a, b, 5)], [pay("1", a, b, 5), pay("2", a, b, 5)]):
        with pytest.raises(Unavailable):
            await verdicts(bank, postings)
    assert (await bank.balance(b))[0] == 5


async def test_only_posts_and_holds(bank: Bank) -> None:
    async with transaction(bank.pool) as conn:
        with pytest.raises(InvariantBroken):
            await post_batch_in_tx(conn, [make("x", phase="void", relates_to=["y"])])
        assert await post_batch_in_tx(conn, []) == []


async def test_batches_that_cross_each_other_and_single_posts_neither_lock_up_nor_overspend(bank: Bank) -> None:
    users = [await bank.user(1_000) for _ in range(6)]

    async def batch(seed: int) -> list[str]:
        order = users[seed % 6 :] + users[: seed % 6]
        name = secrets.token_hex(4)
        return await verdicts(
            bank,
            [
                pay(f"{name}:{n}", order[n % 6], order[(n * 5 + 1) % 6], 90)
                for n in range(30)
                if n % 6 != (n * 5 + 1) % 6
            ],
        )

    async def single(seed: int) -> None:
        async with transaction(bank.pool) as conn:
            await post_in_tx(conn, pay(secrets.token_hex(4), users[seed % 6], users[(seed + 1) % 6], 1))

    await asyncio.gather(*(batch(seed) for seed in range(12)), *(single(seed) for seed in range(12)))
    assert sum([(await bank.balance(each))[0] for each in users]) == 6_000
    assert await bank.broken() == []
