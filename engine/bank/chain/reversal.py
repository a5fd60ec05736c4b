"""What a reversal needs to know: what was booked, and how much of it its owner still has."""

from dataclasses import dataclass

from engine.domain.ids import DepositId
from engine.domain.money import Msat
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose deposit it is."""

    ledger_account_id: int
    is_closed: bool


async def find_owner(conn: Connection, deposit: DepositId) -> Owner | None:
    """The owner of a deposit. None while it is nobody's."""
    with translated():
        row = await conn.fetchrow(
            """SELECT w.ledger_account_id, a.status = 'closed' AS is_closed
                 FROM bank.deposits d JOIN bank.wallets w ON w.id = d.wallet_id
                 JOIN bank.accounts a ON a.id = w.account_id
                WHERE d.id = $1""",
            deposit,
        )
    return None if row is None else Owner(**row)


async def read_available_msat(conn: Connection, ledger_account_id: int) -> Msat:
    """What can be taken back from this account now. Another payment may take it in the next moment."""
    with translated():
        available: int = await conn.fetchval(
            "SELECT available FROM ledger.balances WHERE account_id = $1", ledger_account_id
        )
    return Msat(max(0, available))


async def read_settled(conn: Connection, ref: str) -> dict[int, int]:
    """What the transfer with this reference has moved, by account: debit +, in msat. Empty when there is none."""
    with translated():
        rows = await conn.fetch(
            """SELECT e.account_id, e.amount AS amount_msat FROM ledger.transfers t
                 JOIN ledger.entries e ON e.transfer_id = t.id WHERE t.external_ref = $1 AND e.layer = 0""",
            ref,
        )
    return {row["account_id"]: row["amount_msat"] for row in rows}
