"""Payments in flight: what each waits for, and what was seen of it.

No money moves here. A wait is what a worker saw last, and is overwritten. A sighting is part of a proof, and stays.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.bank.internal_payee import is_own_invoice
from engine.bank.node.node_choice import choose_sender
from engine.bank.payable import NEVER_AGAIN, unpayable
from engine.domain.errors import InvariantBroken
from engine.domain.ids import NodeName, PaymentHash, PaymentId
from engine.domain.money import Msat
from engine.domain.sending import UNDER_WAY, Waiting
from engine.ledger.database import Connection, translated

_PATIENCE = timedelta(minutes=15)
"""After this time an operator should look, whatever the payment waits for, unless it waits for the payee."""
_DETAIL_LENGTH = 500
_WORDS_LENGTH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """What stands between an attempt and its node, while the money is held for it."""

    pubkey: str
    """The public key of the adopted node. Only this node may be told to send."""
    begun: bool
    """Whether the node has confirmed that it has the attempt. Then it may not be sent."""
    refusals: int = 0
    """How often in a row the node has refused to begin it, with the same text."""
    refused_for_s: int = 0
    """How many whole seconds ago the last refusal came."""


async def find_fence(conn: Connection, payment_id: PaymentId, *, attempt: int) -> Fence | None:
    """The fence of this attempt. None when it may not be sent any more: its money is no longer held."""
    with translated():
        row = await conn.fetchrow(
            """SELECT n.pubkey, EXISTS (SELECT FROM bank.begun_sends b WHERE b.payment_id = p.id) AS begun,
                      coalesce(r.times, 0) AS refusals,
                      coalesce(floor(extract(epoch FROM clock_timestamp() - r.last_at)), 0)::bigint AS refused_for_s
                 FROM bank.payments p JOIN bank.nodes n ON n.name = p.node
                 LEFT JOIN bank.refused_sends r ON r.payment_id = p.id
                WHERE p.id = $1 AND p.attempt = $2 AND p.status = 'pending'""",
            payment_id,
            attempt,
        )
    return Fence(**row) if row else None


async def note_begun(conn: Connection, payment_id: PaymentId) -> None:
    """Note that the node has confirmed the attempt. A repeat changes nothing."""
    with translated():
        await conn.execute("INSERT INTO bank.begun_sends(payment_id) VALUES ($1) ON CONFLICT DO NOTHING", payment_id)


async def note_refusal(conn: Connection, payment_id: PaymentId, words: str) -> None:
    """Count that the node refused to begin the payment and then did not know it. Another text restarts the count."""
    with translated():
        await conn.execute(
            """INSERT INTO bank.refused_sends AS r (payment_id, words, times, last_at)
               VALUES ($1, $2, 1, clock_timestamp())
               ON CONFLICT (payment_id) DO UPDATE SET words = $2, last_at = clock_timestamp(),
                   times = CASE r.words WHEN $2 THEN r.times + 1 ELSE 1 END""",
            payment_id,
            _without_digits(words)[:_WORDS_LENGTH],
        )


def _without_digits(words: str) -> str:
    """The text without what changes from one answer to the next: numbers, hashes, times. Postgres takes no NUL."""
    return re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "#", words.lower()).replace("\0", "")


async def find_reader(
    conn: Connection, payment_hash: PaymentHash, total_msat: Msat, *, max_in_flight: int
) -> NodeName | None:
    """The node that a payment of this hash would most likely be pinned to now; None for our own invoice or no node."""
    if await is_own_invoice(conn, payment_hash):
        return None
    return await choose_sender(conn, total_msat, max_in_flight=max_in_flight)


async def note_wait(conn: Connection, payment_id: PaymentId, waiting: Waiting) -> datetime:
    """Note what the payment waits for now. Returns since when it waits. A repeat changes nothing.

    Another reason restarts the time. The exception is a payment that is stalled: however often its reasons change, its
    time runs until its node has it. After fifteen minutes of an impatient wait the payment needs an operator.
    """
    with translated():
        since: datetime | None = await conn.fetchval(
            """INSERT INTO bank.payment_waits AS w (payment_id, reason, detail, needs_operator)
               VALUES ($1, $2, $3, $4)
               ON CONFLICT (payment_id) DO UPDATE SET reason = $2, detail = $3,
                   since = CASE WHEN w.reason = $2 OR ($7 AND w.reason <> ALL($8)) THEN w.since
                                ELSE clock_timestamp() END,
                   needs_operator = $4 OR ($5 AND (w.reason = $2 OR ($7 AND w.reason <> ALL($8)))
                                           AND w.since < clock_timestamp() - $6::interval)
                WHERE (w.reason, w.detail, w.needs_operator) IS DISTINCT FROM ($2, $3, $4)
                   OR ($5 AND w.since < clock_timestamp() - $6::interval AND NOT w.needs_operator)
               RETURNING since""",
            payment_id,
            waiting.reason,
            waiting.detail[:_DETAIL_LENGTH],
            waiting.needs_operator,
            waiting.impatient,
            _PATIENCE,
            waiting.is_stalled,
            list(UNDER_WAY),
        )
        if since is None:  # nothing to write
            since = await conn.fetchval("SELECT since FROM bank.payment_waits WHERE payment_id = $1", payment_id)
    if since is None:
        raise InvariantBroken(f"the wait of {payment_id} is gone")
    return since


async def has_wait(conn: Connection, payment_hash: PaymentHash) -> bool:
    """Whether a wait is noted for the pending payment of this hash. Then its send no longer follows it."""
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
    """Note that the payment was in flight and in no channel at this height. A repeat adds nothing."""
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
    """The heights at which the payment was in no channel, in order."""
    with translated():
        rows = await conn.fetch(
            "SELECT height FROM bank.lost_sightings WHERE payment_id = $1 AND payment_index = $2 ORDER BY height",
            payment_id,
            payment_index,
        )
    return [row["height"] for row in rows]


async def take_turn_in_tx(conn: Connection, payment_hash: PaymentHash) -> None:
    """Take the turn of this hash: until the transaction ends nobody else opens a Lightning payment of it.

    Waits for others who open one, and for whoever ends the pending one. To avoid deadlocks, a transaction takes one
    turn, after the idempotency key and before everything else, and those who end a payment take none. A repeat in the
    same transaction changes nothing.
    """
    with translated():
        await conn.execute("SELECT bank.take_turn($1)", payment_hash)


async def read_earlier_attempts_in_tx(conn: Connection, payment_hash: PaymentHash, node: NodeName) -> tuple[int, int]:
    """(how many times this hash has been tried, the highest LND payment index that this node ended one with).

    Exact for whoever has the hash's turn (`take_turn_in_tx`); for anybody else it may already be old. Each node counts
    its own payments: the index of one node says nothing about another.

    Raises Refused for a hash that a node reports as in flight for ever, or that operators ended without the node's
    final status: the node would never send it again, or could pay it twice.
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
