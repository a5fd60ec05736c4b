"""Rows that wait for a workflow, by kind: all that are not final, and the facts that their workflows need to go on.

A walk reads only ids, page by page, the oldest first. The other columns are read only for rows whose workflow is gone.
Nothing is written, except that requests which have been opened are dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.ledger.database import Connection, change_any, translated

_FORGOTTEN_AT_ONCE = 1000
START = (datetime.min.replace(tzinfo=UTC), "")
"""The position before the first row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """A row that is not final. Any one of these workflows would end it."""

    id: str
    at: datetime
    workflow_ids: list[str]


@dataclass(frozen=True, slots=True)
class Shelf:
    """A kind of row: a query for `id, at, workflow_ids`, and one for all facts that start a workflow, for ids `$1`."""

    owed: str
    facts: str


PAYMENTS = Shelf(
    owed="""SELECT id, created_at AS at,
                   ARRAY[workflow_id, format('payment-%s-%s', account_id, split_part(id, '_', 2))] AS workflow_ids
              FROM bank.payments WHERE status = 'pending'""",
    facts="""SELECT p.id, p.account_id, p.wallet_id, p.destination, p.bolt11, p.payment_hash, p.amount_in_invoice,
                    p.amount_msat, p.max_fee_msat - p.service_fee_msat AS routing_cap_msat, p.memo, p.external_id,
                    k.key, k.body_hash
               FROM bank.payments p
               JOIN bank.idempotency_keys k ON k.account_id = p.account_id AND k.resource_id = p.id
              WHERE p.id = ANY($1) AND p.status = 'pending'""",
)
"""Payments for which money is held. Their keys have been claimed, so opening them again finds them."""

ACCEPTED = Shelf(
    owed="""SELECT payment_id AS id, created_at AS at,
                   ARRAY[workflow_id, format('%s-%s-%s', kind, request ->> 'account_id',
                                             split_part(payment_id, '_', 2))] AS workflow_ids
              FROM bank.boarded_payments WHERE request IS NOT NULL""",
    facts="""SELECT payment_id AS id, kind, request
               FROM bank.boarded_payments WHERE payment_id = ANY($1) AND request IS NOT NULL""",
)
"""Accepted requests: their callers were told 202, and no worker has opened them yet."""

CORRECTIONS = Shelf(
    owed="""SELECT id, created_at AS at, ARRAY[workflow_id] AS workflow_ids
              FROM bank.corrections WHERE status IN ('proposed', 'approved')""",
    facts="""SELECT c.id, c.kind, c.debit, c.credit, c.amount_msat, c.reason, c.case_id, c.reference, c.proposed_by,
                    c.expires_at, k.key, k.body_hash
               FROM bank.corrections c
               JOIN bank.idempotency_keys k ON k.account_id = c.proposed_by AND k.resource_id = c.id
              WHERE c.id = ANY($1) AND c.status IN ('proposed', 'approved')""",
)

CASES = Shelf(
    owed="SELECT id, created_at AS at, ARRAY['case-' || id] AS workflow_ids FROM bank.cases WHERE status = 'open'",
    facts="""SELECT id, kind, account, subject, amount_msat, detail, suspects
               FROM bank.cases WHERE id = ANY($1) AND status = 'open'""",
)

RUNS = Shelf(
    owed="""SELECT id, created_at AS at, ARRAY[workflow_id] AS workflow_ids
              FROM bank.reconciliations WHERE status = 'running'""",
    facts="SELECT id FROM bank.reconciliations WHERE id = ANY($1) AND status = 'running'",
)


DEPOSITS = Shelf(
    owed="""SELECT id, created_at AS at, ARRAY[workflow_id] AS workflow_ids FROM bank.deposits d
             WHERE (alone AND (hold_ref IS NOT NULL OR (conf_ref IS NOT NULL AND final_at IS NULL)))
                OR status IN ('held', 'unattributed')
                OR EXISTS (SELECT FROM bank.receivables r WHERE r.deposit_id = d.id AND r.status = 'open')""",
    facts="SELECT id, workflow_id, txid, amount_sat, account_id FROM bank.deposits WHERE id = ANY($1)",
)
"""Deposits that are followed by a workflow of their own, or wait for operators. The pump wakes all others."""

WITHDRAWALS = Shelf(
    owed="""SELECT id, created_at AS at, ARRAY[workflow_id] AS workflow_ids
              FROM bank.withdrawals WHERE status IN ('queued', 'batched', 'broadcast')""",
    facts="""SELECT w.id AS withdrawal_id, w.id, w.account_id, w.wallet_id, k.key AS idempotency_key, k.body_hash,
                    (SELECT min(wallet) FROM bank.chains) AS hot_wallet, w.address, encode(w.script, 'hex') AS script,
                    CASE WHEN NOT w.send_all THEN w.amount_sat END AS amount_sat, w.fee_from, w.speed, w.alone,
                    w.unlinked, w.max_fee_sat, 0 AS fee_cap_sat, w.memo, w.external_id
               FROM bank.withdrawals w
               JOIN bank.idempotency_keys k ON k.account_id = w.account_id AND k.resource_id = w.id
              WHERE w.id = ANY($1) AND w.status IN ('queued', 'batched', 'broadcast')""",
)
"""Withdrawals for which money is held, or that are on their way. Their keys have been claimed, as of payments."""

PAYOUTS = Shelf(
    owed="""SELECT id, created_at AS at, ARRAY[workflow_id] AS workflow_ids
              FROM bank.payouts WHERE status NOT IN ('final', 'dissolved')""",
    facts="""SELECT id, workflow_id FROM bank.payouts
              WHERE id = ANY($1) AND status NOT IN ('final', 'dissolved')""",
)
"""Payouts that take steps of their own until they lie deep."""


async def list_owed(
    conn: Connection, shelf: Shelf, *, after: tuple[datetime, str], age: timedelta, limit: int
) -> list[Owed]:
    """A page of rows older than `age`, the oldest first."""
    with translated():
        rows = await conn.fetch(
            f"""SELECT id, at, workflow_ids FROM ({shelf.owed}) owed
                 WHERE at < clock_timestamp() - $1::interval AND (at, id) > ($2, $3)
                 ORDER BY at, id LIMIT $4""",  # noqa: S608 - constant
            age,
            *after,
            limit,
        )
    return [Owed(**row) for row in rows]


async def read_facts(conn: Connection, shelf: Shelf, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The facts that start the workflows of these rows, for rows that are still not final."""
    with translated():
        return [dict(row) for row in await conn.fetch(shelf.facts, ids)]


async def forget_opened(conn: Connection) -> None:
    """Drop the stored requests that have been opened: their keys have answers."""
    await change_any(
        conn,
        """UPDATE bank.boarded_payments SET request = NULL WHERE payment_id IN (
               SELECT b.payment_id FROM bank.boarded_payments b
                 JOIN bank.idempotency_keys k ON k.account_id = b.request ->> 'account_id'
                                             AND k.key = b.request ->> 'idempotency_key'
                WHERE b.request IS NOT NULL ORDER BY b.created_at LIMIT $1)""",
        _FORGOTTEN_AT_ONCE,
    )
