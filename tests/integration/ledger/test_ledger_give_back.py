"""What a hold counted and did not use, and counts that no bigint holds: exact in the ledger, whoever asks at once."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from fractions import Fraction
from math import ceil

import pytest
import pytest_asyncio

from engine.bank.limit import read_used
from engine.domain.errors import Refused
from engine.domain.limit import WINDOWS, Count
from engine.ledger.book import MAX_LEG_MSAT, Counted, credit, debit
from engine.ledger.database import transaction
from engine.ledger.store import post_batch_in_tx
from tests.fixtures.postgres import Database, database_at, migrate
from tests.helpers.ledger.bank import Bank, make, run_as, running_bank

pytestmark = pytest.mark.integration
DAY, WEEK, MONTH = WINDOWS.values()
_numbers = itertools.count()


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database) -> AsyncIterator[Bank]:
    async with running_bank(shared_ledger_db) as bank:
        yield bank


async def hold(bank: Bank, user: int, held: int, **counts: int) -> str:
    """Hold so much, and count so much under these kinds; `msat` and the others are names of kinds."""
    ref = f"give:{next(_numbers)}"
    counted = Counted(user, [Count(kind, amount) for kind, amount in counts.items()])
    await bank.post(ref, [debit(user, held), credit(bank["outbox"], held)], "hold", counted=counted)
    return ref


async def settle(bank: Bank, user: int, left: int, *holds: str) -> str:
    legs = [debit(user, left), credit(bank["channels"], left)]
    return await bank.outcome(f"settle:{holds[0]}", legs, "settle", relates_to=list(holds))


async def used(bank: Bank, user: int, kind: str = "msat") -> int:
    """What counts within each window; all windows say the same."""
    (amount,) = set((await read_used(bank.pool, user, [kind])).values())
    return amount


@pytest.mark.parametrize(
    ("held", "left", "micro"),
    [(1_000, 1_000, 77), (1_000, 1, 77), (1_000, 999, 77), (3, 2, 10**18), (10**15 + 7, 10**15, 10**17 + 3)],
)
async def test_a_settlement_gives_back_what_did_not_leave(bank: Bank, held: int, left: int, micro: int) -> None:
    user = await bank.user(funds=held)
    ref = await hold(bank, user, held, msat=held, other=micro)
    assert (await used(bank, user), await used(bank, user, "other")) == (held, micro)
    assert [await settle(bank, user, left, ref) for _ in range(3)] == ["fresh", "repeat", "repeat"]
    assert await used(bank, user) == left
    assert await used(bank, user, "other") == ceil(Fraction(micro * left, held))  # never less than its share
    assert await bank.broken() == []


async def test_holds_that_are_settled_together_each_keep_their_share(bank: Bank) -> None:
    user = await bank.user(funds=1_000)
    holds = [await hold(bank, user, amount, msat=amount) for amount in (100, 200, 7)]
    assert await settle(bank, user, 250, *holds) == "fresh"
    assert 250 <= await used(bank, user) <= 252  # 100, 200 and 7 in the ratio 250 : 307, each rounded up
    assert await bank.broken() == []


async def test_a_settlement_that_takes_nothing_from_who_counted_gives_all_back(bank: Bank) -> None:
    user = await bank.user(funds=1_000)
    ref = await hold(bank, user, 400, msat=400, other=5)
    legs = [debit(bank["loss"], 300), credit(bank["outbox"], 300)]
    assert await bank.outcome("give:away", legs, "settle", relates_to=[ref]) == "fresh"
    assert (await used(bank, user), await used(bank, user, "other")) == (0, 0)
    assert await bank.broken() == []


async def test_a_hold_that_counts_less_than_it_holds_gives_nothing_back_when_it_is_settled(bank: Bank) -> None:
    """Those of the version before counted the amount and held the fee beside it: the amount has left."""
    user = await bank.user(funds=1_000)
    ref = await hold(bank, user, 110, msat=100, other=110)  # in another unit it may happen to be the same number
    assert await settle(bank, user, 101, ref) == "fresh"
    assert (await used(bank, user), await used(bank, user, "other")) == (100, 110)
    assert await bank.broken() == []


EARLIER = """DO $$ DECLARE
    u bigint := ledger.open_account('liab:user:old', 'liability', 'BTC', 0, 'locked');
    a bigint := ledger.open_account('asset:old', 'asset', 'BTC', NULL, 'append');
    o bigint := ledger.open_account('liab:outbox', 'liability', 'BTC', NULL, 'append');
