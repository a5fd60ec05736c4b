"""Paying a node without an invoice: we choose the preimage, and the payee learns it with the payment.

It is drawn in the transaction that holds the money, before anything is sent, and never changes: a retry sends the same,
so the node takes it once. It is known to this table alone, and after the payment to the payee: in a workflow's history
anybody who may look at it could claim the money on its way.
"""

import hashlib
import secrets

from engine.domain.errors import InvariantBroken
from engine.domain.ids import PaymentHash, PaymentId
from engine.ledger.database import Connection, translated


async def draw_in_tx(conn: Connection, payment_id: PaymentId) -> PaymentHash:
    """The hash of a preimage of 256 random bits, which is kept for this payment. Once per payment."""
    preimage = secrets.token_bytes(32)
    with translated():
        await conn.execute(
            "INSERT INTO bank.keysends(payment_id, preimage) VALUES ($1, $2)", payment_id, preimage.hex()
        )
    return PaymentHash(hashlib.sha256(preimage).hexdigest())


async def get_preimage(conn: Connection, payment_id: PaymentId) -> bytes:
    """What `draw_in_tx` has kept."""
    with translated():
        preimage: str | None = await conn.fetchval(
            "SELECT preimage FROM bank.keysends WHERE payment_id = $1", payment_id
        )
    if preimage is None:
        raise InvariantBroken(f"{payment_id} is a keysend without a preimage")
    return bytes.fromhex(preimage)
