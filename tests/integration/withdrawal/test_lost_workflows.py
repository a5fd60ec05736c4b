"""What the janitor finds of withdrawals and payouts, and the workflows that it starts again for them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from activities import janitor_kind
from activities.janitor_kind import KINDS
from engine.bank.janitor import START, list_owed, read_facts
from engine.bank.withdrawal import payout
from engine.bank.withdrawal.member import mark_confirmed_in_tx
from engine.contracts.payout import PayoutRef
from engine.contracts.withdrawal import WithdrawalRequest
from engine.contracts.workflow_start import WorkflowStart
from engine.ledger.database import transaction
from tests.fixtures.postgres import Database
from tests.helpers.withdrawal.teller import Withdrawers, running_withdrawers

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Withdrawers]:
    async with running_withdrawers(ledger_db, tmp_path) as found:
        yield found


async def owed(bank: Withdrawers, kind: str) -> list[str]:
    async with bank.pool.acquire() as conn:
        found = await list_owed(conn, KINDS[kind].shelf, after=START, age=timedelta(0), limit=10)
    return [each.id for each in found]


async def started(bank: Withdrawers, kind: str, monkeypatch: pytest.MonkeyPatch) -> list[WorkflowStart[Any]]:
    """What the janitor would start for all that is owed."""
    starts: list[WorkflowStart[Any]] = []

    async def keep(_client: object, start: WorkflowStart[Any]) -> None:
        starts.append(start)

    monkeypatch.setattr(janitor_kind, "_begin", keep)
    ids = await owed(bank, kind)
    async with bank.pool.acquire() as conn:
        facts = await read_facts(conn, KINDS[kind].shelf, ids)
    for each in sorted(facts, key=lambda row: ids.index(row["id"])):
        await KINDS[kind].begin(None, bank.pool, each)  # type: ignore[arg-type]
    return starts


async def test_the_workflow_of_a_withdrawal_begins_again_with_its_request(
    bank: Withdrawers, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await bank.user(10**9), await bank.user(50_000_999)
    asked = bank.request(alice, 100_000, memo="rent", external_id="e", unlinked=True, wait_for_unlinked=True)
    await bank.withdrawals.open_withdrawal(asked)
    everything = bank.request(bob, None)
    await bank.withdrawals.open_withdrawal(everything)
    cancelled = await bank.opened(alice, 1_000)
    await bank.cancel(cancelled)
    starts = await started(bank, "withdrawals", monkeypatch)
    assert [each.id for each in starts] == [
        (await bank.row(each.withdrawal_id)).workflow_id for each in (asked, everything)
    ]
    for start, first in zip(starts, (asked, everything), strict=True):
        again = start.argument
        assert isinstance(again, WithdrawalRequest)
        same = ("withdrawal_id", "idempotency_key", "body_hash", "hot_wallet", "script", "amount_sat", "memo")
        assert [getattr(again, name) for name in same] == [getattr(first, name) for name in same]
        found = await bank.withdrawals.open_withdrawal(again)
        assert found.state is not None
        assert found.state.status == "queued"


async def test_payouts_and_their_members_are_owed_until_they_are_final(
    bank: Withdrawers, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await bank.user(10**9)
    made = await bank.opened(user, 100_000)
    po = await bank.seal([made])
    (start,) = await started(bank, "payouts", monkeypatch)
    assert start.argument == PayoutRef(payout_id=po, workflow_id=start.id)
    await bank.sign(po)
    await bank.send(po)
    assert (await owed(bank, "withdrawals"), await owed(bank, "payouts")) == ([made], [po])
    async with transaction(bank.pool) as conn:
        await payout.mark_confirmed_in_tx(conn, po, version=1, block_height=100)
        await mark_confirmed_in_tx(conn, po)
    assert (await owed(bank, "withdrawals"), await owed(bank, "payouts")) == ([], [po])
    async with transaction(bank.pool) as conn:
        await payout.mark_final_in_tx(conn, po)
    assert (await owed(bank, "withdrawals"), await owed(bank, "payouts")) == ([], [])