BEGIN
    PERFORM ledger.post('old:1', sha256('1'), 't', 'post', '{}', ARRAY[a, u], ARRAY[1000, -1000]::bigint[], 'x');
    FOR n IN 2..4 LOOP  -- held with a fee cap of 10, which is not counted; in another unit it is the same by chance
        PERFORM ledger.post('old:' || n, sha256(convert_to('h' || n, 'UTF8')), 't', 'hold', '{}', ARRAY[u, o],
            ARRAY[110, -110]::bigint[], 'x', p_counts_account => u, p_count_kinds => '{msat,msat:USD}',
            p_count_amounts => '{100,110}');
    END LOOP;
    PERFORM ledger.post('old:5', sha256('5'), 't', 'settle', '{old:2}', ARRAY[u, a], ARRAY[103, -103]::bigint[], 'x');
    PERFORM ledger.post('old:6', sha256('6'), 't', 'void', '{old:3}', '{}', '{}', 'x');
END $$"""


async def test_books_of_the_version_before_keep_what_they_counted(postgres_server: str, postgres_template: str) -> None:
    """Settled, released and still held when the books are migrated."""
    async with database_at(postgres_server, "0019") as database:
        await run_as(database.owner_dsn, EARLIER)
        await asyncio.to_thread(migrate, database.owner_dsn)
        async with running_bank(database) as bank:
            user = await bank.pool.fetchval("SELECT min(account_id) FROM ledger.balances")
            assert await bank.broken() == []
            assert (await used(bank, user), await used(bank, user, "msat:USD")) == (200, 220)
            assert await settle(bank, user, 104, "old:4") == "fresh"
            assert (await used(bank, user), await used(bank, user, "msat:USD")) == (200, 220)


async def test_many_holds_and_settlements_at_once_are_counted_exactly(bank: Bank) -> None:
    user = await bank.user(funds=100_000)

    async def pay(n: int) -> int:
        """Gives what has left."""
        ref = await hold(bank, user, 1_000, msat=1_000)
        if n % 3 == 0:
            await bank.post(f"void:{ref}", phase="void", relates_to=[ref])
            return 0
        ends = await asyncio.gather(settle(bank, user, 900 + n, ref), settle(bank, user, 900 + n, ref))
        assert sorted(ends) == ["fresh", "repeat"]
        return 900 + n

    assert await used(bank, user) == 0
    left = await asyncio.gather(*(pay(n) for n in range(24)))
    assert await used(bank, user) == sum(left)


async def test_a_count_that_no_bigint_holds_is_a_limit_exceeded(bank: Bank) -> None:
    user = await bank.user(funds=100)
    legs = [debit(user, 1), credit(bank["channels"], 1)]
    huge = Counted(user, [Count("huge", MAX_LEG_MSAT)])
    told = [await bank.outcome(f"huge:{n}", legs, counted=huge) for n in range(5)]
    assert told == ["fresh"] * 4 + ["limit_exceeded"]
    with pytest.raises(Refused) as refusal:
        await bank.post("huge:more", legs, counted=huge)
    expected = {"account_id": user, "kind": "huge", "limit": 2**63 - 1, "used": 4 * MAX_LEG_MSAT, "asked": MAX_LEG_MSAT}
    assert {name: refusal.value.fields[name] for name in expected} == expected
    assert refusal.value.fields["window_s"] in WINDOWS.values()
    async with transaction(bank.pool) as conn:
        some = [make(f"huge:batch:{n}", legs, counted=counted) for n, counted in enumerate((huge, None, huge))]
        verdicts = await post_batch_in_tx(conn, some)
    assert [getattr(verdict, "code", "fresh") for verdict in verdicts] == ["limit_exceeded", "fresh", "limit_exceeded"]
    assert await used(bank, user, "huge") == 4 * MAX_LEG_MSAT


async def test_buckets_whose_sum_no_bigint_holds_are_shown_and_refused(bank: Bank, shared_ledger_db: Database) -> None:
    user = await bank.user(funds=100)
    legs = [debit(user, 1), credit(bank["channels"], 1)]
    most = Counted(user, [Count("wide", MAX_LEG_MSAT)])
    for n in range(4):
        await bank.post(f"wide:{n}", legs, counted=most)
    await _let_buckets_pass(shared_ledger_db, user)
    await bank.post("wide:again", legs, counted=most)
    shown = await read_used(bank.pool, user, ["wide"])
    assert shown["wide", "month"] == 5 * MAX_LEG_MSAT > 2**63
    limited = Counted(user, [Count("wide", 1, {MONTH: MAX_LEG_MSAT})])
    assert await bank.outcome("wide:limited", legs, counted=limited) == "limit_exceeded"


async def _let_buckets_pass(database: Database, user: int) -> None:
    """As if it had all been 3,150 minutes ago: so many are whole buckets of every window."""
    ago = "interval '3150 minutes'"
    await run_as(
        database.superuser_dsn,
        "SET LOCAL session_replication_role = replica",
        f"""UPDATE ledger.transfers SET received_at = received_at - {ago}, effective_on = effective_on - 3
             WHERE counts_account_id = {user}""",
        f"UPDATE ledger.counters SET bucket = bucket - {ago} WHERE account_id = {user}",
    )
