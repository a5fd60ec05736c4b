"""What an idempotency key stands for: one request, and its answer for ever.

A row is written in the same transaction as what the request did, or with the refusal that it got. No other row can come
in between: the primary key decides who was first, and the second waits for the first to commit. A committed row never
changes; the database refuses it (`sql/keep_answers.sql`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.domain.ids import AccountId, id_for_key
from engine.ledger.database import Connection, change_rows, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """An earlier request: the hash of its body, and what it made or the refusal that it got."""

    body_hash: bytes
    resource_id: str | None
    refusal: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A request that claims its key: the hash of its body, and what it would make."""

    account_id: AccountId
    key: str
    body_hash: bytes
    resource_id: str


async def claim_keys_in_tx(conn: Connection, claims: Sequence[Claim]) -> list[bool]:
    """Claim the keys for what this transaction makes. Returns whether each was free, in their order.

    A key is also not free while another request with it, of whatever kind, is accepted and not yet opened
    (`engine/bank/accepted.py`). The call waits while other transactions decide about the same keys. All take keys in
    one order, so there is no deadlock.
    """
    with translated():
        rows = await conn.fetch(
            """INSERT INTO bank.idempotency_keys(account_id, key, body_hash, resource_id)
               SELECT o.account_id, o.key, o.hash, o.id
                 FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::text[])
                      AS o(account_id, key, hash, id, payment_id, batch_id)
                WHERE NOT EXISTS (
                      SELECT FROM bank.boarded_payments b
                       WHERE b.payment_id IN (o.payment_id, o.batch_id) AND b.body_hash <> o.hash)
                ORDER BY o.account_id, o.key
               ON CONFLICT DO NOTHING RETURNING account_id, key""",
            [claim.account_id for claim in claims],
            [claim.key for claim in claims],
            [claim.body_hash for claim in claims],
            [claim.resource_id for claim in claims],
            [id_for_key("pay", claim.account_id, claim.key) for claim in claims],
            [id_for_key("batch", claim.account_id, claim.key) for claim in claims],
        )
    taken = {(row["account_id"], row["key"]) for row in rows}
    return [(claim.account_id, claim.key) in taken for claim in claims]


async def refuse_claims_in_tx(conn: Connection, refused: Sequence[tuple[Claim, Mapping[str, object]]]) -> None:
    """Store refusals as the answers of keys that this very transaction has claimed."""
    if not refused:
        return
    await change_rows(
        conn,
        len(refused),
        """UPDATE bank.idempotency_keys k SET resource_id = NULL, refusal = r.refusal::jsonb
             FROM unnest($1::text[], $2::text[], $3::text[]) AS r(account_id, key, refusal)
            WHERE (k.account_id, k.key) = (r.account_id, r.key)""",
        [claim.account_id for claim, _refusal in refused],
        [claim.key for claim, _refusal in refused],
        [orjson.dumps(dict(refusal)).decode() for _claim, refusal in refused],
    )


async def refuse_key_in_tx(
    conn: Connection,
    account_id: AccountId,
    key: str,
    body_hash: bytes,
    refusal: Mapping[str, object],
) -> bool:
    """Store this refusal as the key's answer for ever. False when the key is not free, as in `claim_keys_in_tx`."""
    with translated():
        refused: str | None = await conn.fetchval(
            """INSERT INTO bank.idempotency_keys(account_id, key, body_hash, refusal)
               SELECT o.* FROM (VALUES ($1::text, $2::text, $3::bytea, $4::jsonb)) AS o(account_id, key, hash, refusal)
                WHERE NOT EXISTS (
                      SELECT FROM bank.boarded_payments b
                       WHERE b.payment_id IN ($5, $6) AND b.body_hash <> o.hash)
               ON CONFLICT DO NOTHING RETURNING key""",
            account_id,
            key,
            body_hash,
            dict(refusal),
            id_for_key("pay", account_id, key),
            id_for_key("batch", account_id, key),
        )
    return refused is not None


async def find_key(conn: Connection, account_id: AccountId, key: str) -> KeyRecord | None:
    """The earlier request with this key, if there was one."""
    with translated():
        row = await conn.fetchrow(
            "SELECT body_hash, resource_id, refusal FROM bank.idempotency_keys WHERE account_id = $1 AND key = $2",
            account_id,
            key,
        )
    return None if row is None else KeyRecord(**row)
