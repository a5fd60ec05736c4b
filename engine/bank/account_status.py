"""What becomes of an account: locked, unlocked, closed, another level. No money moves here.

    active ⇄ locked     it may not send; it still receives, and what is on its way ends as it would have
    closed              for ever; only an account with nothing on it, and nothing promised from it or to it

A lock is set in the bank and in the books in one transaction. The books refuse under the lock of the balance row, so a
payment that is opened at the same time is before it or is refused, and no payment waits for a row of the bank's.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from engine.domain.errors import NotFound, Refused
from engine.domain.ids import AccountId
from engine.ledger.database import Connection, Pool, change_one, translated

Status = Literal["active", "locked", "closed"]
Reader: TypeAlias = "Connection | Pool"

_COLUMNS = """a.id, a.username, a.external_id, a.level, a.status, a.created_at, w.id AS wallet_id, w.currency,
    -b.settled AS balance_msat, b.held_dr AS held_msat, b.held_cr AS incoming_msat"""
_FROM = """bank.accounts a JOIN bank.wallets w ON w.account_id = a.id
    JOIN ledger.balances b ON b.account_id = w.ledger_account_id"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """An account with its wallet, as it is now. `balance_msat` is settled, what is held of it included."""

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
class Change:
    """What was really changed: an action of the audit trail, and what to say there."""

    action: str
    detail: dict[str, Any] = field(default_factory=dict[str, Any])


async def find_row(conn: Reader, account_id: AccountId) -> AccountRow | None:
    """The account, whatever its status."""
    with translated():
        row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM {_FROM} WHERE a.id = $1", account_id)  # noqa: S608 - constant
    return None if row is None else AccountRow(**row)


async def search(
    conn: Reader,
    *,
    text: str | None,
    status: Status | None,
    level: int | None,
    before: tuple[datetime | None, str | None],
    limit: int,
) -> list[AccountRow]:
    """Newest first. `text` begins the user name (whatever the case), the external id or the id."""
    with translated():
        rows = await conn.fetch(
            f"""SELECT {_COLUMNS} FROM {_FROM}
                 WHERE ($1::text IS NULL OR starts_with(lower(a.username), lower($1)) OR starts_with(a.external_id, $1)
                        OR starts_with(a.id, $1))
                   AND ($2::text IS NULL OR a.status = $2) AND ($3::int IS NULL OR a.level = $3)
                   AND ($4::timestamptz IS NULL OR (a.created_at, a.id) < ($4, $5))
                 ORDER BY a.created_at DESC, a.id DESC LIMIT $6""",  # noqa: S608 - constant
            text,
            status,
            level,
            *before,
            limit,
        )
    return [AccountRow(**row) for row in rows]


async def change_in_tx(
    conn: Connection, account_id: AccountId, *, status: Status | None, level: int | None
) -> list[Change]:
    """Make it so, and tell what was changed by it; a repeat changes nothing.

    Raises NotFound, and Refused: `account_closed` (that is final), `account_not_empty` with what is there.
    """
    with translated():
        row = await conn.fetchrow(
            """SELECT a.status, a.level, w.ledger_account_id FROM bank.accounts a
                 JOIN bank.wallets w ON w.account_id = a.id WHERE a.id = $1 FOR NO KEY UPDATE OF a""",
            account_id,
        )
    if row is None:
        raise NotFound("There is no such account.")
    new_level = level is not None and level != row["level"]
    new_status = status is not None and status != row["status"]
    if row["status"] == "closed" and (new_level or new_status):
        raise Refused("This account is closed; that is final.", code="account_closed")
    changes: list[Change] = []
    if level is not None and new_level:
        changes.append(await _set_level_in_tx(conn, account_id, row["level"], level))
    if status is not None and new_status:
        changes.append(await _set_status_in_tx(conn, account_id, row["ledger_account_id"], row["status"], status))
    return changes


async def _set_level_in_tx(conn: Connection, account_id: AccountId, before: int, level: int) -> Change:
    await change_one(conn, "UPDATE bank.accounts SET level = $2 WHERE id = $1", account_id, level)
    return Change(action="account.set_level", detail={"level": level, "before": before})


async def _set_status_in_tx(
    conn: Connection, account_id: AccountId, ledger_account_id: int, before: Status, status: Status
) -> Change:
    await change_one(conn, "UPDATE bank.accounts SET status = $2 WHERE id = $1", account_id, status)
    if status == "closed":
        cancelled = await _cancel_invoices_in_tx(conn, account_id)
        await _close_in_tx(conn, ledger_account_id)
        return Change(action="account.close", detail={"before": before, "cancelled_invoices": cancelled})
    with translated():
        await conn.execute("SELECT ledger.set_frozen($1, $2)", ledger_account_id, status == "locked")
    return Change(action="account.lock" if status == "locked" else "account.unlock", detail={"before": before})


async def _cancel_invoices_in_tx(conn: Connection, account_id: AccountId) -> int:
    """Cancel what the account still asks for, with notes that the nodes must stop offering it. Gives how many.

    Invoices are locked before any balance, always: what is being paid at this moment is waited for, and stays paid.
    """
    with translated():
        count: int = await conn.fetchval(
            """WITH cancelled AS (
                   UPDATE bank.invoices SET status = 'cancelled' WHERE account_id = $1 AND status = 'open'
                   RETURNING payment_hash, node
               ), noted AS (
                   INSERT INTO bank.node_cancellations(payment_hash, node) SELECT payment_hash, node FROM cancelled
                   ON CONFLICT (payment_hash) DO NOTHING
               ) SELECT count(*) FROM cancelled""",
            account_id,
        )
    return count


async def _close_in_tx(conn: Connection, ledger_account_id: int) -> None:
    try:
        with translated():
            await conn.execute("SELECT ledger.close_account($1)", ledger_account_id)
    except Refused as refused:
        amounts = {f"{name}_msat": refused.fields.get(name) for name in ("balance", "held", "incoming")}
        raise Refused(
            "This account is not empty: it can be closed when nothing is on it, nor promised from it or to it.",
            code="account_not_empty",
            **amounts,
        ) from refused
