"""Which lane carries a payment that no worker has opened yet: written when its caller is told to come back later."""

from datetime import datetime

from engine.domain.ids import PaymentId
from engine.ledger.database import Connection, translated


async def note_boarded(conn: Connection, payment_id: PaymentId, workflow_id: str, at: datetime) -> None:
    """Remember the lane. A repeat over another lane leaves the first: whichever comes first opens the payment."""
    with translated():
        await conn.execute(
            "INSERT INTO bank.boarded_payments(payment_id, workflow_id, created_at) VALUES ($1, $2, $3) "
            "ON CONFLICT DO NOTHING",
            payment_id,
            workflow_id,
            at,
        )


async def find_boarded(conn: Connection, payment_id: PaymentId) -> tuple[str, datetime] | None:
    """The lane's workflow and since when, if the payment went by one and was not opened at once."""
    with translated():
        row = await conn.fetchrow(
            "SELECT workflow_id, created_at FROM bank.boarded_payments WHERE payment_id = $1", payment_id
        )
    return None if row is None else (row["workflow_id"], row["created_at"])
