"""The stories of the books on real Postgres, as the application's role: worked examples, repeats and races."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from engine.domain.errors import Conflict
from engine.ledger.account import open_account_in_tx
from engine.ledger.book import credit, debit
from engine.ledger.database import transaction
from engine.views.balance import list_entries
from tests.fixtures.postgres import Database
from tests.helpers.ledger.bank import Bank, make, running_bank

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database) -> AsyncIterator[Bank]:
    async with running_bank(shared_ledger_db) as bank:
        yield bank


# Worked examples of the design


async def test_a_send_holds_the_cap_pays_the_actual_fee_and_frees_the_rest(bank: Bank) -> None:
    user = await bank.user(funds=250_000)
    held = [debit(user, 101_100), credit(bank["outbox"], 101_100)]
    await bank.post("ln:worked:hold:1", held, "hold")
    assert await bank.balance(user) == (148_900, 101_100, 0)
    assert (await bank.balance(bank["outbox"]))[1:] == (0, 101_100)
    paid = [
        debit(user, 100_450),
        debit(bank["routing"], 350),
        credit(bank["channels"], 100_350),
        credit(bank["ln_fee"], 450),
    ]
    await bank.post("ln:worked:settle", paid, "settle", relates_to=["ln:worked:hold:1"])
    assert await bank.balance(user) == (250_000 - 100_450, 0, 0)
    async with bank.pool.acquire() as conn:
        entries = {(e.code, e.layer): e.amount_msat for e in await list_entries(conn, "ln:worked:settle")}
    codes = {"outbox": "liab:outbox", "routing": "exp:ln-routing", "fee": "income:ln-fee"}
    assert entries[codes["outbox"], "held"] == 101_100
    assert entries[codes["routing"], "settled"] == 350
    assert entries["asset:lnd:lnd-1:channels", "settled"] == -100_350
    assert entries[codes["fee"], "settled"] == -450
    assert len(entries) == 6


async def test_a_failed_send_costs_nothing(bank: Bank) -> None:
    user = await bank.user(funds=101_100)
    await bank.post("ln:failed:hold:1", [debit(user, 101_100), credit(bank["outbox"], 101_100)], "hold")
    await bank.post("ln:failed:void:1", phase="void", relates_to=["ln:failed:hold:1"])
    assert await bank.balance(user) == (101_100, 0, 0)
    await bank.post("ln:failed:hold:2", [debit(user, 101_100), credit(bank["outbox"], 101_100)], "hold")
    assert await bank.balance(user) == (0, 101_100, 0)


async def test_a_deposit_is_shown_when_seen_and_spendable_when_confirmed(bank: Bank) -> None:
    user = await bank.user()
    await bank.post("chain:d:0:seen", [debit(bank["hot"], 5_000), credit(user, 5_000)], "hold")
    assert await bank.balance(user) == (0, 0, 5_000)
    spend = [debit(user, 1), credit(bank["outbox"], 1)]
    assert await bank.outcome("spend:incoming", spend, "hold") == "insufficient_funds"
    confirmed = [debit(bank["hot"], 5_000), credit(user, 4_900), credit(bank["ln_fee"], 100)]
    await bank.post("chain:d:0:conf:1", confirmed, "settle", relates_to=["chain:d:0:seen"])
    assert await bank.balance(user) == (4_900, 0, 0)


async def test_a_reorg_takes_back_what_is_there_and_books_the_rest_as_loss_once(bank: Bank) -> None:
    user = await bank.user()
    credited = [debit(bank["hot"], 5_000), credit(user, 4_900), credit(bank["ln_fee"], 100)]
    await bank.post("chain:r:0:conf:1", credited)
    await bank.post("spent", [debit(user, 3_000), credit(bank["channels"], 3_000)])
    back = [debit(user, 4_900), debit(bank["ln_fee"], 100), credit(bank["hot"], 5_000)]
    assert await bank.outcome("chain:r:0:reorg:1", back, "reverse", relates_to=["chain:r:0:conf:1"]) == (
        "insufficient_funds"
    )
    back = [debit(user, 1_900), debit(bank["loss"], 3_000), debit(bank["ln_fee"], 100), credit(bank["hot"], 5_000)]
    await bank.post("chain:r:0:reorg:1", back, "reverse", relates_to=["chain:r:0:conf:1"])
    assert await bank.balance(user) == (0, 0, 0)
    again = await bank.outcome("chain:r:0:reorg:2", back, "reverse", relates_to=["chain:r:0:conf:1"])
    assert again == "already_reversed"
    assert await bank.outcome("chain:r:0:conf:2", credited) == "fresh"


async def test_a_batch_settles_every_hold_of_its_members_with_exact_shares(bank: Bank) -> None:
    users = [await bank.user(funds=10_000) for _ in range(3)]
    members = {f"wd:{n}:hold": user for n, user in enumerate([*users, users[0]])}
    for ref, user in members.items():
        await bank.post(ref, [debit(user, 4_000), credit(bank["payouts"], 4_000)], "hold")
    legs = [
        debit(users[0], 2 * 3_400),
        debit(users[1], 3_334),
        debit(users[2], 3_333),
        credit(bank["hot"], 6_800 + 3_334 + 3_333 - 90),
        credit(bank["withdraw_fee"], 90),
    ]
    await bank.post("batch:1:broadcast", legs, "settle", relates_to=list(members))
    assert [await bank.balance(user) for user in users] == [(3_200, 0, 0), (6_666, 0, 0), (6_667, 0, 0)]
    for ref in members:
        assert await bank.outcome(f"{ref}:void", phase="void", relates_to=[ref]) == "hold_already_resolved"


async def test_a_channel_opens_and_closes_to_the_satoshi(bank: Bank) -> None:
    names = ("lnd-9:channels", "lnd-9:commit-escrow", "lnd-9:opening", "lnd-9:closing", "lnd-9:onchain")
    async with transaction(bank.pool) as conn:
        for name in names:
            bank.ids[name] = await open_account_in_tx(conn, f"asset:lnd:{name}", "asset", mode="append")
        for name in ("open", "close"):
            bank.ids[name] = await open_account_in_tx(conn, f"exp:miner:{name}", "expense", mode="append")
    channels, escrow, opening, closing, onchain = (bank[name] for name in names)
    steps = {
        "fund": [debit(onchain, 2_000_000), credit(bank["capital"], 2_000_000)],
        "open": [debit(opening, 1_000_000), debit(bank["open"], 250), credit(onchain, 1_000_250)],
        "active": [debit(channels, 997_820), debit(escrow, 2_180), credit(opening, 1_000_000)],
        "paid": [debit(bank["routing"], 397_820), credit(channels, 397_820)],
        "close": [debit(closing, 601_900), debit(bank["close"], 280), credit(channels, 600_000), credit(escrow, 2_180)],
        "swept": [debit(onchain, 601_900), credit(closing, 601_900)],
    }
    for name, legs in steps.items():
        await bank.post(f"channel:{name}", legs)
    assert [(await bank.balance(bank[name]))[0] for name in names] == [0, 0, 0, 0, 2_000_000 - 1_000_250 + 601_900]


# Once, whoever repeats and races


async def test_the_same_content_again_is_the_first_transfer(bank: Bank) -> None:
    user = await bank.user(funds=100)
    hold = [debit(user, 100), credit(bank["outbox"], 100)]
    first = await bank.post("again:hold", hold, "hold", description="first")
    await bank.post("again:void", phase="void", relates_to=["again:hold"])
    again = await bank.post("again:hold", hold[::-1], "hold", description="second", workflow_id="other")
    assert (again.transfer_id, first.fresh, again.fresh) == (first.transfer_id, True, False)
    assert await bank.balance(user) == (100, 0, 0)


async def test_the_same_reference_with_other_content_is_a_conflict(bank: Bank) -> None:
    payer, payee = await bank.user(funds=1_000), await bank.user()
    await bank.post("ln:abc:recv", [debit(payer, 100), credit(payee, 100)])
    outside = [debit(bank["channels"], 100), credit(payee, 100)]
    with pytest.raises(Conflict) as refusal:
        await bank.post("ln:abc:recv", outside)
    assert refusal.value.code == "reference_conflict"
    assert refusal.value.fields["reference"] == "ln:abc:recv"
    assert await bank.outcome("ln:abc:recv:outside", outside) == "fresh"


async def test_a_caller_with_a_wrong_hash_does_not_pass_for_a_repeat(bank: Bank) -> None:
    payer, payee = await bank.user(funds=1_000), await bank.user()
    posting = make("hash:1", [debit(payer, 100), credit(payee, 100)])
    await bank.post("hash:1", posting.legs)
    same_hash = "SELECT ledger.post('hash:1', $1, $2, $3, $4, $5, $6, 'test')"
    for template, phase, related, amount in (
        ("test", "post", [], 99),
        ("other", "post", [], 100),
        ("test", "hold", [], 100),
        ("test", "settle", ["x"], 100),
    ):
        content = (template, phase, related, [payer, payee], [amount, -amount])
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await bank.pool.fetchval(same_hash, posting.payload_hash, *content)
        assert refusal.value.sqlstate == "LD409"
    content = ("test", "post", [], [payee, payer], [-100, 100])
    assert await bank.pool.fetchval(same_hash, posting.payload_hash, *content)


async def test_many_callers_with_one_reference_make_one_transfer(bank: Bank) -> None:
    payer, payee = await bank.user(funds=1_000), await bank.user()
    legs = [debit(payer, 600), credit(payee, 600)]
    outcomes = await asyncio.gather(*(bank.outcome("race:1", legs) for _ in range(20)))
    assert sorted(outcomes) == ["fresh"] + ["repeat"] * 19
    assert await bank.balance(payer) == (400, 0, 0)


async def test_a_hold_resolves_once_whoever_races(bank: Bank) -> None:
    user = await bank.user(funds=100)
    await bank.post("once:hold", [debit(user, 100), credit(bank["outbox"], 100)], "hold")
    settle = [debit(user, 60), credit(bank["channels"], 60)]
    settles = [bank.outcome(f"once:settle:{n}", settle, "settle", relates_to=["once:hold"]) for n in range(8)]
    voids = [bank.outcome(f"once:void:{n}", phase="void", relates_to=["once:hold"]) for n in range(8)]
    outcomes = await asyncio.gather(*settles, *voids)
    assert sorted(outcomes) == ["fresh"] + ["hold_already_resolved"] * 15
    assert await bank.balance(user) in {(40, 0, 0), (100, 0, 0)}


async def test_money_is_spent_once_by_many_at_the_same_time(bank: Bank) -> None:
    payer, payee = await bank.user(funds=1_000), await bank.user()
    legs = [debit(payer, 300), credit(payee, 300)]
    outcomes = await asyncio.gather(*(bank.outcome(f"spend:{payer}:{n}", legs) for n in range(10)))
    assert sorted(outcomes) == ["fresh"] * 3 + ["insufficient_funds"] * 7


async def test_payments_in_both_directions_do_not_deadlock(bank: Bank) -> None:
    one, two = await bank.user(funds=1_000), await bank.user(funds=1_000)
    there, back = [debit(one, 1), credit(two, 1)], [debit(two, 1), credit(one, 1)]
    calls = [bank.outcome(f"cross:{n}", there if n % 2 else back) for n in range(60)]
    assert set(await asyncio.gather(*calls)) == {"fresh"}
