"""Posting: the stories of the books on real Postgres, as the application's role."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio

from engine.domain.errors import Conflict, InvariantBroken, NotFound, OutcomeUnknown, Refused, Unavailable
from engine.ledger.book import MAX_LEG_MSAT, Velocity, credit, debit
from engine.ledger.database import open_pool, transaction
from engine.ledger.reads import get_balance_at, list_due_holds, list_entries, list_trial_balance
from engine.ledger.store import get_account_id, open_account_in_tx, post_in_tx
from tests.fixtures.postgres import Database
from tests.integration.ledger_helpers import Bank, make, open_bank, run_as

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database) -> AsyncIterator[Bank]:
    pool = await open_pool(shared_ledger_db.app_dsn, max_size=12)
    bank = await open_bank(pool)
    yield bank
    assert await bank.broken() == []
    await pool.close()


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
    same_hash = "SELECT ledger.post('hash:1', $1, 'test', $2, $3, $4, $5, 'test')"
    for phase, related, amounts in (("post", [], [99, -99]), ("hold", [], [100, -100]), ("settle", ["x"], [100, -100])):
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await bank.pool.fetchval(same_hash, posting.payload_hash, phase, related, [payer, payee], amounts)
        assert refusal.value.sqlstate == "LD409"
    assert await bank.pool.fetchval(same_hash, posting.payload_hash, "post", [], [payee, payer], [-100, 100])


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


# Refusals


async def test_exactly_all_can_be_spent_and_one_more_cannot(bank: Bank) -> None:
    user = await bank.user(funds=100)
    with pytest.raises(Refused) as refusal:
        await bank.post("all:1", [debit(user, 101), credit(bank["channels"], 101)])
    assert refusal.value.code == "insufficient_funds"
    assert refusal.value.fields == {"account_id": user, "available": 100, "needed": 101}
    assert await bank.outcome("all:1", [debit(user, 100), credit(bank["channels"], 100)]) == "fresh"


async def test_a_refusal_in_a_savepoint_leaves_the_rest_of_the_transaction(bank: Bank) -> None:
    user = await bank.user(funds=100)
    async with transaction(bank.pool) as conn:
        with pytest.raises(Refused):
            async with conn.transaction():
                await post_in_tx(conn, make("save:no", [debit(user, 101), credit(bank["channels"], 101)]))
        await post_in_tx(conn, make("save:yes", [debit(user, 100), credit(bank["channels"], 100)]))
    assert await bank.balance(user) == (0, 0, 0)
    assert await bank.outcome("save:yes", [debit(user, 100), credit(bank["channels"], 100)]) == "repeat"


async def test_a_settle_stays_within_its_hold(bank: Bank) -> None:
    user, other = await bank.user(funds=1_000), await bank.user(funds=1_000)
    hold = [debit(user, 500), credit(bank["outbox"], 500)]
    await bank.post("within:hold", hold, "hold")
    attempts = {
        "more": [debit(user, 501), credit(bank["channels"], 501)],
        "backwards": [credit(user, 100), debit(bank["channels"], 100)],
        "from another user": [debit(user, 100), debit(other, 100), credit(bank["channels"], 200)],
        "without the one who promised": [debit(bank["loss"], 100), credit(bank["channels"], 100)],
    }
    for name, legs in attempts.items():
        outcome = await bank.outcome(f"within:{name}", legs, "settle", relates_to=["within:hold"])
        assert outcome == "posting_exceeds_target", name
    assert await bank.balance(user) == (500, 500, 0)
    to_another = [debit(user, 500), credit(other, 500)]
    assert await bank.outcome("within:ok", to_another, "settle", relates_to=["within:hold"]) == "fresh"


async def test_what_is_not_there_cannot_be_resolved_or_moved(bank: Bank) -> None:
    user = await bank.user(funds=10)
    await bank.post("a:post", [debit(user, 1), credit(bank["channels"], 1)])
    legs = [debit(user, 1), credit(bank["channels"], 1)]
    missing = "ledger_target_missing"
    assert await bank.outcome("v:1", phase="void", relates_to=["no such hold"]) == missing
    assert await bank.outcome("v:2", phase="void", relates_to=["a:post"]) == missing
    assert await bank.outcome("v:3", legs, "settle", relates_to=["a:post"]) == missing
    assert await bank.outcome("v:4", legs, "reverse", relates_to=["no such post"]) == missing
    assert await bank.outcome("v:5", [debit(user, 1), credit(999_999, 1)]) == missing


async def test_a_reversal_takes_back_at_most_what_there_was(bank: Bank) -> None:
    user, other = await bank.user(funds=1_000), await bank.user(funds=1_000)
    await bank.post("rev:1", [debit(user, 100), credit(bank["channels"], 100)])
    for name, legs in {
        "more": [credit(user, 101), debit(bank["channels"], 101)],
        "the same way": [debit(user, 100), credit(bank["channels"], 100)],
        "from another user": [credit(user, 100), debit(other, 100)],
    }.items():
        outcome = await bank.outcome(f"rev:{name}", legs, "reverse", relates_to=["rev:1"])
        assert outcome == "posting_exceeds_target", name
    await bank.post("rev:ok", [credit(user, 40), debit(bank["channels"], 40)], "reverse", relates_to=["rev:1"])


async def test_a_hold_expires_when_it_is_due_and_can_then_no_longer_be_settled(bank: Bank) -> None:
    user = await bank.user(funds=100)
    now = datetime.now(UTC)
    for ref, expires_at in (("due", now - timedelta(seconds=1)), ("later", now + timedelta(hours=1)), ("never", None)):
        legs = [debit(user, 10), credit(bank["payouts"], 10)]
        await bank.post(f"exp:{ref}", legs, "hold", expires_at=expires_at)
    async with bank.pool.acquire() as conn:
        assert await list_due_holds(conn) == ["exp:due"]
    settle = [debit(user, 10), credit(bank["hot"], 10)]
    assert await bank.outcome("exp:due:s", settle, "settle", relates_to=["exp:due"]) == "hold_expired"
    assert await bank.outcome("exp:later:e", phase="expire", relates_to=["exp:later"]) == "hold_not_due"
    assert await bank.outcome("exp:never:e", phase="expire", relates_to=["exp:never"]) == "hold_not_due"
    assert await bank.outcome("exp:due:e", phase="expire", relates_to=["exp:due"]) == "fresh"
    assert await bank.outcome("exp:later:v", phase="void", relates_to=["exp:later"]) == "fresh"
    assert await bank.outcome("exp:never:s", settle, "settle", relates_to=["exp:never"]) == "fresh"
    async with bank.pool.acquire() as conn:
        assert await list_due_holds(conn) == []
    assert await bank.balance(user) == (90, 0, 0)


async def test_currencies_balance_each_for_itself(bank: Bank) -> None:
    async with transaction(bank.pool) as conn:
        dollars = await open_account_in_tx(conn, "fx:USD", "equity", currency="USD", mode="append")
        bank_usd = await open_account_in_tx(conn, "asset:bank:usd", "asset", currency="USD", mode="append")
        coins = await open_account_in_tx(conn, "fx:BTC", "equity", mode="append")
    user = await bank.user(funds=100)
    assert await bank.outcome("fx:1", [debit(user, 100), credit(dollars, 100)]) == "posting_malformed"
    swap = [debit(user, 50), credit(coins, 50), debit(bank_usd, 7), credit(dollars, 7)]
    assert await bank.outcome("fx:2", swap) == "fresh"


async def test_an_effective_day_may_be_past_but_not_future(bank: Bank) -> None:
    user = await bank.user(funds=100)
    legs = [debit(user, 1), credit(bank["channels"], 1)]
    assert await bank.outcome("day:1", legs, effective_on=date(2020, 1, 1)) == "fresh"
    assert await bank.outcome("day:2", legs, effective_on=date(2999, 1, 1)) == "internal_error"


async def test_sums_beyond_64_bits_are_refused_whole(bank: Bank) -> None:
    user = await bank.user()
    legs = [debit(bank["channels"], MAX_LEG_MSAT), credit(user, MAX_LEG_MSAT)]
    outcomes = [await bank.outcome(f"big:{n}", legs) for n in range(5)]
    assert outcomes == ["fresh"] * 4 + ["internal_error"]
    back = [debit(user, MAX_LEG_MSAT), credit(bank["channels"], MAX_LEG_MSAT)]
    assert [await bank.outcome(f"small:{n}", back) for n in range(5)] == ["fresh"] * 4 + ["insufficient_funds"]


async def test_a_frozen_account_spends_nothing_new_but_receives_and_keeps_promises(
    bank: Bank, shared_ledger_db: Database
) -> None:
    user = await bank.user(funds=1_000)
    await bank.post("ice:hold", [debit(user, 100), credit(bank["outbox"], 100)], "hold")
    await run_as(shared_ledger_db.owner_dsn, f"SELECT ledger.set_frozen({user}, true)")
    spend = [debit(user, 1), credit(bank["channels"], 1)]
    assert await bank.outcome("ice:post", spend) == "account_locked"
    assert await bank.outcome("ice:hold:2", spend, "hold") == "account_locked"
    assert await bank.outcome("ice:recv", [debit(bank["channels"], 5), credit(user, 5)]) == "fresh"
    assert await bank.outcome("ice:settle", spend, "settle", relates_to=["ice:hold"]) == "fresh"
    await run_as(shared_ledger_db.owner_dsn, f"SELECT ledger.set_frozen({user}, false)")
    assert await bank.outcome("ice:post", spend) == "fresh"


# Limits


async def test_a_limit_lets_exactly_itself_pass_and_gives_back_what_was_voided(
    bank: Bank, shared_ledger_db: Database
) -> None:
    user = await bank.user(funds=10_000)
    await run_as(
        shared_ledger_db.owner_dsn,
        f"INSERT INTO ledger.limits VALUES ({user}, 'send', 86400, 1000), ({user}, 'send', 604800, 1500)",
    )

    async def hold(n: int, amount: int, kind: str = "send") -> str:
        legs = [debit(user, amount + 5), credit(bank["outbox"], amount + 5)]
        return await bank.outcome(f"lim:{n}", legs, "hold", velocity=Velocity(user, kind, amount))

    assert await hold(1, 600) == "fresh"
    assert await hold(1, 600) == "repeat"  # and counts once
    assert await hold(2, 401) == "limit_exceeded"
    assert await hold(3, 400) == "fresh"
    assert await hold(4, 1) == "limit_exceeded"
    assert await hold(5, 5_000, "withdraw") == "fresh"  # another kind, without a limit
    await bank.post("lim:void", phase="void", relates_to=["lim:1"])
    assert await hold(6, 601) == "limit_exceeded"
    assert await hold(7, 600) == "fresh"
    legs = [debit(user, 405), credit(bank["channels"], 405)]
    await bank.post("lim:settle", legs, "settle", relates_to=["lim:3"])
    assert await hold(8, 1) == "limit_exceeded"  # what was really sent stays counted
    with pytest.raises(Refused) as refusal:
        await bank.post("lim:9", [debit(user, 9), credit(bank["channels"], 9)], velocity=Velocity(user, "send", 9))
    expected = {"account_id": user, "kind": "send", "window_s": 86400, "limit": 1000, "used": 1000, "asked": 9}
    assert refusal.value.fields == expected


async def test_a_limit_is_kept_by_many_at_the_same_time(bank: Bank, shared_ledger_db: Database) -> None:
    user = await bank.user(funds=10_000)
    await run_as(shared_ledger_db.owner_dsn, f"INSERT INTO ledger.limits VALUES ({user}, 'send', 3600, 1000)")
    legs = [debit(user, 300), credit(bank["outbox"], 300)]
    counted = Velocity(user, "send", 300)
    calls = [bank.outcome(f"limrace:{n}", legs, "hold", velocity=counted) for n in range(12)]
    assert sorted(await asyncio.gather(*calls)) == ["fresh"] * 3 + ["limit_exceeded"] * 9


async def test_a_limit_rolls(bank: Bank, shared_ledger_db: Database) -> None:
    user = await bank.user(funds=10_000)
    await run_as(
        shared_ledger_db.owner_dsn,
        f"INSERT INTO ledger.limits VALUES ({user}, 'send', 3600, 1000)",
        "SELECT set_config('ledger.posting', 'on', true)",
        f"INSERT INTO ledger.velocity SELECT {user}, 'send', ledger.velocity_bucket(now() - age), amount "
        "FROM (VALUES (interval '30 min', 700), (interval '80 min', 5000)) earlier(age, amount)",
    )
    legs = [debit(user, 301), credit(bank["channels"], 301)]
    assert await bank.outcome("roll:1", legs, velocity=Velocity(user, "send", 301)) == "limit_exceeded"
    assert await bank.outcome("roll:2", legs, velocity=Velocity(user, "send", 300)) == "fresh"
    await run_as(
        shared_ledger_db.owner_dsn,
        "SELECT set_config('ledger.posting', 'on', true)",
        f"UPDATE ledger.velocity SET amount = 0 WHERE account_id = {user} AND bucket < now() - interval '15 minutes'",
    )


# Accounts, reads, broken lines


async def test_opening_an_account_again_finds_it_and_never_changes_it(bank: Bank) -> None:
    async with transaction(bank.pool) as conn:
        first = await open_account_in_tx(conn, "liab:user:twice", "liability", floor=0)
        assert await open_account_in_tx(conn, "liab:user:twice", "liability", floor=0) == first
        assert await get_account_id(conn, "liab:user:twice") == first
        for other in ({"kind": "asset"}, {"currency": "USD"}, {"mode": "append"}, {"floor": 5}):
            content = {"kind": "liability", "currency": "BTC", "floor": 0, "mode": "locked"} | other
            with pytest.raises(Conflict):
                async with conn.transaction():
                    await open_account_in_tx(conn, "liab:user:twice", **content)  # type: ignore[arg-type]
        with pytest.raises(NotFound):
            await get_account_id(conn, "liab:user:nobody")


async def test_many_can_open_one_account_at_the_same_time(bank: Bank) -> None:
    async def open_it() -> int:
        async with transaction(bank.pool) as conn:
            return await open_account_in_tx(conn, "liab:user:rush", "liability", floor=0)

    assert len(set(await asyncio.gather(*(open_it() for _ in range(10))))) == 1


@pytest.mark.parametrize(
    "content",
    [
        {"code": "liab:user:nofloor", "kind": "liability"},
        {"code": "liab:user:asset", "kind": "asset", "floor": 0},
        {"code": "asset:append-floor", "kind": "asset", "floor": 0, "mode": "append"},
        {"code": "bad code", "kind": "asset"},
        {"code": "asset:x", "kind": "wish"},
        {"code": "asset:y", "kind": "asset", "currency": "btc"},
    ],
    ids=str,
)
async def test_an_account_that_breaks_the_chart_is_not_opened(bank: Bank, content: dict[str, object]) -> None:
    with pytest.raises(InvariantBroken):
        async with transaction(bank.pool) as conn:
            await open_account_in_tx(conn, **content)  # type: ignore[arg-type]


async def test_the_past_can_be_read_and_the_trial_balance_sums_to_zero(bank: Bank) -> None:
    before = datetime.now(UTC)
    user = await bank.user(funds=700)
    between = await bank.pool.fetchval("SELECT clock_timestamp()")
    await bank.post("past:1", [debit(user, 200), credit(bank["channels"], 200)])
    async with bank.pool.acquire() as conn:
        times = (before, between, datetime.now(UTC) + timedelta(seconds=5))
        assert [await get_balance_at(conn, user, at) for at in times] == [0, -700, -500]
        for at in (None, between):
            rows = await list_trial_balance(conn, at)
            for currency in {row.currency for row in rows}:
                assert sum(row.settled_msat for row in rows if row.currency == currency) == 0
                assert sum(row.held_msat for row in rows if row.currency == currency) == 0


async def test_a_posting_outside_of_a_transaction_is_refused(bank: Bank) -> None:
    async with bank.pool.acquire() as conn:
        with pytest.raises(InvariantBroken):
            await post_in_tx(conn, make("outside", [debit(1, 1), credit(2, 1)]))
        with pytest.raises(InvariantBroken):
            await open_account_in_tx(conn, "liab:user:out", "liability", floor=0)


async def test_a_lost_connection_before_commit_booked_nothing(bank: Bank, shared_ledger_db: Database) -> None:
    user = await bank.user(funds=100)
    legs = [debit(user, 100), credit(bank["channels"], 100)]
    with pytest.raises(Unavailable):  # noqa: PT012 - the whole block is the story
        async with transaction(bank.pool) as conn:
            await post_in_tx(conn, make("lost:1", legs))
            await run_as(shared_ledger_db.superuser_dsn, f"SELECT pg_terminate_backend({conn.get_server_pid()}, 5000)")
            await post_in_tx(conn, make("lost:2", legs))
    assert await bank.balance(user) == (100, 0, 0)
    assert await bank.outcome("lost:1", legs) == "fresh"


async def test_a_connection_lost_during_commit_leaves_the_outcome_unknown_and_a_repeat_finds_out(
    bank: Bank, shared_ledger_db: Database
) -> None:
    user = await bank.user(funds=100)
    legs = [debit(user, 100), credit(bank["channels"], 100)]
    with pytest.raises(OutcomeUnknown):  # noqa: PT012 - the whole block is the story
        async with transaction(bank.pool) as conn:
            await post_in_tx(conn, make("lost:3", legs))
            await run_as(shared_ledger_db.superuser_dsn, f"SELECT pg_terminate_backend({conn.get_server_pid()}, 5000)")
    assert await bank.outcome("lost:3", legs) in {"fresh", "repeat"}
    assert await bank.balance(user) == (0, 0, 0)


async def test_a_database_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await open_pool("postgresql://nobody@127.0.0.1:1/none")
