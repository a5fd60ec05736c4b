"""A wallet's statement: opening balance, every settled movement with the balance after it, closing balance.

The pages of one statement share the frame of the first one. A position on it is the time at which the statement ends,
and three versions of the account: opening, last movement given, closing.
"""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime

from api.service.auth import Caller
from api.service.resources import Resources
from api.service.wallet.wallet import own_wallet
from engine.bank.account.account import Wallet
from engine.domain.errors import Invalid
from engine.domain.page import START, Position, Slice
from engine.views import statement

_VERSIONS = re.compile(r"(\d{1,18})\.(\d{1,18})\.(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class StatementPage:
    """One page of a statement; the oldest movement comes first."""

    wallet: Wallet
    period: statement.Period
    movements: Slice[statement.Movement]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A position, read: the frame of the first page, and the version of the last movement that was given."""

    ends_at: datetime
    frame: tuple[int, int]
    after: int


async def give_statement(
    resources: Resources,
    caller: Caller,
    wallet_id: str,
    begins_at: datetime | None,
    ends_at: datetime | None,
    *,
    after: Position = START,
    limit: int,
) -> StatementPage:
    """One page of the statement for [begins_at, ends_at). Raises NotFound, and Invalid for a foreign position."""
    caller.require("read")
    seen = _seen(after)
    async with resources.reading() as conn:
        wallet = await own_wallet(conn, caller.account_id, wallet_id)
        period = await statement.read_period(
            conn,
            wallet.ledger_account_id,
            begins_at,
            seen.ends_at if seen else ends_at,
            seen.frame if seen else None,
        )
        found = await statement.list_movements(
            conn,
            wallet.ledger_account_id,
            after_version=seen.after if seen else period.opening_version,
            closing_version=period.closing_version,
            limit=limit + 1,
        )
    page, following = found[:limit], None
    if len(found) > limit:
        versions = f"{period.opening_version}.{page[-1].version}.{period.closing_version}"
        following = (period.ends_at, versions)
    return StatementPage(wallet, period, Slice(page, following))


async def export_statement(
    resources: Resources, caller: Caller, wallet_id: str, begins_at: datetime | None, ends_at: datetime | None
) -> AsyncGenerator[str, None]:
    """The whole statement as CSV, in pieces of text. Raises NotFound before the first piece."""
    caller.require("read")
    async with resources.reading() as conn:
        wallet = await own_wallet(conn, caller.account_id, wallet_id)
        period = await statement.read_period(conn, wallet.ledger_account_id, begins_at, ends_at)
    return statement.csv_statement(resources.pool, wallet.ledger_account_id, period)


def _seen(after: Position) -> _Seen | None:
    """Raises Invalid for a position that is not one of a statement."""
    if after == START:
        return None
    ends_at, text = after
    versions = _VERSIONS.fullmatch(text or "")
    if ends_at is None or versions is None:
        raise _foreign()
    opening, last, closing = (int(version) for version in versions.groups())
    if not opening <= last <= closing:
        raise _foreign()
    return _Seen(ends_at, (opening, closing), last)


def _foreign() -> Invalid:
    return Invalid("'after' is not a cursor of this statement.", field="after")
