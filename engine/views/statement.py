"""A wallet's statement: what it had, every settled movement, what it has then. Opening + movements = closing, always.

A moment falls between two versions of the account: after the last entry posted before it. Times are taken under the
account's lock, so versions and times have the same order, and the entries between two such versions are the movements
of [from, to). Even where a clock was set back the sums agree, because they go by versions.

Only the two versions need one snapshot. Versions are gapless, entries are never changed, and a version is committed
only after the one before it: so everything up to the second version can be read later, page by page, and no connection
is held while a slow client reads. What is being committed at this very moment may still join a period that ends now.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from engine.domain.errors import NotFound
from engine.ledger.database import Connection, Pool, borrowed, translated
from engine.views.csv import cell, csv_lines, moment

PAGE = 1_000

COLUMNS = ["time", "kind", "amount_msat", "fee_msat", "balance_msat", "counterparty", "memo", "reference", "transfer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A statement's frame, in msat of the owner's money: after which version it begins and with which it ends."""

    begins_at: datetime
    ends_at: datetime
    opening_version: int
    closing_version: int
    opening_msat: int
    closing_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One settled change of the account, positive for money in. `fee_msat` went as part of it, or before it came."""

    version: int
    posted_at: datetime
    kind: str
    amount_msat: int
    fee_msat: int
    balance_msat: int
    counterparty: str | None
    memo: str | None
    reference: str | None
    transfer: str


_PERIOD = """
SELECT coalesce($2, least(b.opened_at, $3)) AS begins_at, coalesce($3, greatest(b.now, $2)) AS ends_at,
       coalesce(o.version, 0) AS opening_version, coalesce(b.normal * o.balance_after, 0) AS opening_msat,
       coalesce(c.version, 0) AS closing_version, coalesce(b.normal * c.balance_after, 0) AS closing_msat
  FROM (SELECT id, normal, opened_at, clock_timestamp() AS now FROM ledger.accounts WHERE id = $1) b
  LEFT JOIN LATERAL (SELECT coalesce($4, ledger.version_before(b.id, coalesce($2, b.opened_at))) AS opening,
                            coalesce($5, ledger.version_before(b.id, coalesce($3, b.now))) AS closing) v ON true
  LEFT JOIN ledger.entries o ON o.account_id = b.id AND o.layer = 0 AND o.version = v.opening
  LEFT JOIN ledger.entries c ON c.account_id = b.id AND c.layer = 0 AND c.version = greatest(v.closing, v.opening)"""

# The reference tells what a movement was: see the tables of payment.py, receipt.py, deposit.py and payout.py. Each part
# reads one row by key, and the limits keep the planner from reading whole tables for it. A payout is one movement of a
# wallet for all of its withdrawals there, and reads these.
_MOVEMENTS = """
SELECT e.version, e.posted_at, e.amount_msat, e.balance_msat, t.external_ref AS transfer,
       CASE WHEN p.id IS NOT NULL AND e.amount_msat < 0 THEN 'payment'
            WHEN i.id IS NOT NULL THEN 'invoice' WHEN p.id IS NOT NULL THEN 'payment'
            WHEN t.external_ref LIKE 'chain:%' THEN 'deposit'
            WHEN t.external_ref LIKE 'wd:%' OR t.external_ref LIKE 'batch:%' THEN 'withdrawal'
            ELSE 'adjustment' END AS kind,
       CASE WHEN p.id IS NOT NULL AND e.amount_msat < 0 THEN p.fee_msat
            WHEN p.id IS NULL AND i.id IS NOT NULL THEN i.service_fee_msat
            WHEN d.id IS NOT NULL THEN coalesce((t.metadata ->> 'fee_msat')::bigint, 0)
            WHEN e.amount_msat < 0 THEN coalesce(w.fee_msat, 0) ELSE 0 END AS fee_msat,
       CASE WHEN p.id IS NOT NULL AND e.amount_msat < 0 THEN p.destination
            WHEN p.id IS NOT NULL THEN coalesce('@' || a.username, 'wallet:' || p.wallet_id)
            WHEN i.id IS NOT NULL THEN 'lightning' WHEN d.id IS NOT NULL THEN d.address
            WHEN e.amount_msat < 0 THEN w.payee ELSE w.payer END AS counterparty,
       CASE WHEN p.id IS NOT NULL AND e.amount_msat < 0 THEN p.memo
            WHEN w.reference IS NOT NULL THEN CASE WHEN e.amount_msat < 0 THEN w.memo END
            ELSE coalesce(i.memo, p.memo, t.description) END AS memo,
       CASE WHEN p.id IS NOT NULL AND e.amount_msat < 0 THEN p.id
            ELSE coalesce(i.id, p.id, d.id, w.reference, t.metadata ->> 'correction') END AS reference
  FROM (SELECT e.version, e.posted_at, e.transfer_id, x.normal * e.amount AS amount_msat,
               x.normal * e.balance_after AS balance_msat
          FROM ledger.entries e JOIN ledger.accounts x ON x.id = e.account_id
         WHERE e.account_id = $1 AND e.layer = 0 AND e.version > $2 AND e.version <= $3
         ORDER BY e.version LIMIT $4) e
  JOIN ledger.transfers t ON t.id = e.transfer_id
  LEFT JOIN LATERAL (SELECT split_part(t.external_ref, ':', 2) AS hash WHERE t.external_ref LIKE 'ln:%') h ON true
  LEFT JOIN LATERAL (SELECT * FROM bank.payments WHERE id = CASE
       WHEN t.metadata ? 'payment' THEN t.metadata ->> 'payment'
       WHEN t.phase = 'settle' THEN (SELECT s.id FROM bank.payments s
                                      WHERE s.payment_hash = h.hash AND s.status = 'settled') END LIMIT 1) p ON true
  LEFT JOIN LATERAL (SELECT username FROM bank.accounts WHERE id = p.account_id LIMIT 1) a ON true
  LEFT JOIN LATERAL (SELECT id, memo, service_fee_msat FROM bank.invoices
                      WHERE payment_hash = h.hash AND e.amount_msat > 0 LIMIT 1) i ON true
  LEFT JOIN LATERAL (SELECT id, address FROM bank.deposits WHERE id = t.metadata ->> 'deposit' LIMIT 1) d ON true
  LEFT JOIN LATERAL (
       SELECT CASE count(*) WHEN 1 THEN min(o.id) ELSE min(o.payout_id) END AS reference,
              CASE count(*) WHEN 1 THEN min(o.address) ELSE count(*) || ' addresses' END AS payee,
              CASE count(*) WHEN 1 THEN min(o.memo) END AS memo,
              min(coalesce('@' || a.username, 'wallet:' || o.wallet_id)) AS payer,
              sum(coalesce(o.miner_fee_sat, 0) * 1000 + o.service_fee_msat)::bigint AS fee_msat
         FROM (SELECT * FROM bank.withdrawals
                WHERE t.external_ref LIKE 'wd:%' AND id = split_part(t.external_ref, ':', 2)
               UNION ALL
               SELECT m.* FROM bank.withdrawals m JOIN bank.wallets v ON v.id = m.wallet_id
                WHERE v.ledger_account_id = $1 AND t.external_ref LIKE 'batch:%'
                  AND m.payout_id = split_part(t.external_ref, ':', 2)) o
         JOIN bank.accounts a ON a.id = o.account_id HAVING count(*) > 0) w ON true
 ORDER BY e.version"""


async def read_period(
    conn: Connection,
    account_id: int,
    begins_at: datetime | None,
    ends_at: datetime | None,
    versions: tuple[int, int] | None = None,
) -> Period:
    """The frame of [begins_at, ends_at) for a locked account, in one snapshot; None: since it was opened, until now.

    One without a beginning that ends before the account was opened is empty, and begins where it ends. `versions` are
    those of an earlier answer for the same period, which it then has again. Raises NotFound.
    """
    opening, closing = versions or (None, None)
    with translated():
        row = await conn.fetchrow(_PERIOD, account_id, begins_at, ends_at, opening, closing)
    if row is None:
        raise NotFound(f"there is no account {account_id} in the books", account_id=account_id)
    return Period(**row)


async def list_movements(
    conn: Connection, account_id: int, *, after_version: int, closing_version: int, limit: int
) -> list[Movement]:
    """Up to `limit` movements after a version, up to and including the closing one, oldest first."""
    with translated():
        rows = await conn.fetch(_MOVEMENTS, account_id, after_version, closing_version, limit)
    return [Movement(**row) for row in rows]


async def iterate_movements(pool: Pool, account_id: int, period: Period) -> AsyncGenerator[list[Movement], None]:
    """All movements of the period, page by page; no connection is held between two pages."""
    after, closing = period.opening_version, period.closing_version
    while after < closing:
        async with borrowed(pool) as conn:
            page = await list_movements(conn, account_id, after_version=after, closing_version=closing, limit=PAGE)
        if page:
            yield page
        if len(page) < PAGE:
            return
        after = page[-1].version


async def csv_statement(pool: Pool, account_id: int, period: Period) -> AsyncGenerator[str, None]:
    """The statement as CSV: a line "opening", the movements, a line "closing"; the amounts in between sum up."""
    yield csv_lines([COLUMNS, _frame(period.begins_at, "opening", period.opening_msat)])
    async with aclosing(iterate_movements(pool, account_id, period)) as pages:
        async for page in pages:
            yield csv_lines(_row(movement) for movement in page)
    yield csv_lines([_frame(period.ends_at, "closing", period.closing_msat)])


def _frame(at: datetime, kind: str, balance_msat: int) -> tuple[object, ...]:
    return (moment(at), kind, 0, 0, balance_msat, "", "", "", "")


def _row(movement: Movement) -> tuple[object, ...]:
    return (
        moment(movement.posted_at),
        movement.kind,
        movement.amount_msat,
        movement.fee_msat,
        movement.balance_msat,
        cell(movement.counterparty),
        cell(movement.memo),
        cell(movement.reference),
        cell(movement.transfer),
    )
