"""The row of an invoice, and the notes that its node must stop offering it.

`engine.ledger.postings.receipt` has the postings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.domain.fee import Charge
from engine.domain.ids import InvoiceId, NodeName, PaymentHash, PaymentId, WalletId
from engine.domain.money import Msat
from engine.ledger.database import Connection, change_any, change_rows, translated

_LONGEST_DELAY = timedelta(minutes=30)
_LONGEST_PROBLEM = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceRow:
    """An invoice as the bank has it."""

    id: InvoiceId
    wallet_id: WalletId
    node: NodeName
    bolt11: str
    payment_hash: PaymentHash
    amount_msat: Msat | None
    status: str
    expires_at: datetime
    paid_by: PaymentId | None
    outside_msat: Msat
    ledger_account_id: int
    """The payee's account in the books."""
    level: int
    """The payee's level."""
    fees_in_force: int
    """The version of the fee schedule in force when the row was read."""
    payee_closed: bool
    """Whether the payee's account is closed. Money that still comes then waits in suspense for an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An invoice that was paid from outside: the amount that came, and our fee out of it."""

    invoice: InvoiceRow
    amount_msat: Msat
    charge: Charge | None = None


async def find_rows_in_tx(conn: Connection, payment_hashes: Sequence[PaymentHash]) -> dict[PaymentHash, InvoiceRow]:
    """Our invoices of these hashes, locked until the transaction ends.

    Invoices are always locked before any balance, and in one order, so there is no deadlock.
    """
    with translated():
        rows = await conn.fetch(
            """SELECT i.id, i.wallet_id, i.node, i.bolt11, i.payment_hash, i.amount_msat, i.status, i.expires_at,
                      i.paid_by, i.outside_msat, w.ledger_account_id, a.level, b.closed AS payee_closed,
                      (SELECT max(version) FROM bank.rulebooks WHERE name = 'fees') AS fees_in_force
                 FROM bank.invoices i JOIN bank.wallets w ON w.id = i.wallet_id
                 JOIN bank.accounts a ON a.id = i.account_id
                 JOIN ledger.balances b ON b.account_id = w.ledger_account_id
                WHERE i.payment_hash = ANY($1) ORDER BY i.payment_hash FOR UPDATE OF i""",
            payment_hashes,
        )
    return {PaymentHash(row["payment_hash"]): InvoiceRow(**row) for row in rows}


