"""Postings of any phase in one call: all of them in their order, or none."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.domain.errors import InvariantBroken, Refused
from engine.domain.limit import Count
from engine.ledger.book import Counted, Posting, credit, debit
from engine.ledger.database import transaction
from engine.ledger.store import post_new_all_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.ledger.bank import Bank, make, running_bank

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def bank(ledger_db: Database) -> AsyncIterator[Bank]:
    async with running_bank(ledger_db) as bank:
        yield bank


async def post_all(bank: Bank, postings: list[Posting]) -> None:
    async with transaction(bank.pool) as conn:
        await post_new_all_in_tx(conn, postings)


def pay(ref: str, payer: int, payee: int, amount: int) -> Posting:
    return make(ref, [debit(payer, amount), credit(payee, amount)])


async def test_holds_posts_and_settlements_are_booked_in_their_order(bank: Bank) -> None:
    a, b = await bank.user(100), await bank.user()
    out, channels = bank["outbox"], bank["channels"]
    await post_all(
        bank,
        [
            make("hold", [debit(a, 60), credit(out, 60)], "hold"),
            pay("1", a, b, 40),
            make("settle", [debit(a, 50), credit(channels, 50)], "settle", relates_to=["hold"]),
            pay("2", a, b, 10),
        ],
    )
    assert await bank.balance(a) == (0, 0, 0)
    assert (await bank.balance(b))[0] == 50


async def test_one_refusal_leaves_no_trace_of_any(bank: Bank) -> None:
    a, b = await bank.user(100), await bank.user()
    with pytest.raises(Refused) as refused:
        await post_all(bank, [pay("1", a, b, 70), pay("2", a, b, 31)])
    assert refused.value.code == "insufficient_funds"
    assert [(await bank.balance(each))[0] for each in (a, b)] == [100, 0]


async def test_a_repeat_among_them_contradicts_the_caller(bank: Bank) -> None:
    a, b = await bank.user(100), await bank.user()
    await bank.post("old", [debit(a, 5), credit(b, 5)])
    with pytest.raises(InvariantBroken) as broken:
        await post_all(bank, [pay("new", a, b, 7), pay("old", a, b, 5)])
    assert broken.value.code == "posting_not_new"
    assert (await bank.balance(b))[0] == 5


async def test_limits_count_over_all_of_them(bank: Bank) -> None:
    a, b = await bank.user(200), await bank.user()
    counted = Counted(a, [Count("internal", 40, {86_400: 100}), Count("fiat", 4, {})])

    def limited(ref: str) -> Posting:
        return make(ref, [debit(a, 40), credit(b, 40)], counted=counted)

    await post_all(bank, [limited("1"), limited("2")])
    with pytest.raises(Refused) as refused:
        await post_all(bank, [make("3", [debit(b, 5), credit(a, 5)]), limited("4")])
    assert refused.value.code == "limit_exceeded"
    assert (await bank.balance(b))[0] == 80
