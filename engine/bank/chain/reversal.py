"""What a reversal needs to know: what was booked, and how much of it its owner still has."""

from engine.domain.money import Msat
from engine.ledger.book import Leg
from engine.ledger.database import Connection, translated


async def read_available_msat(conn: Connection, ledger_account_id: int) -> Msat:
    """What can be taken back from this account now. Another payment may take it in the next moment."""
    with translated():
        available: int = await conn.fetchval(
            "SELECT available FROM ledger.balances WHERE account_id = $1", ledger_account_id
        )
    return Msat(max(0, available))


async def read_legs(conn: Connection, ref: str) -> list[Leg]:
    """What the transfer with this reference has moved. Empty when there is none."""
    with translated():
        rows = await conn.fetch(
            """SELECT e.account_id, e.amount AS amount_msat FROM ledger.transfers t
                 JOIN ledger.entries e ON e.transfer_id = t.id WHERE t.external_ref = $1 AND e.layer = 0""",
            ref,
        )
    return [Leg(**row) for row in rows]
