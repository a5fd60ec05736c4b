"""Paying a node without an invoice (keysend): we choose the preimage, and the payee learns it with the payment.

The preimage is drawn in the transaction that holds the money, before anything is sent, and never changes. A retry sends
the same one, so the node accepts it once. Only this table has it, and after the payment the payee. In a workflow's
history, anybody who may read the history could claim the money on its way.
"""

import hashlib
import secrets

from engine.domain.errors import InvariantBroken
from engine.domain.ids import PaymentHash, PaymentId
from engine.ledger.database import Connection, translated


async def draw_in_tx(conn: Connection, payment_id: PaymentId) -> PaymentHash:
    """Draw a preimage of 256 random bits and store it for this payment. Returns its hash. Once per payment."""
    preimage = secrets.token_bytes(32)
    with translated():
        await conn.execute(
            "INSERT INTO bank.keysends(payment_id, preimage) VALUES ($1, $2)", payment_id, preimage.hex()
        )
    return PaymentHash(hashlib.sha256(preimage).hexdigest())


async def get_preimage(conn: Connection, payment_id: PaymentId) -> bytes:
    """The preimage that `draw_in_tx` has stored."""
    with translated():
        preimage: str | None = await conn.fetchval(
            "SELECT preimage FROM bank.keysends WHERE payment_id = $1", payment_id
        )
    if preimage is None:
        raise InvariantBroken(f"{payment_id} is a keysend without a preimage")
    return bytes.fromhex(preimage)
