"""Accounts as operators find them, each with its wallet, and the API keys of one account."""

from dataclasses import dataclass
from datetime import datetime

from engine.bank.account.account_status import Status
from engine.domain.ids import AccountId
from engine.domain.page import Position, Slice
from engine.ledger.database import Connection, translated
from engine.views.page import Listing

_COLUMNS = """a.id, a.username, a.external_id, a.level, a.status, a.created_at, w.id AS wallet_id, w.currency,
    -b.settled AS balance_msat, b.held_dr AS held_msat, b.held_cr AS incoming_msat"""
_FROM = """bank.accounts a JOIN bank.wallets w ON w.account_id = a.id
    JOIN ledger.balances b ON b.account_id = w.ledger_account_id"""
_ACCOUNTS = Listing(
    columns=_COLUMNS,
    source=_FROM,
    condition="""($1::text IS NULL OR starts_with(lower(a.username), lower($1)) OR starts_with(a.external_id, $1)
                  OR starts_with(a.id, $1))
             AND ($2::text IS NULL OR a.status = $2) AND ($3::int IS NULL OR a.level = $3)""",
    time="a.created_at",
    key="a.id",
)
API_KEYS = Listing(
    columns="id, name, scopes, created_at, expires_at, revoked_at, spend_limit_sat, made_by",
    source="bank.api_keys",
    condition="account_id = $1",
)
"""The API keys of an account, without their secrets; revoked ones too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """An account with its wallet, as it is now. `balance_msat` is settled and includes what is held."""

    id: AccountId
    username: str | None
    external_id: str | None
    level: int
    status: Status
    created_at: datetime
    wallet_id: str
    currency: str
    balance_msat: int
    held_msat: int
    incoming_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFilter:
    """Which accounts; all conditions count together."""

    text: str | None = None
    """How the username (whatever the case), the external id or the id begins."""
    status: Status | None = None
    level: int | None = None


async def find_account_row(conn: Connection, account_id: AccountId) -> AccountRow | None:
    """The account, whatever its status."""
    with translated():
        row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM {_FROM} WHERE a.id = $1", account_id)  # noqa: S608 - constant
    return None if row is None else AccountRow(**row)


async def search_accounts(conn: Connection, wanted: AccountFilter, after: Position, limit: int) -> Slice[AccountRow]:
    """One page, newest first."""
    found = await _ACCOUNTS.read(conn, after, limit, wanted.text, wanted.status, wanted.level)
    return found.map(lambda row: AccountRow(**row))
