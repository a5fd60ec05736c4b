"""Limits as the ledger keeps them: exact at every amount, edge and clock, whoever asks at the same time."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from engine.bank import limit
from engine.bank.limit import prune_counters_in_tx
from engine.domain.errors import Refused
from engine.domain.limit import WINDOWS, Count
from engine.ledger.book import Counted, credit, debit
from engine.ledger.database import open_pool, transaction
from tests.fixtures.postgres import Database, database_at, migrate
from tests.helpers.ledger.bank import Bank, run_as, running_bank

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database) -> AsyncIterator[Bank]:
    async with running_bank(shared_ledger_db) as bank:
        yield bank


DAY, WEEK, MONTH = WINDOWS.values()


def send(user: int, amount: int, *, kind: str = "send", **maxima: int) -> Counted:
    """Counts an amount of msat, with the maxima that are named."""
    return Counted(user, [Count(kind, amount, {WINDOWS[window]: most for window, most in maxima.items()})])  # type: ignore[index]


async def test_a_limit_lets_exactly_itself_pass_and_gives_back_what_was_voided(bank: Bank) -> None:
    user = await bank.user(funds=10_000)

    async def hold(n: int, amount: int, kind: str = "send") -> str:
        legs = [debit(user, amount + 5), credit(bank["outbox"], amount + 5)]
        maxima = {"day": 1_000, "week": 1_500} if kind == "send" else {}
        return await bank.outcome(f"lim:{n}", legs, "hold", counted=send(user, amount, kind=kind, **maxima))

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
        await bank.post("lim:9", [debit(user, 9), credit(bank["channels"], 9)], counted=send(user, 9, day=1_000))
    expected = {"account_id": user, "kind": "send", "window_s": 86400, "limit": 1000, "used": 1000, "asked": 9}
    assert refusal.value.fields == expected


async def test_each_kind_and_window_has_its_own_limit_and_the_first_exceeded_is_named(bank: Bank) -> None:
    user = await bank.user(funds=10_000)
    legs = [debit(user, 100), credit(bank["channels"], 100)]

    def both(micro: int) -> Counted:
        return Counted(user, [Count("out", 100, {DAY: 300, WEEK: 250}), Count("out:USD", micro, {MONTH: 1_000})])

    assert await bank.outcome("two:1", legs, counted=both(600)) == "fresh"
    with pytest.raises(Refused) as fiat:
        await bank.post("two:2", legs, counted=both(401))
    assert (fiat.value.fields["kind"], fiat.value.fields["window_s"]) == ("out:USD", MONTH)
    assert await bank.outcome("two:3", legs, counted=both(400)) == "fresh"
    with pytest.raises(Refused) as week:
        await bank.post("two:4", legs, counted=both(1))
    assert (week.value.fields["kind"], week.value.fields["window_s"]) == ("out", WEEK)


async def test_a_limit_below_what_is_used_refuses_and_one_that_is_raised_lets_pass(bank: Bank) -> None:
    user = await bank.user(funds=10_000)
    legs = [debit(user, 100), credit(bank["channels"], 100)]
    assert await bank.outcome("lower:1", legs, counted=send(user, 100)) == "fresh"  # counted, though nothing limits it
    assert await bank.outcome("lower:2", legs, counted=send(user, 100, day=50)) == "limit_exceeded"
    assert await bank.outcome("lower:3", legs, counted=send(user, 100, month=199)) == "limit_exceeded"
    assert await bank.outcome("lower:4", legs, counted=send(user, 100, day=200, month=200)) == "fresh"


async def test_a_limit_is_kept_by_many_at_the_same_time(bank: Bank) -> None:
    user = await bank.user(funds=10_000)
    legs = [debit(user, 300), credit(bank["outbox"], 300)]
    calls = [bank.outcome(f"limrace:{n}", legs, "hold", counted=send(user, 300, day=1_000)) for n in range(12)]
    assert sorted(await asyncio.gather(*calls)) == ["fresh"] * 3 + ["limit_exceeded"] * 9


async def earlier(database: Database, user: int, window_s: int, rows: dict[str, int]) -> None:
    """Put in buckets by their beginnings as SQL: `w` is the length of the window, `b` of a bucket."""
    values = ", ".join(f"({begin}, {amount})" for begin, amount in rows.items())
    await run_as(
        database.owner_dsn,
        "SELECT set_config('ledger.posting', 'on', true)",
        f"""INSERT INTO ledger.counters SELECT {user}, 'send', {window_s},
                ledger.counter_bucket({window_s}, begin), amount
              FROM (SELECT clock_timestamp() AS now, make_interval(secs => {window_s}) AS w,
                           make_interval(secs => {window_s / 96}) AS b) t
              CROSS JOIN LATERAL (VALUES {values}) v(begin, amount)""",
    )


async def forget(database: Database, user: int) -> None:
    """So that the checks of the books find nothing that no transfer explains."""
    await run_as(
        database.owner_dsn,
        "SELECT set_config('ledger.posting', 'on', true)",
        f"""UPDATE ledger.counters SET amount = 0 WHERE account_id = {user} AND bucket <> ALL (
            SELECT ledger.counter_bucket(window_s, received_at) FROM ledger.transfers
             WHERE counts_account_id = {user})""",
    )


@pytest.mark.parametrize("window_s", WINDOWS.values())
async def test_a_bucket_counts_while_any_of_it_is_in_the_window(
    bank: Bank, shared_ledger_db: Database, window_s: int
) -> None:
    user = await bank.user(funds=10_000)
    legs = [debit(user, 301), credit(bank["channels"], 301)]
    # The bucket of the moment that has just left the window still holds what came later; the one before it does not.
    await earlier(shared_ledger_db, user, window_s, {"now - w": 700, "now - w - b": 5_000})
    count = [Count("send", 301, {window_s: 1_000})]
    assert await bank.outcome(f"roll:{window_s}:1", legs, counted=Counted(user, count)) == "limit_exceeded"
    count = [Count("send", 300, {window_s: 1_000})]
    assert await bank.outcome(f"roll:{window_s}:2", legs, counted=Counted(user, count)) == "fresh"
    await forget(shared_ledger_db, user)


async def test_buckets_of_a_clock_that_ran_ahead_still_count(bank: Bank, shared_ledger_db: Database) -> None:
    user = await bank.user(funds=10_000)
    legs = [debit(user, 100), credit(bank["outbox"], 100)]
    await earlier(shared_ledger_db, user, DAY, {"now + interval '3 hours'": 900})
    assert await bank.outcome("ahead:1", legs, "hold", counted=send(user, 101, day=1_000)) == "limit_exceeded"
    assert await bank.outcome("ahead:2", legs, "hold", counted=send(user, 100, day=1_000)) == "fresh"
    await forget(shared_ledger_db, user)


async def test_a_hold_made_before_the_clock_was_set_back_is_given_back_exactly(
    bank: Bank, shared_ledger_db: Database
) -> None:
    user = await bank.user(funds=10_000)
    legs = [debit(user, 400), credit(bank["outbox"], 400)]
    assert await bank.outcome("back:hold", legs, "hold", counted=send(user, 400, day=1_000)) == "fresh"
    # As if the clock had shown another day then: the transfer says when, and the buckets are those of that moment.
    await run_as(
        shared_ledger_db.superuser_dsn,
        "SET LOCAL session_replication_role = replica",
        "UPDATE ledger.transfers SET received_at = received_at + interval '2 days' WHERE external_ref = 'back:hold'",
        f"""UPDATE ledger.counters SET bucket = ledger.counter_bucket(window_s, t.received_at)
              FROM ledger.transfers t WHERE external_ref = 'back:hold' AND account_id = {user}""",
    )
    assert await bank.broken() == []
    assert await bank.outcome("back:2", legs, "hold", counted=send(user, 601, day=1_000)) == "limit_exceeded"
    await bank.post("back:void", phase="void", relates_to=["back:hold"])
    assert await bank.pool.fetchval("SELECT sum(amount) FROM ledger.counters WHERE account_id = $1", user) == 0
    assert await bank.outcome("back:3", legs, "hold", counted=send(user, 1_000, day=1_000)) == "fresh"


async def test_buckets_older_than_twice_their_window_end_and_no_other(bank: Bank, shared_ledger_db: Database) -> None:
    user = await bank.user(funds=10_000)
    legs = [debit(user, 400), credit(bank["outbox"], 400)]
    kept = "SELECT window_s, sum(amount)::int FROM ledger.counters WHERE account_id = $1 GROUP BY 1 ORDER BY 1"
    assert await bank.outcome("prune:hold", legs, "hold", counted=send(user, 400, day=1_000)) == "fresh"
    # As if it had been held 15 days ago: twice a week, and half of a month.
    await run_as(
        shared_ledger_db.superuser_dsn,
        "SET LOCAL session_replication_role = replica",
        """UPDATE ledger.transfers SET received_at = received_at - interval '15 days', effective_on = effective_on - 15
            WHERE external_ref = 'prune:hold'""",
        f"""UPDATE ledger.counters SET bucket = ledger.counter_bucket(window_s, t.received_at)
              FROM ledger.transfers t WHERE external_ref = 'prune:hold' AND account_id = {user}""",
    )
    assert await bank.outcome("prune:new", legs, "hold", counted=send(user, 400, month=1_000)) == "fresh"
    async with transaction(bank.pool) as conn:
        assert await prune_counters_in_tx(conn) is False
    assert [tuple(row) for row in await bank.pool.fetch(kept, user)] == [(DAY, 400), (WEEK, 400), (MONTH, 800)]
    assert await bank.broken() == []
    await bank.post("prune:void", phase="void", relates_to=["prune:hold"])  # what there is of its buckets is given back
    assert [tuple(row) for row in await bank.pool.fetch(kept, user)] == [(DAY, 400), (WEEK, 400), (MONTH, 400)]
    assert await bank.broken() == []


async def test_pruning_waits_for_nobody_and_takes_as_much_as_it_may(
    bank: Bank, shared_ledger_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await bank.user()
    old = {f"now - w * 2 - b * {n}": 0 for n in range(2, 9)}
    await earlier(shared_ledger_db, user, DAY, old)
    monkeypatch.setattr(limit, "PRUNED_AT_ONCE", 3)
    busy = await asyncpg.connect(shared_ledger_db.owner_dsn)
    try:
        await busy.execute("BEGIN")
        await busy.execute(f"SELECT FROM ledger.counters WHERE account_id = {user} ORDER BY bucket LIMIT 1 FOR UPDATE")
        async with transaction(bank.pool) as conn:
            assert [await prune_counters_in_tx(conn) for _ in range(3)] == [True, True, False]
        assert await bank.pool.fetchval("SELECT count(*) FROM ledger.counters WHERE account_id = $1", user) == 1
    finally:
        await busy.close()
    async with transaction(bank.pool) as conn:
        assert await prune_counters_in_tx(conn) is False
    assert await bank.pool.fetchval("SELECT count(*) FROM ledger.counters WHERE account_id = $1", user) == 0


async def test_nobody_deletes_a_bucket_that_may_still_count(bank: Bank, shared_ledger_db: Database) -> None:
    user = await bank.user(funds=10_000)
    legs = [debit(user, 1), credit(bank["channels"], 1)]
    assert await bank.outcome("still:1", legs, counted=send(user, 1)) == "fresh"
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await run_as(
            shared_ledger_db.owner_dsn,
            "SELECT set_config('ledger.posting', 'pruning', true)",
            f"DELETE FROM ledger.counters WHERE account_id = {user}",
        )
    assert str(refusal.value.sqlstate) == "LD405"


OLD_STORY = """DO $$ DECLARE
    u bigint := ledger.open_account('liab:user:old', 'liability', 'BTC', 0, 'locked');
    a bigint := ledger.open_account('asset:old', 'asset', 'BTC', NULL, 'append');
    o bigint := ledger.open_account('liab:outbox', 'liability', 'BTC', NULL, 'append');
