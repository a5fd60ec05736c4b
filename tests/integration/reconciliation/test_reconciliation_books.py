"""What a reconciliation makes of wrong books, and what becomes of its cases: on a database of its own."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities.reconciliation.reconciliation import Reconciliations
from engine.contracts.reconciliation import (
    BooksCheck,
    CaseResolution,
    Finding,
    FindingKind,
    ResolveCase,
    RunReport,
    RunStart,
    RunStatus,
)
from engine.domain.ids import CaseId, ReconciliationId
from engine.ledger.book import credit, debit
from engine.ledger.database import Pool, open_pool
from tests.fixtures.postgres import Database
from tests.helpers.ledger.bank import open_bank, run_as

pytestmark = pytest.mark.integration

CHECK = BooksCheck(stuck_after_s=3600)
FOUND = Finding(
    kind=FindingKind.PAYMENT_NOT_IN_BOOKS,
    account="asset:lnd:lnd-1:channels",
    subject="ab" * 32,
    amount_msat=7,
    detail="lnd-1 has paid 7 msat",
)
AWAY = Finding(
    kind=FindingKind.PLACE_UNREACHABLE, account="asset:lnd:lnd-1:", subject="lnd-1", amount_msat=0, detail="away"
)


@pytest_asyncio.fixture
async def pool(ledger_db: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_db.app_dsn, min_size=0, max_size=2)
    yield pool
    await pool.close()


async def check(pool: Pool) -> list[Finding]:
    found: list[Finding] = await ActivityEnvironment().run(Reconciliations(pool).check_books, CHECK)
    return found


async def keep(pool: Pool, run: str, *findings: Finding) -> RunStatus:
    """A run, begun and recorded twice, as a repeat would."""
    activities = Reconciliations(pool)
    report = RunReport(run=ReconciliationId(run), accounts=[], findings=list(findings))
    for _ in range(2):
        await activities.begin_run(RunStart(run=report.run, workflow_id="reconciliation"))
        status = (await activities.record_run(report)).status
    return status


async def trail(pool: Pool) -> list[str]:
    return [row["event"] for row in await pool.fetch("SELECT event FROM bank.case_updates ORDER BY id")]


async def test_an_entry_that_a_hand_has_altered_is_found(ledger_db: Database, pool: Pool) -> None:
    bank = await open_bank(pool)
    alice = await bank.user(5_000)
    await bank.post("out", [debit(alice, 1_000), credit(bank["channels"], 1_000)])
    assert await check(pool) == []
    await run_as(
        ledger_db.owner_dsn,
        "ALTER TABLE ledger.entries DISABLE TRIGGER append_only",
        f"UPDATE ledger.entries SET amount = amount + 1 WHERE account_id = {alice} AND amount = 1000",
        "ALTER TABLE ledger.entries ENABLE TRIGGER append_only",
    )
    found = await check(pool)
    assert {each.kind for each in found} == {FindingKind.BROKEN_RULE}
    assert any("rule 1 balanced" in each.detail for each in found)
    await bank.post("later", [debit(alice, 1_000), credit(bank["channels"], 1_000)])
    assert {each.subject for each in await check(pool)} == {each.subject for each in found}
    assert await keep(pool, "rec_1", *found) is RunStatus.DIFFERS
    assert await pool.fetchval("SELECT count(*) FROM bank.cases") == len(found)


async def test_a_hold_without_a_payment_is_found(pool: Pool) -> None:
    bank = await open_bank(pool)
    alice = await bank.user(5_000)
    ref = f"ln:{'cd' * 32}:hold:1"
    await bank.post(ref, [debit(alice, 1_000), credit(bank["outbox"], 1_000)], "hold")
    (found,) = await check(pool)
    assert (found.kind, found.subject) == (FindingKind.HOLD_WITHOUT_PAYMENT, ref)
    assert found.suspects[0].amount_msat == 1_000


async def test_a_case_lives_from_its_first_run_until_it_is_explained_and_gone(pool: Pool) -> None:
    assert await keep(pool, "rec_1", FOUND) is RunStatus.DIFFERS
    assert await keep(pool, "rec_2", replace(FOUND, detail="again")) is RunStatus.DIFFERS
    assert await keep(pool, "rec_3", AWAY) is RunStatus.INCOMPLETE
    assert await trail(pool) == ["opened"]
    assert await keep(pool, "rec_4") is RunStatus.CLEAN
    assert await keep(pool, "rec_5", FOUND) is RunStatus.DIFFERS
    assert await trail(pool) == ["opened", "vanished", "found_again"]

    case = CaseId(await pool.fetchval("SELECT id FROM bank.cases"))
    word = ResolveCase(case=case, resolution=CaseResolution(operator="carol", reason="by hand"))
    assert await Reconciliations(pool).resolve_case(word)
    other = replace(word, resolution=CaseResolution(operator="dave", reason="no"))
    assert not await Reconciliations(pool).resolve_case(other)
    assert await keep(pool, "rec_6", FOUND) is RunStatus.EXPLAINED
    assert await keep(pool, "rec_7") is RunStatus.CLEAN
    assert await trail(pool) == ["opened", "vanished", "found_again", "explained", "closed"]
    row = await pool.fetchrow("SELECT status, resolved_by, note FROM bank.cases")
    assert row is not None
    assert tuple(row) == ("closed", "carol", "by hand")

    assert await keep(pool, "rec_8", FOUND) is RunStatus.DIFFERS
    assert await pool.fetchval("SELECT count(*) FROM bank.cases WHERE status = 'open'") == 1
