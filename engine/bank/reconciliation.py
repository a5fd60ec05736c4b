"""What a reconciliation reads from the books, and where it stores what it found. It posts nothing.

cut      balances of a node's accounts, and what they are made of at the same moment
runs     bank.reconciliations, one row each
cases    bank.cases, one per difference until it is explained and gone, with an append-only trail
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from engine.domain.ids import CaseId, NodeName, PaymentHash, ReconciliationId, new_id
from engine.ledger import chart
from engine.ledger.database import Connection, change_any, change_one, translated

ACTOR = "reconciliation"
_MANY = 100
_PATIENCE_S = 300
"""The time-out of a look at all holds; other statements have seconds."""


# The cut


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksCut:
    """The accounts of a node at one moment."""

    channels_msat: int
    commit_escrow_msat: int
    onchain_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A payment for which money is held."""

    id: str
    payment_hash: PaymentHash
    amount_msat: int
    workflow_id: str
    created_at: datetime
    age_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterparts:
    """What the books know of the node's payments and invoices."""

    booked: dict[str, int]
    """By reference of the transfer, its entry on the node's channels, debit +."""
    pending: dict[PaymentHash, Pending]
    released: set[PaymentHash]
    """Hashes whose payment failed in the bank, so that its money was released."""


async def _read_cut(conn: Connection, node: NodeName) -> BooksCut:
    codes = [chart.channels(node), chart.commit_escrow(node), chart.onchain(node)]
    with translated():
        rows = await conn.fetch(
            """SELECT a.code, s.settled AS settled_msat
                 FROM ledger.accounts a CROSS JOIN LATERAL ledger.sums_at(a.id, 'infinity') s
                WHERE a.code = ANY($1)""",
            codes,
        )
    settled_msat = {row["code"]: row["settled_msat"] for row in rows}
    channels, escrow, onchain = (settled_msat.get(code, 0) for code in codes)
    return BooksCut(channels_msat=channels, commit_escrow_msat=escrow, onchain_msat=onchain)


async def read_counterparts(
    conn: Connection, node: NodeName, since: datetime, refs: Sequence[str]
) -> tuple[BooksCut, Counterparts]:
    """The node's accounts, and in the same snapshot what is booked on its channels under these references or since that
    time, and its pending payments.
    """
    hashes = sorted({ref.split(":")[1] for ref in refs})
    with translated():
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            cut = await _read_cut(conn, node)
            booked = await conn.fetch(
                """WITH channels AS (SELECT id FROM ledger.accounts WHERE code = $1)
                   SELECT t.external_ref AS ref, e.amount AS amount_msat
                     FROM ledger.transfers t JOIN ledger.entries e ON e.transfer_id = t.id
                    WHERE t.external_ref = ANY($2) AND e.layer = 0 AND e.account_id = (SELECT id FROM channels)
                   UNION
                   SELECT t.external_ref, e.amount
                     FROM ledger.entries e JOIN ledger.transfers t ON t.id = e.transfer_id
                    WHERE e.account_id = (SELECT id FROM channels) AND e.layer = 0 AND e.posted_at >= $3""",
                chart.channels(node),
                list(refs),
                since,
            )
            pending = await conn.fetch(
                """SELECT id, payment_hash, amount_msat, workflow_id, created_at,
                          extract(epoch FROM clock_timestamp() - created_at)::bigint AS age_s
                     FROM bank.payments WHERE node = $1 AND status = 'pending'""",
                node,
            )
            failed = await conn.fetch(
                """SELECT DISTINCT payment_hash FROM bank.payments
                    WHERE node = $1 AND status = 'failed' AND payment_hash = ANY($2)""",
                node,
                hashes,
            )
    return cut, Counterparts(
        booked={row["ref"]: row["amount_msat"] for row in booked},
        pending={PaymentHash(row["payment_hash"]): Pending(**row) for row in pending},
        released={PaymentHash(row["payment_hash"]) for row in failed},
    )


async def is_pending(conn: Connection, payment_id: str) -> bool:
    """Whether this payment's money is still held."""
    with translated():
        return bool(
            await conn.fetchval("SELECT true FROM bank.payments WHERE id = $1 AND status = 'pending'", payment_id)
        )


async def list_nodes(conn: Connection) -> list[NodeName]:
    """Every node that is in the books."""
    with translated():
        return [NodeName(row["name"]) for row in await conn.fetch("SELECT name FROM bank.nodes ORDER BY name")]


