"""Deposits against their own postings: what the rows say is booked, and what is. Each look is one statement.

A deposit's row and its postings change in one transaction, so no moment lies between them.
"""

from datetime import timedelta

from engine.bank.reconciliation import Loose
from engine.ledger import chart
from engine.ledger.database import Connection, translated

_MANY = 100
_LONGEST_S = 300
_RECENT = timedelta(days=35)
"""Deposits that have been final for longer, and older postings, are not looked at again: nothing changes them."""


async def list_loose_deposits(conn: Connection) -> tuple[list[Loose], list[Loose]]:
    """(open holds that show a deposit as incoming and that no deposit has, deposits whose hold is not open)."""
    with translated():
        rows = await conn.fetch(_LOOSE, _MANY, timeout=_LONGEST_S)
    holds = [
        Loose(ref=row["hold"], amount_msat=row["amount_msat"], detail="shown as incoming, and no deposit has it")
        for row in rows
        if row["deposit"] is None
    ]
    deposits = [
        Loose(
            ref=row["deposit"], amount_msat=row["amount_msat"], detail=f"has the hold {row['ref']}, which is not open"
        )
        for row in rows
        if row["deposit"] is not None
    ]
    return holds, deposits


async def list_not_as_booked(conn: Connection) -> list[Loose]:
    """Deposits whose posting is missing, reversed, or of another amount or place; and postings that no deposit has."""
    with translated():
        rows = await conn.fetch(_NOT_AS_BOOKED, chart.HOT, _RECENT, _MANY, timeout=_LONGEST_S)
    return [
        Loose(
            ref=row["deposit"] or row["ref"],
            amount_msat=row["amount_msat"],
            detail=f"is to be booked under {row['ref']}, and is not" if row["deposit"] else "is booked for no deposit",
        )
        for row in rows
    ]


_LOOSE = """
WITH holds AS (
    SELECT t.external_ref AS ref, (SELECT sum(e.amount) FROM ledger.entries e
            WHERE e.transfer_id = t.id AND e.layer = 1 AND e.amount > 0)::bigint AS amount_msat
      FROM ledger.transfers t
     WHERE t.phase = 'hold' AND t.external_ref LIKE 'chain:%:seen%'
       AND NOT EXISTS (SELECT FROM ledger.resolutions r WHERE r.target_id = t.id)),
waiting AS (SELECT id, hold_ref AS ref, 1000 * amount_sat AS amount_msat FROM bank.deposits WHERE hold_ref IS NOT NULL)
SELECT h.ref AS hold, w.id AS deposit, coalesce(h.ref, w.ref) AS ref,
       coalesce(h.amount_msat, w.amount_msat) AS amount_msat
  FROM holds h FULL JOIN waiting w ON w.ref = h.ref
 WHERE h.ref IS NULL OR w.ref IS NULL ORDER BY 3 LIMIT $1"""

_NOT_AS_BOOKED = """
WITH hot AS (SELECT id FROM ledger.accounts WHERE code = $1),
standing AS (
    SELECT t.id, t.external_ref AS ref, t.template FROM ledger.transfers t
     WHERE t.external_ref LIKE 'chain:%' AND t.phase IN ('post', 'settle')
       AND NOT EXISTS (SELECT FROM ledger.resolutions r WHERE r.target_id = t.id)),
booked AS (
    SELECT d.id, 1000 * d.amount_sat AS amount_msat, d.conf_ref, d.release_ref, d.place FROM bank.deposits d
     WHERE d.conf_ref IS NOT NULL AND (d.final_at IS NULL OR d.final_at > clock_timestamp() - $2::interval))
SELECT b.id AS deposit, b.conf_ref AS ref, b.amount_msat
  FROM booked b LEFT JOIN standing s ON s.ref = b.conf_ref
  LEFT JOIN ledger.entries e ON e.transfer_id = s.id AND e.account_id = (SELECT id FROM hot) AND e.layer = 0
 WHERE e.amount IS DISTINCT FROM b.amount_msat OR (b.place = 'wallet') <> (s.template = 'deposit_credited')
UNION ALL
SELECT b.id, b.release_ref, b.amount_msat FROM booked b
 WHERE b.release_ref IS NOT NULL AND NOT EXISTS (SELECT FROM standing s WHERE s.ref = b.release_ref)
UNION ALL
SELECT NULL, s.ref, e.amount FROM ledger.entries e JOIN standing s ON s.id = e.transfer_id
 WHERE e.account_id = (SELECT id FROM hot) AND e.layer = 0 AND e.posted_at > clock_timestamp() - $2::interval
   AND s.ref LIKE 'chain:%:conf:%' AND NOT EXISTS (SELECT FROM bank.deposits d WHERE d.conf_ref = s.ref)
LIMIT $3"""
