"""Payments in flight, as the bank knows them: what each waits for, what was seen of it, and how many there may be.

Nothing here is money. A wait is the last that a worker saw and is overwritten; a sighting is part of a proof and stays.
"""

from dataclasses import dataclass
from datetime import timedelta

from engine.domain.errors import Refused
from engine.domain.ids import AccountId, NodeName, PaymentHash, PaymentId
from engine.domain.sending import Waiting
from engine.ledger.database import Connection, translated
from engine.ledger.payable import NEVER_AGAIN, unpayable

_PATIENCE = timedelta(minutes=15)
"""After so long an operator should look, whatever it waits for, unless the wait is the payee's."""
_DETAIL_LENGTH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """How many payments may be in flight at once."""

    per_account: int
    per_node: int


NO_CAPS = Caps(per_account=2**31, per_node=2**31)
"""As many as the money allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """What stands between an attempt and its node, while the money is held for it."""

    pubkey: str
    """Of the node that was adopted: none but this one may be told to send."""
    begun: bool
    """Whether the node has said that it has the attempt: then it may not be sent."""


async def find_fence(conn: Connection, payment_id: PaymentId, *, attempt: int) -> Fence | None:
    """None when this very attempt may not be sent any more: its money is no longer held."""
    with translated():
        row = await conn.fetchrow(
            """SELECT n.pubkey, EXISTS (SELECT FROM bank.begun_sends b WHERE b.payment_id = p.id) AS begun
                 FROM bank.payments p JOIN bank.nodes n ON n.name = p.node
                WHERE p.id = $1 AND p.attempt = $2 AND p.status = 'pending'""",
            payment_id,
            attempt,
        )
    return Fence(**row) if row else None


async def note_begun(conn: Connection, payment_id: PaymentId) -> None:
    """The node has said that it has the attempt. A repeat changes nothing."""
    with translated():
        await conn.execute("INSERT INTO bank.begun_sends(payment_id) VALUES ($1) ON CONFLICT DO NOTHING", payment_id)


async def note_wait(conn: Connection, payment_id: PaymentId, waiting: Waiting) -> None:
    """What the payment waits for now. A repeat changes nothing; another reason begins its time anew."""
    with translated():
        await conn.execute(
            """INSERT INTO bank.payment_waits AS w (payment_id, reason, detail, needs_operator)
               VALUES ($1, $2, $3, $4)
               ON CONFLICT (payment_id) DO UPDATE SET reason = $2, detail = $3,
                   since = CASE w.reason WHEN $2 THEN w.since ELSE clock_timestamp() END,
                   needs_operator = $4 OR ($5 AND w.reason = $2 AND w.since < clock_timestamp() - $6::interval)
                WHERE (w.reason, w.detail, w.needs_operator) IS DISTINCT FROM ($2, $3, $4)
                   OR ($5 AND w.since < clock_timestamp() - $6::interval AND NOT w.needs_operator)""",
            payment_id,
            waiting.reason,
            waiting.detail[:_DETAIL_LENGTH],
            waiting.needs_operator,
            waiting.impatient,
            _PATIENCE,
        )


async def has_wait(conn: Connection, payment_hash: PaymentHash) -> bool:
    """Whether the pending payment of this hash waits for something that was noted: its send follows it no longer."""
    with translated():
        found: bool = await conn.fetchval(
            """SELECT EXISTS (SELECT FROM bank.payments p JOIN bank.payment_waits w ON w.payment_id = p.id
                               WHERE p.payment_hash = $1 AND p.status = 'pending')""",
            payment_hash,
        )
    return found


async def add_sighting(
    conn: Connection, payment_id: PaymentId, *, height: int, time_lock: int, payment_index: int
) -> None:
    """It was in flight, and in no channel at this height. A second look at the same height adds nothing."""
    with translated():
        await conn.execute(
            """INSERT INTO bank.lost_sightings(payment_id, height, time_lock, payment_index)
               VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING""",
            payment_id,
            height,
            time_lock,
            payment_index,
        )


async def list_sightings(conn: Connection, payment_id: PaymentId, *, payment_index: int) -> list[int]:
    """The heights at which it was in no channel, in order."""
    with translated():
        rows = await conn.fetch(
            "SELECT height FROM bank.lost_sightings WHERE payment_id = $1 AND payment_index = $2 ORDER BY height",
            payment_id,
            payment_index,
        )
    return [row["height"] for row in rows]


async def take_turn_in_tx(conn: Connection, payment_hash: PaymentHash) -> None:
    """From here to the end of the transaction nobody else opens a payment of this hash over Lightning.

    Waits for others who open one, and for whoever ends the pending one. Taken after the idempotency key and before
    everything else, one in a transaction, and never by those who end a payment: so nobody waits in a circle. Again in
    the same transaction it changes nothing.
    """
    with translated():
        await conn.execute("SELECT bank.take_turn($1)", payment_hash)


async def read_earlier_attempts_in_tx(conn: Connection, payment_hash: PaymentHash, node: NodeName) -> tuple[int, int]:
    """(how many times this hash has been tried, the highest LND payment index that this node ended one with).

    Exact for whoever has the hash's turn (`take_turn_in_tx`); to anybody else it may be old already.

    Each node counts its payments for itself: the index of one says nothing about the news of another.

    Raises Refused for a hash that a node holds to be in flight for ever, or was given up without its word: it would
    never send it again, or could pay it twice.
    """
    with translated():
        (row,) = await conn.fetch(
            """SELECT coalesce(max(attempt), 0) AS attempts,
                      coalesce(max(payment_index) FILTER (WHERE node = $2), 0) AS known,
                      coalesce(bool_or(failure_code = ANY($3)), false) AS lost
                 FROM bank.payments WHERE payment_hash = $1 AND attempt IS NOT NULL""",
            payment_hash,
            node,
            NEVER_AGAIN,
        )
    if row["lost"]:
        raise unpayable()
    return row["attempts"], row["known"]


async def require_room_in_tx(conn: Connection, account_id: AccountId, node: NodeName, caps: Caps) -> None:
    """Raises Refused when this payment, whose row is written, is one too many for its account or its node.

    Exact per account, whose payments follow each other behind the lock on its balance. Payments of several accounts
    that are opened at the same moment may pass the node's cap by their number.
    """
    with translated():
        (counts,) = await conn.fetch(
            """SELECT (SELECT count(*) FROM bank.payments WHERE account_id = $1 AND status = 'pending') AS of_account,
                      (SELECT count(*) FROM bank.payments WHERE node = $2 AND status = 'pending') AS of_node""",
            account_id,
            node,
        )
    for cap, count, whose in (
        (caps.per_account, counts["of_account"], "this account"),
        (caps.per_node, counts["of_node"], "the bank's Lightning node"),
    ):
        if count > cap:
            detail = f"There may be {cap} payments of {whose} in flight at once; wait until some have ended."
            raise Refused(detail, code="too_many_in_flight", max_in_flight=cap)
