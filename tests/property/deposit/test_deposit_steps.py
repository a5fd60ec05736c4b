"""The next step of a deposit: in Python and in SQL the same, and always an end.

Every combination of facts that the table's constraints allow is a row here, whether or not a bank can come to it.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from engine.bank.account.account import NewAccount, list_wallets, open_bank_account_in_tx
from engine.bank.chain.deposit import DepositRow, get_rows_in_tx
from engine.bank.chain.due import find_due, list_due
from engine.domain.deposit import DepositRules, DepositStatus, Facts, Sight, Step, next_step, parse_rules
from engine.domain.errors import Invalid
from engine.domain.ids import AccountId, DepositId
from engine.domain.money import Sat
from engine.ledger.database import Connection, Pool, open_pool, transaction
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.property

TIP, REQUIRED, DEEP = 100, 3, 6
PLACES = [("mempool", None), ("gone", None), *(("mined", height) for height in (TIP + 1, TIP, 98, 96, 95, 1))]
_MOST_STEPS, _FEWEST = 8, 500

_CANDIDATES = """
CREATE TEMP TABLE candidates AS
SELECT lpad(to_hex(row_number() OVER ()), 64, '0') AS txid, *
  FROM unnest($1::text[], $2::int[]) place(sight, height),
       unnest(ARRAY[true, false]) below, unnest(ARRAY[true, false]) owned,
       unnest(ARRAY['none', 'this', 'other', 'longer']) hold, unnest(ARRAY['none', 'this', 'other']) booked,
       unnest(ARRAY[true, false]) final, unnest(ARRAY[true, false]) released, unnest($3::text[]) status
 WHERE NOT (final AND booked = 'other')  -- a row that moves is not final any more"""
_ALLOWED = """
DO $$ DECLARE c record; BEGIN
  FOR c IN SELECT * FROM candidates LOOP
    BEGIN
      INSERT INTO bank.deposits(id, txid, vout, address, wallet_id, account_id, amount_sat, status, sight, block_height,
             block_hash, required, deep, below_minimum, hold_ref, conf_ref, place, release_ref, workflow_id, final_at)
      SELECT 'dep_' || c.txid, c.txid, 1, 'somebody', w.id, w.account_id, 50000, c.status, c.sight, c.height,
             CASE WHEN c.height IS NOT NULL THEN repeat('b', 64) END, 3, 6, c.below,
             CASE c.hold WHEN 'this' THEN format('chain:%s:1:seen', c.txid)
                         WHEN 'other' THEN format('chain:%s:1:seen', reverse(c.txid))
                         WHEN 'longer' THEN format('chain:%s:11:seen', c.txid) END,
             CASE c.booked WHEN 'this' THEN format('chain:%s:1:conf:1', c.txid)
                           WHEN 'other' THEN format('chain:%s:1:conf:1', reverse(c.txid)) END,
             CASE WHEN c.booked <> 'none' THEN 'wallet' END,
             CASE WHEN c.released THEN format('chain:%s:1:release:1', c.txid) END, 'deposit',
             CASE WHEN c.final THEN now() END
        FROM (SELECT 1) one LEFT JOIN bank.wallets w ON c.owned;
    EXCEPTION WHEN check_violation THEN NULL;
    END;
  END LOOP; END $$"""


@pytest_asyncio.fixture
async def pool(ledger_db: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_db.owner_dsn, max_size=2)  # it makes a table of its own
    yield pool
    await pool.close()


async def every_row(conn: Connection) -> list[DepositRow]:
    """A row of each combination."""
    account = AccountId("acct_1")
    await open_bank_account_in_tx(conn, NewAccount(id=account, level=0))
    assert len(await list_wallets(conn, account)) == 1
    sights, heights = zip(*PLACES, strict=True)
    await conn.execute(_CANDIDATES, sights, heights, list(DepositStatus))
    await conn.execute(_ALLOWED)
    ids = [DepositId(row["id"]) for row in await conn.fetch("SELECT id FROM bank.deposits")]
    return await get_rows_in_tx(conn, ids)


async def test_sql_and_python_name_the_same_deposits(pool: Pool) -> None:
    async with transaction(pool) as conn:
        rows = await every_row(conn)
        assert len(rows) > _FEWEST, "the constraints allow fewer combinations than before: is that meant?"
        for tip in (TIP - 1, TIP):
            due = {row.id for row in rows if next_step(row.facts, tip) is not Step.WAIT}
            found = await find_due(conn, [row.id for row in rows], tip)
            assert [row.facts for row in rows if (row.id in due) != (row.id in found)] == []
            assert {each.id for each in await list_due(conn, tip, 100_000)} == found


async def test_every_deposit_comes_to_rest_within_eight_steps(pool: Pool) -> None:
    """Whatever the books answer: whether its account is open, and where they put the money."""
    async with transaction(pool) as conn:
        facts = {row.facts for row in await every_row(conn)}
    longest = max(_longest(each) for each in facts)
    assert 3 <= longest <= _MOST_STEPS


def _longest(facts: Facts, so_far: int = 0) -> int:
    """The most steps until it waits."""
    step = next_step(facts, TIP)
    if step is Step.WAIT:
        return so_far
    assert so_far < _MOST_STEPS, f"no rest: {facts}"
    return max(_longest(after, so_far + 1) for after in _after(step, facts))


def _after(step: Step, facts: Facts) -> list[Facts]:
    """All that this step can leave, as `activities/deposit/booking.py` says it."""
    match step:
        case Step.HOLD:
            status = DepositStatus.REVERSED if facts.status is DepositStatus.REVERSED else _waiting(facts)
            nobody = replace(facts, status=status, has_owner=False)
            shown = replace(facts, status=status, hold_ref="this", hold_is_of_this=True)
            owned = replace(facts, status=status) if facts.below_minimum else shown
            return [nobody, owned] if facts.has_owner else [nobody]
        case Step.DROP:
            gone = facts.sight is Sight.GONE and facts.status is not DepositStatus.REVERSED
            status = DepositStatus.DROPPED if gone else facts.status
            return [replace(facts, hold_ref=None, hold_is_of_this=False, status=status)]
        case Step.BOOK:
            return _booked(facts)
        case Step.REVERSE:
            credited = facts.status is DepositStatus.CREDITED
            status = DepositStatus.REVERSED if credited else _waiting(facts)
            return [replace(facts, is_booked=False, booking_is_of_this=False, is_final=False, status=status)]
        case _:
            return [replace(facts, is_final=True)]


def _booked(facts: Facts) -> list[Facts]:
    booked = replace(facts, hold_ref=None, hold_is_of_this=False, is_booked=True, booking_is_of_this=True)
    parked = replace(booked, status=DepositStatus.UNATTRIBUTED, has_owner=False)
    if not facts.has_owner:
        return [parked]
    if facts.below_minimum:
        return [parked, replace(booked, status=DepositStatus.BELOW_MINIMUM)]
    return [parked, *(replace(booked, status=each) for each in (DepositStatus.CREDITED, DepositStatus.HELD))]


def _waiting(facts: Facts) -> DepositStatus:
    return DepositStatus.BELOW_MINIMUM if facts.below_minimum else DepositStatus.PENDING


_LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([0, 1, 6, 1000, 1001, 10**18, -1, "1", 1.0, True, 2**70]),
)
_STEP = st.one_of(_LEAF, st.dictionaries(st.sampled_from(["up_to_sat", "confirmations", "x" * 300]), _LEAF))
_HOSTILE = st.dictionaries(
    st.one_of(st.sampled_from(["confirmations", "minimum_sat", "deep", "unpaid_addresses"]), st.text(max_size=300)),
    st.one_of(_LEAF, st.lists(_STEP, max_size=25)),
)


@given(content=_HOSTILE)
def test_rules_are_read_or_refused_with_the_place(content: dict[str, Any]) -> None:
    rules = _rules(content)
    if isinstance(rules, Invalid):
        assert rules.fields["field"]
        assert len(rules.detail) < 1_000
        return
    amounts = [Sat(each) for each in (1, 999, 1_000_000, 1_000_001, 21 * 10**14)]
    required = [rules.required(each, coinbase=False) for each in amounts]
    assert required == sorted(required)
    for amount, depth in zip(amounts, required, strict=True):
        mature = rules.required(amount, coinbase=True)
        assert mature == max(101, depth)
        assert rules.watched_until(mature) >= mature >= 1


def _rules(content: dict[str, Any]) -> DepositRules | Invalid:
    try:
        return parse_rules(content)
    except Invalid as refused:
        return refused


@given(
    depths=st.lists(st.integers(1, 1000), min_size=1, max_size=20),
    bounds=st.sets(st.integers(1, 10**12), min_size=19, max_size=19),
    amount=st.integers(1, 10**13),
)
def test_rules_find_the_first_step_that_an_amount_fits(depths: list[int], bounds: set[int], amount: int) -> None:
    steps = list(zip(sorted(bounds), sorted(depths), strict=False))[: len(depths) - 1]
    last = max(depths)
    listed = [{"up_to_sat": bound, "confirmations": depth} for bound, depth in steps]
    rules = parse_rules({"confirmations": [*listed, {"confirmations": last}]})
    wanted = min((depth for bound, depth in steps if amount <= bound), default=last)
    assert rules.required(Sat(amount), coinbase=False) == wanted