async def find_row_in_tx(conn: Connection, payment_hash: PaymentHash) -> InvoiceRow | None:
    """The invoice of this hash, as `find_rows_in_tx`."""
    return (await find_rows_in_tx(conn, [payment_hash])).get(payment_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidInternally:
    """An invoice of one of our users, paid by another one."""

    invoice: InvoiceRow
    payment_id: PaymentId
    amount_msat: Msat


async def mark_paid_internally_in_tx(conn: Connection, paid: Sequence[PaidInternally]) -> None:
    """Mark invoices as settled in the ledger, and note that their nodes must cancel them."""
    if not paid:
        return
    with translated():
        await change_rows(
            conn,
            len(paid),
            """UPDATE bank.invoices i SET status = 'settled', received_msat = i.received_msat + p.amount_msat,
                   paid_by = p.payment_id, settled_at = coalesce(i.settled_at, clock_timestamp())
                 FROM unnest($1::text[], $2::text[], $3::bigint[]) p(id, payment_id, amount_msat)
                WHERE i.id = p.id AND i.status = 'open'""",
            [each.invoice.id for each in paid],
            [each.payment_id for each in paid],
            [each.amount_msat for each in paid],
        )
        await conn.execute(
            """INSERT INTO bank.node_cancellations(payment_hash, node)
               SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT (payment_hash) DO NOTHING""",
            [each.invoice.payment_hash for each in paid],
            [each.invoice.node for each in paid],
        )


async def mark_received_in_tx(conn: Connection, received: Sequence[Received]) -> None:
    """Mark invoices as settled from outside, whatever their status: the money has come. Stores our fees and rules."""
    await change_rows(
        conn,
        len(received),
        """UPDATE bank.invoices i SET status = 'settled', received_msat = i.received_msat + r.amount_msat,
               outside_msat = r.amount_msat, outside_at = clock_timestamp(), service_fee_msat = r.fee_msat,
               fee_version = r.version, fee_level = r.level,
               settled_at = coalesce(i.settled_at, clock_timestamp())
             FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::int[], $5::int[])
                  r(id, amount_msat, fee_msat, version, level)
            WHERE i.id = r.id AND i.outside_msat = 0""",
        [each.invoice.id for each in received],
        [each.amount_msat for each in received],
        [each.charge.fee_msat if each.charge else 0 for each in received],
        [each.charge and each.charge.version for each in received],
        [each.charge and each.charge.level for each in received],
    )


async def list_uncredited(conn: Connection, payment_hashes: Sequence[PaymentHash]) -> set[PaymentHash]:
    """Which of these receipts from outside are not in the books: neither credited nor in suspense."""
    with translated():
        rows = await conn.fetch(
            """SELECT h.payment_hash FROM unnest($1::text[]) h(payment_hash)
                 LEFT JOIN bank.invoices i ON i.payment_hash = h.payment_hash
                WHERE NOT EXISTS (SELECT FROM ledger.transfers t
                       WHERE t.external_ref = format(CASE WHEN i.paid_by IS NULL THEN 'ln:%s:recv'
                                                          ELSE 'ln:%s:recv:outside' END, h.payment_hash))""",
            payment_hashes,
        )
    return {PaymentHash(row["payment_hash"]) for row in rows}


async def mark_expired(conn: Connection, payment_hashes: list[PaymentHash]) -> None:
    """Mark open invoices as expired, which their node has closed without a payment. Others stay as they are."""
    await change_any(
        conn,
        "UPDATE bank.invoices SET status = 'expired' WHERE payment_hash = ANY($1) AND status = 'open'",
        payment_hashes,
    )


async def list_overdue(
    conn: Connection, node: NodeName, *, after: InvoiceId, grace_s: int, limit: int
) -> list[tuple[InvoiceId, PaymentHash]]:
    """A page of open invoices of this node that are past their expiry by the grace, in the order of their ids."""
    with translated():
        rows = await conn.fetch(
            """SELECT id, payment_hash FROM bank.invoices
                WHERE node = $1 AND status = 'open' AND id > $2
                  AND expires_at < clock_timestamp() - make_interval(secs => $3) ORDER BY id LIMIT $4""",
            node,
            after,
            grace_s,
            limit,
        )
    return [(InvoiceId(row["id"]), PaymentHash(row["payment_hash"])) for row in rows]


async def list_cancellations(conn: Connection, node: NodeName, limit: int) -> list[PaymentHash]:
    """Cancellations that are due at this node, the longest due first."""
    with translated():
        rows = await conn.fetch(
            """SELECT payment_hash FROM bank.node_cancellations
                WHERE node = $1 AND done_at IS NULL AND due_at <= clock_timestamp() ORDER BY due_at LIMIT $2""",
            node,
            limit,
        )
    return [PaymentHash(row["payment_hash"]) for row in rows]


async def put_cancellations_off(conn: Connection, problems: Mapping[PaymentHash, str]) -> None:
    """Note why these cancellations failed. The delay to the next try doubles, up to half an hour."""
    await change_any(
        conn,
        """UPDATE bank.node_cancellations c SET tries = c.tries + 1, problem = p.problem,
               due_at = clock_timestamp() + least($3::interval, interval '1 second' * power(2, least(c.tries, 20)))
             FROM unnest($1::text[], $2::text[]) p(payment_hash, problem)
            WHERE c.payment_hash = p.payment_hash AND c.done_at IS NULL""",
        list(problems),
        [problem[:_LONGEST_PROBLEM] for problem in problems.values()],
        _LONGEST_DELAY,
    )


async def mark_cancellations_done(conn: Connection, payment_hashes: Sequence[PaymentHash]) -> None:
    """Mark these cancellations as done: the invoices can no longer be paid at the node, or have been paid."""
    await change_any(
        conn,
        """UPDATE bank.node_cancellations SET done_at = clock_timestamp(), problem = NULL
            WHERE payment_hash = ANY($1)""",
        payment_hashes,
    )
