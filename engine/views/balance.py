"""Reading the books. Nothing here writes; every answer is one consistent snapshot of what has been committed.

Amounts are in the smallest unit of the account's currency (msat for BTC). Balances of one account are in its normal
direction, so that a user's money is positive; the trial balance is signed, debit +, so that it sums to zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from engine.domain.errors import NotFound
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """One account now: `available_msat` = settled less held out; `incoming_msat` is promised to it, not yet its own."""

    account_id: int
    code: str
    currency: str
    settled_msat: int
    held_out_msat: int
    incoming_msat: int
    version: int | None

    @property
    def available_msat(self) -> int:
        """What can be spent or promised now."""
        return self.settled_msat - self.held_out_msat


@dataclass(frozen=True, slots=True)
class TrialBalanceRow:
    """An account's sums, debit +."""

    account_id: int
    currency: str
    kind: str
    code: str
    settled_msat: int
    held_msat: int


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One leg in the books, debit +. `balance_after_msat` and `version` are of locked accounts only."""

    account_id: int
    code: str
    currency: str
    layer: str
    amount_msat: int
    balance_after_msat: int | None
    version: int | None
    posted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationFigures:
    """How the newest run that has ended found the books, and what waits for an operator."""

    status: str | None
    """None before the first run has ended."""
    age_s: int
    """Since it ended."""
    differences_msat: Mapping[str, int]
    """Books − place − in flight, by asset account."""
    open_cases: Mapping[str, int]
    """How many, by kind."""


_BALANCE = """
SELECT a.id AS account_id, a.code, a.currency, b.version,
       a.normal * coalesce(b.settled, e.settled)::bigint AS settled_msat,
       (CASE a.normal WHEN 1 THEN coalesce(b.held_cr, e.held_cr) ELSE coalesce(b.held_dr, e.held_dr) END)::bigint
           AS held_out_msat,
       (CASE a.normal WHEN 1 THEN coalesce(b.held_dr, e.held_dr) ELSE coalesce(b.held_cr, e.held_cr) END)::bigint
           AS incoming_msat
  FROM ledger.accounts a LEFT JOIN ledger.balances b ON b.account_id = a.id
  LEFT JOIN LATERAL (
       SELECT coalesce(sum(amount) FILTER (WHERE layer = 0), 0) AS settled,
              coalesce(sum(amount) FILTER (WHERE layer = 1 AND (phase = 'hold') = (amount > 0)), 0) AS held_dr,
             -coalesce(sum(amount) FILTER (WHERE layer = 1 AND (phase = 'hold') = (amount < 0)), 0) AS held_cr
         FROM ledger.entries JOIN ledger.transfers t ON t.id = transfer_id
        WHERE account_id = a.id AND b.account_id IS NULL
       ) e ON true
 WHERE a.id = $1"""

# A locked account has its sums now in its balance row; the rest is its last closing and the entries since.
_SUMS = """
  FROM ledger.accounts a LEFT JOIN ledger.balances b ON b.account_id = a.id AND $1::timestamptz IS NULL
  LEFT JOIN LATERAL ledger.sums_at(a.id, coalesce($1, 'infinity')) s ON b.account_id IS NULL"""

_TRIAL_BALANCE = f"""
SELECT a.id AS account_id, a.currency, a.kind, a.code, coalesce(b.settled, s.settled) AS settled_msat,
       coalesce(b.held_dr - b.held_cr, s.held) AS held_msat
  {_SUMS} ORDER BY a.currency, a.code"""

_TRIAL_BALANCE_OF_USERS_TOGETHER = f"""
SELECT min(a.id) AS account_id, a.currency, a.kind,
       CASE WHEN a.code LIKE 'liab:user:%' THEN 'liab:user:*' ELSE a.code END AS code,
       sum(coalesce(b.settled, s.settled))::bigint AS settled_msat,
       sum(coalesce(b.held_dr - b.held_cr, s.held))::bigint AS held_msat
  {_SUMS} GROUP BY 2, 3, 4 ORDER BY 2, 4"""

_BALANCE_THEN = f"""
SELECT a.id AS account_id, a.currency, a.kind, a.code, coalesce(b.settled, s.settled) AS settled_msat,
       coalesce(b.held_dr - b.held_cr, s.held) AS held_msat
  {_SUMS} WHERE a.code = $2"""

_ENTRIES = """
SELECT e.account_id, a.code, e.currency, CASE e.layer WHEN 0 THEN 'settled' ELSE 'held' END AS layer,
       e.amount AS amount_msat, e.balance_after AS balance_after_msat, e.version, e.posted_at
  FROM ledger.transfers t JOIN ledger.entries e ON e.transfer_id = t.id JOIN ledger.accounts a ON a.id = e.account_id
 WHERE t.external_ref = $1 ORDER BY e.seq"""

_DUE_HOLDS = """
SELECT external_ref FROM ledger.transfers t
 WHERE expires_at <= clock_timestamp() AND NOT EXISTS (SELECT FROM ledger.resolutions r WHERE r.target_id = t.id)
 ORDER BY expires_at LIMIT $1"""


async def get_balance(conn: Connection, account_id: int) -> AccountBalance:
    """One account as it stands: one row read for a locked account, a sum over its entries for an append account.

    Raises NotFound.
    """
    with translated():
        row = await conn.fetchrow(_BALANCE, account_id)
    if row is None:
        raise NotFound(f"there is no account {account_id} in the books", account_id=account_id)
    return AccountBalance(**row)


async def get_balance_at(conn: Connection, account_id: int, at: datetime) -> int:
    """What was settled on an account at a moment, in msat, debit +: a user's money is negative here.

    Exact once every transaction that was open at that moment has ended. Raises NotFound.
    """
    with translated():
        balance: int | None = await conn.fetchval(
            "SELECT ledger.balance_at(id, $2) FROM ledger.accounts WHERE id = $1", account_id, at
        )
    if balance is None:
        raise NotFound(f"there is no account {account_id} in the books", account_id=account_id)
    return balance


async def find_balance_then(conn: Connection, code: str, at: datetime | None = None) -> TrialBalanceRow | None:
    """One account's sums, debit +, now or at a moment: its row of the trial balance. None without such an account."""
    with translated():
        row = await conn.fetchrow(_BALANCE_THEN, at, code)
    return None if row is None else TrialBalanceRow(**row)


