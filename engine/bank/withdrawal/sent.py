"""What payouts have taken out of the hot wallet, and what the books have of it: for a reconciliation.

Read are the signed versions of payouts that are not over, and of those with a version that was seen recently. So the
cost grows with recent payouts, not with history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.domain.ids import PayoutId, Txid
from engine.domain.money import Sat
from engine.ledger.database import Connection, translated

_LONGEST_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SentVersion:
    """A signed version of a payout. Its bytes may be known to anybody."""

    payout: PayoutId
    number: int
    txid: Txid
    leaves_sat: Sat
    """What its transaction takes from the wallet: the members' outputs and its fee."""
    booked_sat: Sat
    """What the books have for the payout, whichever version is in force: the outputs and the fee; 0: not booked."""
    over: bool
    """Final or dissolved: what the books have of it does not change any more."""


async def list_sent(conn: Connection, since: datetime, named: Sequence[str]) -> list[SentVersion]:
    """By payout and number. `named` are transactions to be read whatever their age."""
    with translated():
        rows = await conn.fetch(_SENT, since, named, timeout=_LONGEST_S)
    return [SentVersion(**row) for row in rows]


_SENT = """
WITH wanted AS (
    SELECT id FROM bank.payouts WHERE status NOT IN ('final', 'dissolved')
    UNION
    SELECT v.payout_id FROM bank.coin_spends s JOIN bank.payout_versions v ON v.txid = s.spender WHERE s.seen_at >= $1
    UNION
    SELECT v.payout_id FROM bank.payout_versions v WHERE v.txid = ANY($2))
SELECT v.payout_id AS payout, v.number, v.txid, v.fee_sat + m.paid_sat AS leaves_sat,
       CASE WHEN p.booked_ref IS NULL THEN 0 ELSE p.fee_booked_sat + m.paid_sat END AS booked_sat,
       p.status IN ('final', 'dissolved') AS over
  FROM wanted JOIN bank.payouts p USING (id)
  JOIN bank.payout_versions v ON v.payout_id = p.id AND v.txid IS NOT NULL
 CROSS JOIN LATERAL (SELECT coalesce(sum(w.paid_sat), 0)::bigint AS paid_sat FROM bank.withdrawals w
                      WHERE w.payout_id = p.id) m
 ORDER BY v.payout_id, v.number"""
