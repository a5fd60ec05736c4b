"""One transfer's history: itself, what it resolved and what resolved it, each with its legs, oldest first.

A hold and its settlement are two transfers with one history, and so are a settlement and its reversal. Whichever of
them is asked for, the same links are followed, up to 100 transfers. Other holds that the same transfer resolved are not
part of it. The two transfers of a correction have one history, too, and so have all transfers of a deposit, however
often it was taken back and credited again. The transfers of a payout have one history: the one that settled its
withdrawals, and those of its changed fees.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from engine.ledger.database import Connection, translated
from engine.views.balance import EntryRow

MAX_STEPS = 100
_PAYOUT_REF = re.compile(r"batch:(?P<payout>[0-9a-z_]{1,100}):")
_DEPOSIT_REF = re.compile(r"chain:(?P<txid>[0-9a-f]{64}):(?P<vout>\d{1,9}):")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A transfer of the history. `status` says what has become of it, `resolves` which transfers it ended."""

    ref: str
    template: str
    phase: str
    status: str
    resolves: Sequence[str]
    actor: str
    workflow_id: str | None
    description: str | None
    metadata: dict[str, Any]
    effective_on: date
    received_at: datetime
    posted_at: datetime
    expires_at: datetime | None
    entries: Sequence[EntryRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The whole history, with the transfer that was asked for among its steps, and what it is about."""

    steps: Sequence[Step]
    payment_ids: Sequence[str]
    invoice_ids: Sequence[str]
    correction_ids: Sequence[str]
    deposit_ids: Sequence[str]
    withdrawal_ids: Sequence[str]
    payout_ids: Sequence[str]


_STEPS = """
WITH RECURSIVE later(id) AS (
       SELECT id FROM ledger.transfers WHERE external_ref = ANY($3)
       UNION SELECT r.transfer_id FROM ledger.resolutions r JOIN later ON r.target_id = later.id),
     earlier(id) AS (
       SELECT id FROM ledger.transfers WHERE external_ref = ANY($3)
       UNION SELECT r.target_id FROM ledger.resolutions r JOIN earlier ON r.transfer_id = earlier.id),
     story AS (SELECT id FROM later UNION SELECT id FROM earlier)
SELECT t.id, t.external_ref AS ref, t.template, t.phase, t.actor, t.workflow_id, t.description, t.metadata,
       t.effective_on, t.received_at, t.expires_at,
       (SELECT min(posted_at) FROM ledger.entries WHERE transfer_id = t.id) AS posted_at,
       CASE (SELECT x.phase FROM ledger.resolutions r JOIN ledger.transfers x ON x.id = r.transfer_id
              WHERE r.target_id = t.id)
            WHEN 'settle' THEN 'settled' WHEN 'void' THEN 'voided' WHEN 'expire' THEN 'expired'
            WHEN 'reverse' THEN 'reversed' ELSE CASE t.phase WHEN 'hold' THEN 'open' ELSE 'final' END END AS status,
       ARRAY(SELECT x.external_ref FROM ledger.resolutions r JOIN ledger.transfers x ON x.id = r.target_id
              WHERE r.transfer_id = t.id ORDER BY x.id) AS resolves
  FROM (SELECT t.* FROM story JOIN ledger.transfers t ON t.id = story.id
         ORDER BY t.external_ref <> $1, t.id LIMIT $2) t
 ORDER BY t.id"""

_ENTRIES = """
SELECT e.transfer_id, e.account_id, a.code, e.currency, CASE e.layer WHEN 0 THEN 'settled' ELSE 'held' END AS layer,
       e.amount AS amount_msat, e.balance_after AS balance_after_msat, e.version, e.posted_at
  FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id
 WHERE e.transfer_id = ANY($1) ORDER BY e.transfer_id, e.seq"""

# A hold and its release name one attempt, a settlement the one payment that was settled, a receipt the invoice.
_PAYMENTS = """
SELECT p.id FROM ledger.transfers t JOIN bank.payments p ON p.id = t.metadata ->> 'payment' WHERE t.id = ANY($1)
UNION
SELECT p.id FROM ledger.transfers t JOIN bank.payments p ON p.payment_hash = split_part(t.external_ref, ':', 2)
 WHERE t.id = ANY($1) AND t.external_ref LIKE 'ln:%'
   AND CASE t.phase WHEN 'settle' THEN p.status = 'settled' WHEN 'post' THEN false
                    ELSE p.attempt::text = split_part(t.external_ref, ':', 4) END
 ORDER BY 1"""

_INVOICES = """
SELECT DISTINCT i.id FROM ledger.transfers t
  JOIN bank.invoices i ON i.payment_hash = split_part(t.external_ref, ':', 2)
 WHERE t.id = ANY($1) AND t.external_ref LIKE 'ln:%' ORDER BY i.id"""

_CORRECTIONS = """
SELECT DISTINCT c.id FROM ledger.transfers t JOIN bank.corrections c ON c.id = t.metadata ->> 'correction'
 WHERE t.id = ANY($1) ORDER BY c.id"""

_DEPOSITS = """
SELECT DISTINCT d.id FROM ledger.transfers t JOIN bank.deposits d ON d.id = t.metadata ->> 'deposit'
 WHERE t.id = ANY($1) ORDER BY d.id"""

_PAYOUTS = """
SELECT DISTINCT p.id FROM ledger.transfers t JOIN bank.payouts p ON p.id = split_part(t.external_ref, ':', 2)
 WHERE t.id = ANY($1) AND t.external_ref LIKE 'batch:%' ORDER BY p.id"""

_WITHDRAWALS = """
SELECT DISTINCT w.id FROM ledger.transfers t JOIN bank.withdrawals w ON w.id = split_part(t.external_ref, ':', 2)
 WHERE t.id = ANY($1) AND t.external_ref LIKE 'wd:%' ORDER BY w.id"""

# Nothing links a changed fee to the settlement. The row counts them, so every reference can be named.
_OF_PAYOUT = """
SELECT format('batch:%s:%s', p.id, w.word) AS ref
  FROM bank.payouts p CROSS JOIN LATERAL (
       SELECT 'broadcast' AS word UNION ALL SELECT 'fee:' || n FROM generate_series(1, least(p.bookings, $2)) n) w
 WHERE p.id = $1"""

# Nothing links the second hold of a deposit to the first. The row counts them, so every reference can be named.
_OF_DEPOSIT = """
WITH one AS (
       SELECT id, greatest(holds, confs) AS times FROM bank.deposits WHERE id IN (
              SELECT id FROM bank.deposits WHERE txid = $1 AND vout = $2
              UNION SELECT deposit_id FROM bank.deposit_outpoints WHERE txid = $1 AND vout = $2)),
     outpoints AS (
       SELECT d.txid, d.vout FROM bank.deposits d JOIN one ON one.id = d.id
       UNION SELECT o.txid, o.vout FROM bank.deposit_outpoints o JOIN one ON one.id = o.deposit_id)
SELECT format('chain:%s:%s:%s', o.txid, o.vout, w.word) AS ref
  FROM one CROSS JOIN outpoints o CROSS JOIN LATERAL generate_series(1, least(one.times, $3)) n
 CROSS JOIN LATERAL (VALUES
       (CASE n WHEN 1 THEN 'seen' ELSE 'seen:' || n END), (CASE n WHEN 1 THEN 'drop' ELSE 'drop:' || n END),
       ('conf:' || n), ('release:' || n), ('reorg:' || n), ('reorg:' || n || ':release')) w(word)"""


async def find_story(conn: Connection, ref: str) -> Story | None:
    """The history of the transfer with this reference, in one snapshot; None when there is none."""
    with translated():
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            refs = [*_together(ref), *await _of_deposit(conn, ref), *await _of_payout(conn, ref)]
            rows = await conn.fetch(_STEPS, ref, MAX_STEPS, refs)
            ids = [row["id"] for row in rows]
            entries = await conn.fetch(_ENTRIES, ids)
            payments = await conn.fetch(_PAYMENTS, ids)
            invoices = await conn.fetch(_INVOICES, ids)
            corrections = await conn.fetch(_CORRECTIONS, ids)
            deposits = await conn.fetch(_DEPOSITS, ids)
            withdrawals = await conn.fetch(_WITHDRAWALS, ids)
            payouts = await conn.fetch(_PAYOUTS, ids)
    if all(row["ref"] != ref for row in rows):
        return None
    legs: dict[int, list[EntryRow]] = {}
    for entry in entries:
        known = dict(entry)
        legs.setdefault(known.pop("transfer_id"), []).append(EntryRow(**known))
    steps = []
    for row in rows:
        known = dict(row)
        entries_of = legs[known.pop("id")]
        steps.append(Step(**known, entries=entries_of))
    return Story(
        steps=steps,
        payment_ids=[row["id"] for row in payments],
        invoice_ids=[row["id"] for row in invoices],
        correction_ids=[row["id"] for row in corrections],
        deposit_ids=[row["id"] for row in deposits],
        withdrawal_ids=[row["id"] for row in withdrawals],
        payout_ids=[row["id"] for row in payouts],
    )


def _together(ref: str) -> list[str]:
    """The reference, and that of the other half of a correction, which no resolution links to it."""
    for half, other in ((":out", ":in"), (":in", ":out")):
        if ref.startswith("corr:") and ref.endswith(half):
            return [ref, ref.removesuffix(half) + other]
    return [ref]


async def _of_deposit(conn: Connection, ref: str) -> list[str]:
    """The references that the transfers of a deposit may have, whichever of them is asked for."""
    found = _DEPOSIT_REF.match(ref)
    if found is None:
        return []
    return [row["ref"] for row in await conn.fetch(_OF_DEPOSIT, found["txid"], int(found["vout"]), MAX_STEPS)]


async def _of_payout(conn: Connection, ref: str) -> list[str]:
    """The references that the transfers of a payout may have, whichever of them is asked for."""
    found = _PAYOUT_REF.match(ref)
    if found is None:
        return []
    return [row["ref"] for row in await conn.fetch(_OF_PAYOUT, found["payout"], MAX_STEPS)]
