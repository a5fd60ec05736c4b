"""Invoices as doors read them, and what must be known before one is made.

Questions that come together are answered with one statement (`find_facts`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from engine.bank.idempotency import KeyRecord
from engine.bank.invoice_row import COLUMNS
from engine.domain.ids import AccountId, NodeName, WalletId
from engine.domain.money import Msat
from engine.ledger.database import Connection, Pool, translated
from engine.views.page import Listing

INVOICES = Listing(columns=COLUMNS, source="bank.invoices", condition="account_id = $1")
"""The invoices of an account."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """What a node could receive over Lightning, as it reported; None where it has not."""

    fresh: bool
    """Whether it has reported lately."""
    inbound_msat: Msat | None
    announced_msat: Msat | None
    """The part of it for which an invoice needs no route hint."""

    def needs_hints(self, amount_msat: Msat | None) -> bool:
        """Whether unannounced channels could bring in what announced channels cannot.

        Where the payer chooses the amount, that is everything the node could receive.
        """
        if self.announced_msat is None or self.inbound_msat is None:
            return True
        return self.announced_msat < min(self.inbound_msat, amount_msat or self.inbound_msat)

    def receivable_msat(self, *, hinted: bool) -> Msat | None:
        """The most that can come in for an invoice with, or without, hints."""
        return self.inbound_msat if hinted else self.announced_msat


UNKNOWN = Receiver(fresh=False, inbound_msat=None, announced_msat=None)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when an invoice is asked for."""

    status: str | None
    """The account's. None: the wallet belongs to another account."""
    known: KeyRecord | None
    """What the idempotency key stands for already."""
    nodes: Mapping[NodeName, Receiver]
    """What each node in the books could receive."""


_FACTS = """
SELECT a.status, k.body_hash, k.resource_id, k.refusal,
       (SELECT jsonb_object_agg(name, jsonb_build_array(
                   bank.has_reported(reported_at), inbound_msat, announced_inbound_msat))
          FROM bank.nodes) AS nodes
  FROM unnest((SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[]))
       WITH ORDINALITY o(account_id, wallet_id, key, place)
  LEFT JOIN bank.wallets w ON w.id = o.wallet_id AND w.account_id = o.account_id
  LEFT JOIN bank.accounts a ON a.id = w.account_id
  LEFT JOIN bank.idempotency_keys k ON k.account_id = o.account_id AND k.key = o.key ORDER BY o.place"""


async def find_facts(conn: Connection, asked: Sequence[tuple[AccountId, WalletId, str | None]]) -> list[Facts]:
    """Of each account with its wallet and the key of its request, in their order."""
    rows = await conn.fetch(
        _FACTS,
        [account_id for account_id, _wallet_id, _key in asked],
        [wallet_id for _account_id, wallet_id, _key in asked],
        [key for _account_id, _wallet_id, key in asked],
    )
    if not rows:
        return []
    nodes = {NodeName(name): Receiver(*told) for name, told in (rows[0]["nodes"] or {}).items()}
    return [Facts(row["status"], _known(row), nodes) for row in rows]


def _known(row: asyncpg.Record) -> KeyRecord | None:
    if row["body_hash"] is None:
        return None
    return KeyRecord(body_hash=row["body_hash"], resource_id=row["resource_id"], refusal=row["refusal"])


async def find_invoice(pool: Pool, account_id: AccountId, invoice_id: str) -> Mapping[str, Any] | None:
    """The invoice, if it belongs to this account."""
    with translated():
        row = await pool.fetchrow(
            f"SELECT {COLUMNS} FROM bank.invoices WHERE id = $1 AND account_id = $2",  # noqa: S608 - constant
            invoice_id,
            account_id,
        )
    return None if row is None else dict(row)


async def find_by_hash(pool: Pool, account_id: AccountId, payment_hash: str) -> tuple[Mapping[str, Any], Msat] | None:
    """The account's invoice with this payment hash, and how much of it was received over Lightning."""
    with translated():
        row = await pool.fetchrow(
            f"SELECT {COLUMNS}, outside_msat FROM bank.invoices WHERE payment_hash = $1 AND account_id = $2",  # noqa: S608 - constant
            payment_hash,
            account_id,
        )
    if row is None:
        return None
    known = dict(row)
    outside_msat = Msat(known.pop("outside_msat"))
    return known, outside_msat


async def find_node(conn: Connection, invoice_id: str) -> NodeName | None:
    """The node that made this invoice."""
    name: str | None = await conn.fetchval("SELECT node FROM bank.invoices WHERE id = $1", invoice_id)
    return None if name is None else NodeName(name)
