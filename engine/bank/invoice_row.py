"""An invoice's row for its owner: made, cancelled. Payments of invoices are in invoice.py.

Requests that come together are written in one transaction. The amount that a node can receive over Lightning changes,
so it is read with every read of an invoice and is not stored in the row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from engine.bank.idempotency import Claim, claim_keys_in_tx
from engine.clients.bolt11 import Bolt11
from engine.domain.errors import Conflict, Refused
from engine.domain.ids import AccountId, InvoiceId, NodeName, WalletId
from engine.domain.money import Msat
from engine.ledger.database import Connection, change_any, translated

COLUMNS = """id, wallet_id, bolt11, payment_hash, amount_msat, received_msat, service_fee_msat AS fee_msat, status,
    memo, description_hash, external_id, expires_at, created_at, settled_at,
    (SELECT CASE WHEN invoices.route_hints > 0 THEN n.inbound_msat ELSE n.announced_inbound_msat END
       FROM bank.nodes n WHERE n.name = invoices.node) AS receivable_msat"""
"""What an account sees of its invoice, with the most that its node could receive now."""

_INSERT = f"""
INSERT INTO bank.invoices(id, account_id, wallet_id, node, bolt11, payment_hash, amount_msat, memo, description_hash,
       external_id, expires_at, route_hints)
SELECT o.id, a.id, o.wallet_id, o.node, o.bolt11, o.payment_hash, o.amount_msat, o.memo, o.description_hash,
       o.external_id, o.expires_at, o.route_hints
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
              $9::text[], $10::text[], $11::timestamptz[], $12::smallint[])
       AS o(id, account_id, wallet_id, node, bolt11, payment_hash, amount_msat, memo, description_hash, external_id,
            expires_at, route_hints)
  JOIN bank.accounts a ON a.id = o.account_id AND a.status <> 'closed' FOR SHARE OF a
RETURNING {COLUMNS}"""  # noqa: S608 - constant


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvoice:
    """A row to be written, with the key of the request that asked for it, if it has one."""

    id: InvoiceId
    account_id: AccountId
    wallet_id: WalletId
    node: NodeName
    made: Bolt11
    amount_msat: Msat | None
    memo: str | None
    description_hash: str | None
    external_id: str | None
    claim: Claim | None = None


async def insert_in_tx(conn: Connection, new: Sequence[NewInvoice]) -> list[Mapping[str, Any] | None]:
    """Write each row with its key. Returns the rows in their order; None: the key stands for another invoice.

    The accounts are locked against closing: either whoever closes one sees this invoice, or this call sees that the
    account is closed. Raises Refused for a closed account and Conflict (`external_id_taken`); the transaction must then
    end.
    """
    free = await _claim_in_tx(conn, new)
    rows = await _insert_in_tx(conn, [each for each in new if each.id in free])
    if any(each.id not in rows for each in new if each.id in free):
        raise closed()
    return [rows.get(each.id) if free.get(each.id) is each else None for each in new]


async def _claim_in_tx(conn: Connection, new: Sequence[NewInvoice]) -> dict[InvoiceId, NewInvoice]:
    """The invoices without a key or first with their key, by id. Requests with the same key have the same id."""
    first: dict[InvoiceId, NewInvoice] = {}
    for each in new:
        first.setdefault(each.id, each)
    claims = [each.claim for each in first.values() if each.claim is not None]
    taken = await claim_keys_in_tx(conn, claims) if claims else []
    lost = {claim.resource_id for claim, ours in zip(claims, taken, strict=True) if not ours}
    return {invoice_id: each for invoice_id, each in first.items() if invoice_id not in lost}


async def _insert_in_tx(conn: Connection, new: Sequence[NewInvoice]) -> dict[InvoiceId, Mapping[str, Any]]:
    if not new:
        return {}
    columns = zip(*(_values(each) for each in new), strict=True)
    try:
        rows = await conn.fetch(_INSERT, *(list(column) for column in columns))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "invoices_account_id_external_id_key":
            raise
        raise Conflict(
            "Another invoice of yours has this external_id.", code="external_id_taken", external_id=new[0].external_id
        ) from error
    return {InvoiceId(row["id"]): dict(row) for row in rows}


def _values(new: NewInvoice) -> tuple[object, ...]:
    return (
        *(new.id, new.account_id, new.wallet_id, new.node, new.made.bolt11, new.made.payment_hash, new.amount_msat),
        *(new.memo, new.description_hash, new.external_id, new.made.expires_at, len(new.made.route_hints)),
    )


async def cancel_in_tx(conn: Connection, invoice_id: InvoiceId) -> None:
    """Cancel the invoice, unless it has expired or was cancelled before.

    Raises Refused when a user of this bank has paid it since its node cancelled it.
    """
    await change_any(
        conn,
        """UPDATE bank.invoices SET status = 'cancelled'
            WHERE id = $1 AND status = 'open' AND expires_at > clock_timestamp()""",
        invoice_id,
    )
    if await conn.fetchval("SELECT status FROM bank.invoices WHERE id = $1", invoice_id) == "settled":
        raise paid()


async def cancel_all_in_tx(conn: Connection, account_id: AccountId) -> int:
    """Cancel the account's open invoices, and note that their nodes must cancel them too. Returns how many.

    Invoices are always locked before any balance. An invoice that is being paid now is waited for and stays paid.
    """
    with translated():
        count: int = await conn.fetchval(
            """WITH cancelled AS (
                   UPDATE bank.invoices SET status = 'cancelled' WHERE account_id = $1 AND status = 'open'
                   RETURNING payment_hash, node
               ), noted AS (
                   INSERT INTO bank.node_cancellations(payment_hash, node) SELECT payment_hash, node FROM cancelled
                   ON CONFLICT (payment_hash) DO NOTHING
               ) SELECT count(*) FROM cancelled""",
            account_id,
        )
    return count


def closed() -> Refused:
    """A closed account makes no invoices; a locked one still receives."""
    return Refused("This account is closed.", code="account_locked", account_status="closed")


def paid() -> Refused:
    """The invoice has been paid, so it cannot be cancelled."""
    return Refused("This invoice has been paid; it cannot be cancelled any more.", code="invoice_already_paid")
