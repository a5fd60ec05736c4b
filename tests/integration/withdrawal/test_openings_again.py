"""An opening that is cut off, and one that is repeated when all has long ended."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import activities.withdrawal.hold as holding
from engine.bank.rulebook import read_current, set_in_tx
from engine.domain.errors import Unavailable
from engine.ledger.book import Posting
from engine.ledger.database import Connection, transaction
from engine.ledger.store import post_new_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.withdrawal.teller import Withdrawers, running_withdrawers

pytestmark = pytest.mark.integration

FUNDS_MSAT, HELD_MSAT = 500_000_000, 55_000_000


@pytest_asyncio.fixture
async def bank(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Withdrawers]:
    async with running_withdrawers(ledger_db, tmp_path) as found:
        yield found


async def test_a_power_cut_before_the_commit_leaves_no_key_no_row_and_no_hold(
    bank: Withdrawers, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await bank.user(FUNDS_MSAT)
    asked = bank.request(alice, 50_000)

    async def fails(conn: Connection, posting: Posting) -> None:
        await post_new_in_tx(conn, posting)
        raise Unavailable("the power has failed")

    monkeypatch.setattr(holding, "post_new_in_tx", fails)
    with pytest.raises(Unavailable):
        await bank.withdrawals.open_withdrawal(asked)
    assert await alice.balance() == (FUNDS_MSAT, 0)
    monkeypatch.undo()
    assert (await bank.withdrawals.open_withdrawal(asked)).state is not None
    assert await alice.balance() == (FUNDS_MSAT, HELD_MSAT)


async def test_an_opening_that_is_repeated_after_the_end_tells_the_end(bank: Withdrawers) -> None:
    """The rules of today do not matter to what was asked yesterday."""
    alice = await bank.user(FUNDS_MSAT)
    asked = bank.request(alice, 50_000)
    await bank.withdrawals.open_withdrawal(asked)
    await bank.cancel(asked.withdrawal_id)
    async with transaction(bank.pool) as conn:
        now = await read_current(conn, "withdrawals")
        content = {**now.content, "minimum_sat": 60_000}
        await set_in_tx(conn, "withdrawals", content, version=now.version + 1, note="test", set_by="test")
    again = await bank.withdrawals.open_withdrawal(asked)
    assert again.state is not None
    assert again.state.status == "cancelled"
    assert await bank.outcome(alice, 50_000) == "amount_too_small"
    assert await alice.balance() == (FUNDS_MSAT, 0)
