"""The uses of a withdraw link: each claim takes one, and a claim whose payment fails returns it.

    claimed    the use is taken in the transaction that holds or moves the money (`activities/payment.py`)
    failed     the use is returned in the transaction that releases the money

A use is taken under the lock of the link's row, so concurrent claims take exactly as many uses as there are; the
constraint on `uses_left` enforces the same. The link's row is always locked before any balance.
"""

from dataclasses import replace
from datetime import UTC, datetime

from engine.bank.withdraw_link.link import COLUMNS, WithdrawLink, why_closed
from engine.domain.errors import InvariantBroken, Refused
from engine.domain.ids import PaymentId, WithdrawLinkId
from engine.domain.money import Msat
from engine.ledger.database import Connection, change_one, translated


async def take_use_in_tx(conn: Connection, link_id: WithdrawLinkId, payment_id: PaymentId, amount_msat: Msat) -> None:
    """Take one use for this payment. Raises Refused (`withdraw_link_closed`) when the link is not open."""
    with translated():
        row = await conn.fetchrow(
            f"SELECT {COLUMNS} FROM bank.withdraw_links WHERE id = $1 FOR UPDATE",  # noqa: S608 - constant
            link_id,
        )
        # The statement above read the key before it waited for the lock: read the key again.
        key_lives = row and await conn.fetchval(
            """SELECT revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
                 FROM bank.api_keys WHERE id = $1""",
            row["key_id"],
        )
    if row is None or row["amount_msat"] != amount_msat:
        raise InvariantBroken(f"{payment_id} claims {amount_msat} msat of a link that does not say so")
    status = replace(WithdrawLink(**row), key_lives=bool(key_lives)).status(datetime.now(UTC))
    if status != "open":
        raise Refused(why_closed(status), code="withdraw_link_closed", link_status=status)
    await change_one(conn, "UPDATE bank.withdraw_links SET uses_left = uses_left - 1 WHERE id = $1", link_id)
    with translated():
        await conn.execute("INSERT INTO bank.withdraw_claims(payment_id, link_id) VALUES ($1, $2)", payment_id, link_id)


async def give_use_back_in_tx(conn: Connection, payment_id: PaymentId) -> None:
    """Return the use of a failed payment, if the payment is a claim. Called once, where the payment is released."""
    with translated():
        is_claim: bool = await conn.fetchval(
            "SELECT EXISTS (SELECT FROM bank.withdraw_claims WHERE payment_id = $1)", payment_id
        )
    if is_claim:
        await change_one(
            conn,
            """WITH returned AS (
                   UPDATE bank.withdraw_claims SET returned_at = clock_timestamp()
                    WHERE payment_id = $1 AND returned_at IS NULL RETURNING link_id)
               UPDATE bank.withdraw_links l SET uses_left = uses_left + 1 FROM returned r WHERE l.id = r.link_id""",
            payment_id,
        )
