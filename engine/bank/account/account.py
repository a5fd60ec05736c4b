"""Accounts and their wallets: who owns money, and who may not send or receive. No money moves here.

An account is opened together with its wallet and the wallet's account in the books, in the caller's transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from engine.domain.errors import Conflict, Refused
from engine.domain.ids import AccountId, WalletId, new_id
from engine.domain.username import check_username
from engine.ledger.account import open_account_in_tx
from engine.ledger.chart import user
from engine.ledger.database import Connection, Reader, translated

_ACCOUNT = "id, username, external_id, level, status, created_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of the bank."""

    id: AccountId
    username: str | None
    external_id: str | None
    level: int
    status: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """Holds an account's money."""

    id: WalletId
    account_id: AccountId
    currency: str
    ledger_account_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """An account before it is opened. `username` must be valid and free."""

    id: AccountId
    username: str | None = None
    external_id: str | None = None
    level: int = 0


async def open_bank_account_in_tx(conn: Connection, new: NewAccount) -> None:
    """Open the account and its bitcoin wallet, with the wallet's place in the books.

    Raises Conflict (`username_taken`, `external_id_taken`) and Invalid; the caller's transaction is then spent.
    """
    if new.username is not None:
        check_username(new.username)
    with translated():
        try:
            await conn.execute(
                "INSERT INTO bank.accounts(id, username, external_id, level) VALUES ($1, $2, $3, $4)",
                new.id,
                new.username,
                new.external_id,
                new.level,
            )
        except asyncpg.UniqueViolationError as error:
            raise _taken(new, error) from error
    wallet_id = WalletId(new_id("wal"))
    ledger_account_id = await open_account_in_tx(conn, user(wallet_id), "liability", floor=0)
    with translated():
        await conn.execute(
            "INSERT INTO bank.wallets(id, account_id, currency, ledger_account_id) VALUES ($1, $2, 'BTC', $3)",
            wallet_id,
            new.id,
            ledger_account_id,
        )


def _taken(new: NewAccount, error: asyncpg.UniqueViolationError) -> Exception:
    match error.constraint_name:
        case "username_whatever_the_case":
            return Conflict(
                f"The username @{new.username} is taken, whatever the case.",
                code="username_taken",
                username=new.username,
            )
        case "accounts_external_id_key":
            return Conflict(
                "Another account has this external_id.", code="external_id_taken", external_id=new.external_id
            )
        case _:
            return error


async def find_account(conn: Reader, account_id: AccountId) -> Account | None:
    """The account, whatever its status."""
    with translated():
        row = await conn.fetchrow(f"SELECT {_ACCOUNT} FROM bank.accounts WHERE id = $1", account_id)  # noqa: S608 - constant
    return None if row is None else Account(**row)


async def list_wallets(conn: Reader, account_id: AccountId) -> list[Wallet]:
    """All wallets of the account, the oldest first."""
    with translated():
        rows = await conn.fetch(
            """SELECT id, account_id, currency, ledger_account_id FROM bank.wallets
                WHERE account_id = $1 ORDER BY created_at, id""",
            account_id,
        )
    return [Wallet(**row) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Payee:
    """Where money for a wallet goes, and whether it still may."""

    ledger_account_id: int
    status: str

    def require_open(self) -> None:
        """Raises Refused (`payee_closed`) for a closed account. A locked account still receives."""
        if self.status == "closed":
            raise payee_closed()


async def find_payees(conn: Reader, wallet_ids: Sequence[WalletId]) -> dict[WalletId, Payee]:
    """The payees of these wallets; a wallet that does not exist is left out."""
    with translated():
        rows = await conn.fetch(
            """SELECT w.id, w.ledger_account_id, a.status FROM bank.wallets w
                 JOIN bank.accounts a ON a.id = w.account_id WHERE w.id = ANY($1)""",
            wallet_ids,
        )
    return {
        WalletId(row["id"]): Payee(ledger_account_id=row["ledger_account_id"], status=row["status"]) for row in rows
    }


def may_not_send(status: str) -> Refused:
    """The payer's account is locked or closed."""
    return Refused("This account may not send.", code="account_locked", account_status=status)


def payee_closed() -> Refused:
    """A locked account still receives; a closed one does not."""
    return Refused("The payee's account is closed.", code="payee_closed")