BEGIN
    PERFORM ledger.post('old:1', sha256('1'), 't', 'post', '{}', ARRAY[a, u], ARRAY[1000, -1000]::bigint[], 'x');
    PERFORM ledger.post('old:2', sha256('2'), 't', 'hold', '{}', ARRAY[u, o], ARRAY[300, -300]::bigint[], 'x',
        p_velocity_account => u, p_velocity_kind => 'send', p_velocity_amount => 250);
    PERFORM ledger.post('old:3', sha256('3'), 't', 'hold', '{}', ARRAY[u, o], ARRAY[300, -300]::bigint[], 'x',
        p_velocity_account => u, p_velocity_kind => 'send', p_velocity_amount => 100);
    PERFORM ledger.post('old:4', sha256('4'), 't', 'void', '{old:3}', '{}', '{}', 'x');
END $$"""


async def test_books_of_an_earlier_version_keep_what_they_counted(postgres_server: str, postgres_template: str) -> None:
    async with database_at(postgres_server, "0004") as database:
        await run_as(database.owner_dsn, OLD_STORY)
        await asyncio.to_thread(migrate, database.owner_dsn)
        pool = await open_pool(database.app_dsn)
        bank = Bank(pool, {})
        assert await bank.broken() == []
        counted = "SELECT window_s, sum(amount)::int FROM ledger.counters GROUP BY 1 ORDER BY 1"
        assert [tuple(row) for row in await pool.fetch(counted)] == [(DAY, 250), (WEEK, 250), (MONTH, 250)]
        await bank.post("new:void", phase="void", relates_to=["old:2"])
        assert [tuple(row) for row in await pool.fetch(counted)] == [(DAY, 0), (WEEK, 0), (MONTH, 0)]
        assert await bank.broken() == []
        await pool.close()