# The books against themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Loose:
    """A hold without its payment, a payment without its hold, or an overdue cancellation."""

    ref: str
    amount_msat: int
    detail: str


async def list_loose_holds(conn: Connection) -> tuple[list[Loose], list[Loose]]:
    """(open Lightning holds that belong to no pending payment, pending payments for which nothing is held).

    One statement: a payment's row and its hold change in one transaction, so no moment lies between them.
    """
    with translated():
        rows = await conn.fetch(
            """WITH holds AS (
                   SELECT t.external_ref AS ref, (SELECT sum(amount) FROM ledger.entries e
                           WHERE e.transfer_id = t.id AND e.layer = 1 AND e.amount > 0)::bigint AS amount_msat
                     FROM ledger.transfers t WHERE t.phase = 'hold' AND t.external_ref LIKE 'ln:%:hold:%'
                      AND NOT EXISTS (SELECT FROM ledger.resolutions r WHERE r.target_id = t.id)),
               waiting AS (
                   SELECT id, format('ln:%s:hold:%s', payment_hash, attempt) AS ref,
                          amount_msat + max_fee_msat AS amount_msat
                     FROM bank.payments WHERE status = 'pending')
               SELECT h.ref AS hold, w.id AS payment, coalesce(h.amount_msat, w.amount_msat) AS amount_msat
                 FROM holds h FULL JOIN waiting w ON w.ref = h.ref
                WHERE h.ref IS NULL OR w.ref IS NULL LIMIT $1""",
            _MANY,
            timeout=_PATIENCE_S,
        )
    holds = [
        Loose(ref=row["hold"], amount_msat=row["amount_msat"], detail="held, and no payment is pending for it")
        for row in rows
        if row["hold"] is not None
    ]
    payments = [
        Loose(ref=row["payment"], amount_msat=row["amount_msat"], detail="pending, and nothing is held for it")
        for row in rows
        if row["hold"] is None
    ]
    return holds, payments


async def list_overdue_cancellations(conn: Connection, grace: timedelta) -> list[Loose]:
    """Invoices that were settled in the ledger longer ago, and that the node may still offer."""
    with translated():
        rows = await conn.fetch(
            """SELECT c.payment_hash, c.node, c.created_at, c.problem, i.received_msat
                 FROM bank.node_cancellations c JOIN bank.invoices i USING (payment_hash)
                WHERE c.done_at IS NULL AND c.created_at < clock_timestamp() - $1::interval
                ORDER BY c.created_at LIMIT $2""",
            grace,
            _MANY,
        )
    return [
        Loose(
            ref=row["payment_hash"],
            amount_msat=row["received_msat"],
            detail=f"settled in the ledger at {row['created_at']:%F %R} UTC, not yet cancelled at {row['node']}"
            + (f": {row['problem']}" if row["problem"] else ""),
        )
        for row in rows
    ]


# Runs and cases


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCase:
    """A case before it is opened: its name, amount, text and suspects."""

    kind: str
    account: str
    subject: str
    amount_msat: int
    detail: str
    suspects: list[dict[str, Any]]

    @property
    def name(self) -> tuple[str, str, str]:
        """The name by which a later run finds the same case again."""
        return self.kind, self.account, self.subject


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRow(NewCase):
    """A case as it is stored."""

    id: CaseId
    status: str


async def begin_in_tx(conn: Connection, run: ReconciliationId, workflow_id: str) -> bool:
    """Write that the run begins. False for a repeat, which finds the run."""
    with translated():
        begun: str | None = await conn.fetchval(
            "INSERT INTO bank.reconciliations(id, workflow_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id",
            run,
            workflow_id,
        )
    return begun is not None


async def find_status_in_tx(conn: Connection, run: ReconciliationId) -> str | None:
    """The run's status; the row stays locked until the transaction ends."""
    with translated():
        status: str | None = await conn.fetchval(
            "SELECT status FROM bank.reconciliations WHERE id = $1 FOR UPDATE", run
        )
    return status


async def finish_in_tx(conn: Connection, run: ReconciliationId, *, status: str, report: dict[str, Any]) -> None:
    """Store the report and the status of a run. A repeat changes nothing."""
    await change_any(
        conn,
        """UPDATE bank.reconciliations SET status = $2, report = $3, finished_at = clock_timestamp()
            WHERE id = $1 AND status = 'running'""",
        run,
        status,
        report,
    )


