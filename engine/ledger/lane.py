"""Which lane carries a payment that no worker has opened yet: written when its caller is told to come back later."""

from engine.domain.ids import PaymentId
from engine.ledger.database import Connection, translated


async def note_boarded(conn: Connection, payment_id: PaymentId, workflow_id: str) -> None:
    """Remember the lane. A repeat over another lane leaves the first: whichever comes first opens the payment."""
    with translated():
        await conn.execute(
            "INSERT INTO bank.boarded_payments(payment_id, workflow_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            payment_id,
            workflow_id,
        )


async def find_boarded(conn: Connection, payment_id: PaymentId) -> str | None:
    """The lane's workflow, if the payment went by one and was not opened at once."""
    with translated():
        workflow_id: str | None = await conn.fetchval(
            "SELECT workflow_id FROM bank.boarded_payments WHERE payment_id = $1", payment_id
        )
    return workflow_id
