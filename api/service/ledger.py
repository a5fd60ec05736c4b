"""The books for operators: the trial balance of any moment, one account, one transfer's history, the whole book.

Amounts are signed, debit +: a user's money is negative here, and every column sums to zero.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Literal

from pydantic import TypeAdapter

from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from engine.bank.audit import record_in_tx
from engine.domain.errors import Invalid, Unavailable, no_such
from engine.ledger.database import transaction
from engine.views import balance, export, transfer_history
from engine.views.balance import TrialBalanceRow

_SLOTS = asyncio.Semaphore(4)
"""How many exports run at the same time in this process."""
_MOST_ACCOUNTS = 10_000
"""The most rows of a trial balance."""
_TIME = TypeAdapter(datetime)


async def give_trial_balance(
    resources: Resources, caller: Caller, at: datetime | None = None, *, users_together: bool = False
) -> list[TrialBalanceRow]:
    """Every account's sums, now or at a moment. Raises Invalid where there are too many to list."""
    caller.require_role(*MAY["read the books"])
    async with resources.reading() as conn:
        if not users_together and await balance.has_more_accounts(conn, _MOST_ACCOUNTS):
            raise Invalid(
                f"There are more than {_MOST_ACCOUNTS:,} accounts: use users=together, or the export.",
                field="users",
            )
        return await balance.list_trial_balance(conn, at, users_together=users_together)


async def give_account_balance(
    resources: Resources, caller: Caller, code: str, at: datetime | None = None
) -> TrialBalanceRow:
    """One account's row of the trial balance. Raises NotFound."""
    caller.require_role(*MAY["read the books"])
    async with resources.reading() as conn:
        row = await balance.find_balance_then(conn, code, at)
    if row is None:
        raise no_such("account")
    return row


async def tell_transfer(resources: Resources, caller: Caller, ref: str) -> transfer_history.Story:
    """The transfer with what it resolved and what resolved it. Raises NotFound."""
    caller.require_role(*MAY["read a transfer"])
    async with resources.reading() as conn:
        found = await transfer_history.find_story(conn, ref)
    if found is None:
        raise no_such("transfer")
    return found


async def export_ledger(
    resources: Resources,
    caller: Caller,
    form: Literal["csv", "beancount"],
    begins_at: datetime | None,
    ends_at: datetime | None,
) -> AsyncGenerator[str, None]:
    """All entries of [begins_at, ends_at) in one snapshot, in pieces of text. The export stands in the audit trail.

    The first piece raises Unavailable while the maximum number of exports is running.
    """
    caller.require_role(*MAY["read the books"])
    period = {"from": begins_at, "to": ends_at}
    asked = {name: _TIME.dump_python(at, mode="json") for name, at in period.items() if at is not None}
    async with transaction(resources.pool) as conn:
        await record_in_tx(conn, caller.act("ledger.export", format=form, **asked))
    return _bounded(export.export_book(resources.pool, form, begins_at, ends_at))


async def _bounded(pieces: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """Each export holds a connection for as long as its reader takes, and payments need connections too."""
    async with aclosing(pieces):
        if _SLOTS.locked():
            raise Unavailable("as many exports are running as may", code="temporarily_unavailable")
        async with _SLOTS:
            async for piece in pieces:
                yield piece