async def list_trial_balance(
    conn: Connection, at: datetime | None = None, *, users_together: bool = False
) -> list[TrialBalanceRow]:
    """Every account with its sums, now or at a moment; per currency they sum to zero.

    `users_together` makes one row `liab:user:*` of all users' accounts. Reads a row per account, and for accounts
    without a balance row, and for moments of the past, the entries since their last closing.
    """
    query = _TRIAL_BALANCE_OF_USERS_TOGETHER if users_together else _TRIAL_BALANCE
    with translated():
        return [TrialBalanceRow(**row) for row in await conn.fetch(query, at)]


async def has_more_accounts(conn: Connection, count: int) -> bool:
    """Whether the books have more accounts than that; reads no more of them than it must."""
    with translated():
        found: bool = await conn.fetchval("SELECT EXISTS (SELECT FROM ledger.accounts OFFSET $1)", count)
    return found


async def list_entries(conn: Connection, ref: str) -> list[EntryRow]:
    """The legs of the transfer with this reference, in the order they were written; empty when there is none."""
    with translated():
        return [EntryRow(**row) for row in await conn.fetch(_ENTRIES, ref)]


async def list_due_holds(conn: Connection, limit: int = 100) -> list[str]:
    """References of open holds past their `expires_at`, the oldest first: for whoever posts their `expire`."""
    with translated():
        return [row["external_ref"] for row in await conn.fetch(_DUE_HOLDS, limit)]


async def read_reconciliation_figures(conn: Connection) -> ReconciliationFigures:
    """Of the newest run that has ended, and of all cases that nobody has explained. Raises Unavailable."""
    with translated():
        last = await conn.fetchrow(
            """SELECT status, report, extract(epoch FROM clock_timestamp() - finished_at)::bigint AS age_s
                 FROM bank.reconciliations WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1"""
        )
        cases = await conn.fetch("SELECT kind, count(*) FROM bank.cases WHERE status = 'open' GROUP BY kind")
    accounts = last["report"]["accounts"] if last else []
    return ReconciliationFigures(
        status=last["status"] if last else None,
        age_s=last["age_s"] if last else 0,
        differences_msat={each["account"]: each["difference_msat"] for each in accounts},
        open_cases={row["kind"]: row["count"] for row in cases},
    )
