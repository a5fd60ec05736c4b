"""What was accepted and no worker has opened yet, and which workflow carries it: written when a caller is told to come
back later. The request is kept with it, for that workflow may be gone before it has opened anything.

From then on the payment's key stands for that request: another one with the same key is a conflict, and is told so by
whoever meets it first, the API or the worker that would open it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from engine.domain.ids import AccountId, BatchId, PaymentId
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True)
class Standing:
    """The request that the key of a payment stands for."""

    body_hash: bytes
    is_opened: bool
    """Whether a worker has opened it, so that the key has its answer; else it was accepted and rides a lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boarded:
    """What was accepted, and the workflow that was to open it."""

    workflow_id: str
    created_at: datetime
    body_hash: bytes | None
    """None: an older release noted it."""
    request: dict[str, Any] | None
    """None also once it has been opened."""


async def note_boarded(
    conn: Connection,
    payment_id: PaymentId | BatchId,
    workflow_id: str,
    at: datetime,
    body_hash: bytes,
    *,
    request: dict[str, Any],
    kind: Literal["payment", "batch"] = "payment",
) -> bytes | None:
    """Remember the workflow and the request; gives the hash of the one that is remembered.

    A repeat over another lane leaves the first: whichever comes first opens the payment. None: one that an older
    release noted, which kept no hash.
    """
    with translated():
        noted: bytes | None = await conn.fetchval(
            """INSERT INTO bank.boarded_payments(payment_id, workflow_id, created_at, body_hash, kind, request)
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING body_hash""",
            payment_id,
            workflow_id,
            at,
            body_hash,
            kind,
            request,
        )
        if noted is None:
            noted = await conn.fetchval("SELECT body_hash FROM bank.boarded_payments WHERE payment_id = $1", payment_id)
    return noted


async def find_boarded(conn: Connection, payment_id: PaymentId | BatchId) -> Boarded | None:
    """What was accepted under this id, if it was not opened at once."""
    with translated():
        row = await conn.fetchrow(
            "SELECT workflow_id, created_at, body_hash, request FROM bank.boarded_payments WHERE payment_id = $1",
            payment_id,
        )
    return None if row is None else Boarded(**row)


async def find_standings(conn: Connection, asked: Sequence[tuple[AccountId, str, PaymentId]]) -> list[Standing | None]:
    """What each of these keys, with the payment that is made of it, stands for, in their order. None: a free key."""
    with translated():
        rows = await conn.fetch(
            """SELECT coalesce(k.body_hash, b.body_hash) AS body_hash, k.key IS NOT NULL AS is_opened
                 FROM unnest((SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[]))
                      WITH ORDINALITY o(account_id, key, payment_id, place)
                 LEFT JOIN bank.idempotency_keys k ON k.account_id = o.account_id AND k.key = o.key
                 LEFT JOIN bank.boarded_payments b ON b.payment_id = o.payment_id ORDER BY o.place""",
            [account_id for account_id, _key, _payment_id in asked],
            [key for _account_id, key, _payment_id in asked],
            [payment_id for _account_id, _key, payment_id in asked],
        )
    return [None if row["body_hash"] is None else Standing(row["body_hash"], row["is_opened"]) for row in rows]
