"""What an idempotency key stands for: one request, and its answer for ever.

A row is written in the same transaction as what the request did, or with the refusal that it got. Nobody else's row can
be in between: the primary key decides who was first, and the second waits for the first to commit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.domain.ids import AccountId
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """An earlier request: what it asked (as a hash), and what it made or the refusal it got."""

    body_hash: bytes
    resource_id: str | None
    refusal: dict[str, Any] | None


async def claim_key_in_tx(
    conn: Connection, account_id: AccountId, key: str, body_hash: bytes, resource_id: str
) -> bool:
    """Take the key for what this transaction makes. False when it is taken; waits while another transaction decides."""
    with translated():
        claimed: str | None = await conn.fetchval(
            """INSERT INTO bank.idempotency_keys(account_id, key, body_hash, resource_id) VALUES ($1, $2, $3, $4)
               ON CONFLICT DO NOTHING RETURNING key""",
            account_id,
            key,
            body_hash,
            resource_id,
        )
    return claimed is not None


async def refuse_key_in_tx(
    conn: Connection, account_id: AccountId, key: str, body_hash: bytes, refusal: Mapping[str, object]
) -> bool:
    """Make this refusal the key's answer for ever. False when the key is taken."""
    with translated():
        refused: str | None = await conn.fetchval(
            """INSERT INTO bank.idempotency_keys(account_id, key, body_hash, refusal) VALUES ($1, $2, $3, $4)
               ON CONFLICT DO NOTHING RETURNING key""",
            account_id,
            key,
            body_hash,
            dict(refusal),
        )
    return refused is not None


async def find_key(conn: Connection, account_id: AccountId, key: str) -> KeyRecord | None:
    """What this key stands for, if it was ever used."""
    with translated():
        row = await conn.fetchrow(
            "SELECT body_hash, resource_id, refusal FROM bank.idempotency_keys WHERE account_id = $1 AND key = $2",
            account_id,
            key,
        )
    return None if row is None else KeyRecord(**row)
