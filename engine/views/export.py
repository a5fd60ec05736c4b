"""The whole book as text, for other programs: CSV, one row per entry, or Beancount, one transaction per transfer.

Written while it is read: one snapshot, one cursor of Postgres, a few hundred entries in memory whatever the size of the
book. A reader that stops closes the generator, and with it cursor, transaction and connection. A reader that pauses for
a minute is cut off by Postgres (`idle_in_transaction_session_timeout`), so that nobody holds a snapshot open.

A period [from, to) begins with what every account had before it, as rows called "opening": so the sums per account and
layer of any export are the balances at its end.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from engine.ledger.database import Connection, Pool, snapshot
from engine.views import beancount
from engine.views.csv import cell, csv_lines, moment

Format = Literal["csv", "beancount"]

COLUMNS = (
    *("transfer", "phase", "template", "posted_at", "effective_on", "account", "kind", "currency", "layer", "amount"),
    *("actor", "workflow_id", "description"),
)
_CHUNK = 500
_TIMEOUT_S = 300
_OPENING = "opening"


@dataclass(frozen=True, slots=True, kw_only=True)
class BookEntry:
    """An entry with its transfer, debit +; `amount` is in the smallest unit of the currency, msat for BTC."""

    transfer_id: int
    transfer: str
    phase: str
    template: str
    posted_at: datetime
    effective_on: date
    code: str
    kind: str
    currency: str
    layer: str
    amount: int
    actor: str
    workflow_id: str | None
    description: str | None


@dataclass(slots=True)
class _Sums:
    """What has been written so far, per account and layer; for the assertions at the end."""

    amounts: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    last_day: date = date.min

    def add(self, name: str, entry: BookEntry) -> None:
        key = (name, entry.currency)
        self.amounts[key] = self.amounts.get(key, 0) + entry.amount
        self.last_day = max(self.last_day, _day(entry.posted_at))


_LAYER = "CASE e.layer WHEN 0 THEN 'settled' ELSE 'held' END AS layer"

_ENTRIES = f"""
SELECT t.id AS transfer_id, t.external_ref AS transfer, t.phase, t.template, e.posted_at, t.effective_on, a.code,
       a.kind, a.currency, {_LAYER}, e.amount, t.actor, t.workflow_id, t.description
  FROM ledger.entries e JOIN ledger.transfers t ON t.id = e.transfer_id JOIN ledger.accounts a ON a.id = e.account_id
 WHERE ($1::timestamptz IS NULL OR e.posted_at >= $1) AND ($2::timestamptz IS NULL OR e.posted_at < $2)
 ORDER BY e.transfer_id, e.account_id, e.layer"""  # noqa: S608 - constant

_BEFORE = f"""
SELECT 0 AS transfer_id, '{_OPENING}' AS transfer, '{_OPENING}' AS phase, '{_OPENING}' AS template,
       $1::timestamptz AS posted_at, ($1 AT TIME ZONE 'UTC')::date AS effective_on, a.code, a.kind, a.currency,
       {_LAYER}, sum(e.amount)::bigint AS amount, 'export' AS actor, NULL AS workflow_id, NULL AS description
  FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id
 WHERE e.posted_at < $1 GROUP BY a.id, e.layer HAVING sum(e.amount) <> 0 ORDER BY a.id, e.layer"""  # noqa: S608 - constant

_ACCOUNTS = """
SELECT code, kind, currency, opened_at FROM ledger.accounts a
 WHERE EXISTS (SELECT FROM ledger.entries e WHERE e.account_id = a.id AND ($1::timestamptz IS NULL OR e.posted_at < $1))
 ORDER BY id"""

# Entries in the order of an index, so that the first rows come at once and nothing is sorted on the way.
_PLAN = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"


async def export_book(
    pool: Pool, form: Format, begins_at: datetime | None, ends_at: datetime | None
) -> AsyncGenerator[str, None]:
    """The book of [begins_at, ends_at) as pieces of text. Close the generator when you stop before its end."""
    async with snapshot(pool) as conn:
        write = _write_csv if form == "csv" else _write_beancount
        async with aclosing(write(conn, begins_at, ends_at)) as pieces:
            async for piece in pieces:
                yield piece


async def _write_csv(
    conn: Connection, begins_at: datetime | None, ends_at: datetime | None
) -> AsyncGenerator[str, None]:
    yield csv_lines([COLUMNS])
    async with aclosing(_read(conn, begins_at, ends_at)) as chunks:
        async for chunk in chunks:
            yield csv_lines(_row(entry) for entry in chunk)


async def _write_beancount(
    conn: Connection, begins_at: datetime | None, ends_at: datetime | None
) -> AsyncGenerator[str, None]:
    yield 'option "title" "Millrace"\n\n'
    for account in await conn.fetch(_ACCOUNTS, ends_at, timeout=_TIMEOUT_S):
        names = [beancount.account_name(account["kind"], layer, account["code"]) for layer in beancount.LAYERS]
        yield "".join(beancount.open_line(_day(account["opened_at"]), name, account["currency"]) for name in names)
    yield "\n"
    sums = _Sums()
    legs: list[BookEntry] = []
    async with aclosing(_read(conn, begins_at, ends_at)) as chunks:
        async for chunk in chunks:
            pieces = []
            for entry in chunk:
                if legs and legs[0].transfer_id != entry.transfer_id:
                    pieces.append(_transaction(legs, sums))
                    legs = []
                legs.append(entry)
            yield "".join(pieces)
    if legs:
        yield _transaction(legs, sums)
        day = sums.last_day + timedelta(days=1)
        yield "".join(
            beancount.balance_line(day, name, amount, currency)
            for (name, currency), amount in sorted(sums.amounts.items())
        )


async def _read(
    conn: Connection, begins_at: datetime | None, ends_at: datetime | None
) -> AsyncGenerator[Sequence[BookEntry], None]:
    """What there was before, if the period has a beginning, then its entries, transfer by transfer."""
    if begins_at is not None:
        before = await conn.fetch(_BEFORE, begins_at, timeout=_TIMEOUT_S)
        yield [BookEntry(**row) for row in before]
    await conn.execute(_PLAN)
    cursor = await conn.cursor(_ENTRIES, begins_at, ends_at, timeout=_TIMEOUT_S)
    while rows := await cursor.fetch(_CHUNK, timeout=_TIMEOUT_S):
        yield [BookEntry(**row) for row in rows]


def _row(entry: BookEntry) -> tuple[object, ...]:
    return (
        cell(entry.transfer),
        entry.phase,
        cell(entry.template),
        moment(entry.posted_at),
        entry.effective_on.isoformat(),
        entry.code,
        entry.kind,
        entry.currency,
        entry.layer,
        entry.amount,
        cell(entry.actor),
        cell(entry.workflow_id),
        cell(entry.description),
    )


def _transaction(legs: Sequence[BookEntry], sums: _Sums) -> str:
    first = legs[0]
    named = [(beancount.account_name(leg.kind, leg.layer, leg.code), leg) for leg in legs]
    for name, leg in named:
        sums.add(name, leg)
    facts = {
        "ref": first.transfer,
        "phase": first.phase,
        "posted-at": moment(first.posted_at),
        "effective-on": first.effective_on.isoformat(),
        "actor": first.actor,
        **({"workflow": first.workflow_id} if first.workflow_id else {}),
    }
    return beancount.transaction(
        _day(first.posted_at),
        first.template,
        first.description or "",
        facts,
        [(name, leg.amount, leg.currency) for name, leg in named],
    )


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()
