"""Accepted requests that no worker has opened yet, each with the workflow that carries it.

The row is written before a caller is told 202. It keeps the request, because the workflow may end before it opens
anything. From then on the idempotency key stands for that request: another request with the same key is a conflict, and
the API or the worker that would open it says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from engine.domain.ids import AccountId, BatchId, PaymentId
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True)
class EarlierRequest:
    """The request that has used the idempotency key of a payment."""

    body_hash: bytes
    is_opened: bool
    """Whether a worker has opened it, so that the key has an answer; else it was accepted and its workflow runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An accepted request, and the workflow that is to open it."""

    workflow_id: str
    created_at: datetime
    body_hash: bytes | None
    """None: an older release wrote the row."""
    request: dict[str, Any] | None
    """None also once a worker has opened it."""


async def note_accepted(
    conn: Connection,
    payment_id: PaymentId | BatchId,
    workflow_id: str,
    at: datetime,
    body_hash: bytes,
    *,
    request: dict[str, Any],
    kind: Literal["payment", "batch"] = "payment",
) -> bytes | None:
    """Write the workflow and the request; returns the hash of the request that the row has.

    A repeat leaves the first row as it is: whichever workflow comes first opens the payment. None: an older release
    wrote the row, without a hash.
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


async def find_accepted(conn: Connection, payment_id: PaymentId | BatchId) -> Accepted | None:
    """The accepted request with this id, if its caller was told 202."""
    with translated():
        row = await conn.fetchrow(
            "SELECT workflow_id, created_at, body_hash, request FROM bank.boarded_payments WHERE payment_id = $1",
            payment_id,
        )
    return None if row is None else Accepted(**row)


async def find_earlier_requests(
    conn: Connection, asked: Sequence[tuple[AccountId, str, PaymentId]]
) -> list[EarlierRequest | None]:
    """For each key, with the id of the payment that it makes, the request that has used it; None: the key is free."""
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
    return [None if row["body_hash"] is None else EarlierRequest(row["body_hash"], row["is_opened"]) for row in rows]