async def see_known_in_tx(
    conn: Connection, run: ReconciliationId, names: Sequence[tuple[str, str, str]]
) -> dict[tuple[str, str, str], str]:
    """Note which of these (kind, account, subject) are known cases that had not vanished. Returns their statuses."""
    with translated():
        rows = await conn.fetch(
            """UPDATE bank.cases c SET last_seen = $4 FROM unnest($1::text[], $2::text[], $3::text[]) f(k, a, s)
                WHERE (c.kind, c.account, c.subject) = (f.k, f.a, f.s) AND c.status <> 'closed' AND NOT c.vanished
               RETURNING c.kind, c.account, c.subject, c.status""",
            [kind for kind, _account, _subject in names],
            [account for _kind, account, _subject in names],
            [subject for _kind, _account, subject in names],
            run,
        )
    return {(row["kind"], row["account"], row["subject"]): str(row["status"]) for row in rows}


async def see_case_in_tx(conn: Connection, run: ReconciliationId, new: NewCase) -> str:
    """Open the case, or find it. Returns its status. A case that had vanished is noted as found again."""
    with translated():
        case_id = await conn.fetchval(
            """INSERT INTO bank.cases(id, kind, account, subject, amount_msat, detail, suspects, run, last_seen)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
               ON CONFLICT (kind, account, subject) WHERE status <> 'closed' DO NOTHING RETURNING id""",
            new_id("case"),
            *asdict(new).values(),
            run,
        )
        if case_id is not None:
            await _note_in_tx(conn, case_id, "opened", ACTOR, new.detail)
            return "open"
        known = await conn.fetchrow(
            """SELECT id, status, vanished FROM bank.cases
                WHERE (kind, account, subject) = ($1, $2, $3) AND status <> 'closed' FOR UPDATE""",
            new.kind,
            new.account,
            new.subject,
        )
        if known is None:
            return await see_case_in_tx(conn, run, new)
        if known["vanished"]:
            await _note_in_tx(conn, known["id"], "found_again", ACTOR, new.detail)
        await change_one(conn, "UPDATE bank.cases SET last_seen = $2, vanished = false WHERE id = $1", known["id"], run)
    return str(known["status"])


async def note_vanished_in_tx(conn: Connection, run: ReconciliationId, *, unseen: Sequence[str]) -> None:
    """Note the cases that this run did not find. An open case is noted as vanished, and an explained one is closed.

    Only a run that began after the one that last saw a case counts. `unseen` are prefixes of account codes about which
    this run can say nothing.
    """
    with translated():
        gone = await conn.fetch(
            """SELECT id, status FROM bank.cases
                WHERE status <> 'closed' AND (NOT vanished OR status = 'explained')
                  AND (SELECT created_at FROM bank.reconciliations WHERE id = last_seen)
                    < (SELECT created_at FROM bank.reconciliations WHERE id = $1)
                  AND NOT EXISTS (SELECT FROM unnest($2::text[]) place WHERE starts_with(account, place)) FOR UPDATE""",
            run,
            list(unseen),
        )
        for case in gone:
            closes = case["status"] == "explained"
            await change_one(
                conn,
                """UPDATE bank.cases SET vanished = true, status = CASE WHEN $2 THEN 'closed' ELSE status END
                    WHERE id = $1""",
                case["id"],
                closes,
            )
            note = f"{run} does not find it any more"
            await _note_in_tx(conn, case["id"], "closed" if closes else "vanished", ACTOR, note)


async def list_open_cases(conn: Connection) -> list[CaseRow]:
    """The cases that nobody has explained, the oldest first, at most a hundred."""
    with translated():
        rows = await conn.fetch(
            """SELECT id, kind, account, subject, amount_msat, detail, suspects, status FROM bank.cases
                WHERE status = 'open' ORDER BY created_at, id LIMIT $1""",
            _MANY,
        )
    return [CaseRow(**row) for row in rows]


async def explain_in_tx(conn: Connection, case: CaseId, *, operator: str, reason: str) -> bool:
    """Store an operator's explanation. False when there is one already, which stays."""
    with translated():
        explained = await conn.fetchval(
            """UPDATE bank.cases SET status = 'explained', note = $3, resolved_by = $2, resolved_at = clock_timestamp()
                WHERE id = $1 AND status = 'open' RETURNING id""",
            case,
            operator,
            reason,
        )
        if explained is None:
            return False
        await _note_in_tx(conn, case, "explained", operator, reason)
    return True


async def _note_in_tx(conn: Connection, case: str, event: str, actor: str, note: str) -> None:
    await conn.execute(
        "INSERT INTO bank.case_updates(case_id, event, actor, note) VALUES ($1, $2, $3, $4)", case, event, actor, note
    )
