"""The status and the level of an account: locked, unlocked, closed, another level. No money moves here.

    active ⇄ locked     a locked account may not send; it still receives, and its payments in flight end as usual
    closed              final; only an account that is empty, with nothing promised from it or to it

A lock is set in the bank and in the books in one transaction. The books refuse under the lock of the balance row. So a
payment that is opened at the same time comes before the lock or is refused, and no payment waits for a row of the bank.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from engine.bank.invoice_row import cancel_all_in_tx
from engine.domain.errors import NotFound, Refused
from engine.domain.ids import AccountId
from engine.ledger.database import Connection, change_one, translated

Status = Literal["active", "locked", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change that was made: its action and its detail for the audit trail."""

    action: str
    detail: dict[str, Any] = field(default_factory=dict[str, Any])


async def change_in_tx(
    conn: Connection, account_id: AccountId, *, status: Status | None, level: int | None
) -> list[Change]:
    """Set the status and the level. Returns what was changed. A repeat changes nothing.

    Raises NotFound, and Refused: `account_closed` (closing is final), or `account_not_empty` with what is there.
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
        cancelled = await cancel_all_in_tx(conn, account_id)
        await _close_in_tx(conn, ledger_account_id)
        return Change(action="account.close", detail={"before": before, "cancelled_invoices": cancelled})
    with translated():
        await conn.execute("SELECT ledger.set_frozen($1, $2)", ledger_account_id, status == "locked")
    return Change(action="account.lock" if status == "locked" else "account.unlock", detail={"before": before})


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
