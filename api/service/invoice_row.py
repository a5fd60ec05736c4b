"""An invoice's row: what must be known before there is one, how it is written, and how it is shown.

What can come in over Lightning is its node's to say, and changes; so it is told with every look at an open invoice, and
refuses nothing: users of this bank pay an invoice without the node, and room may come before its end.

Those that are asked for at the same time are looked at with one statement, and written in one transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import asyncpg
from pydantic import BaseModel, Field

from engine.bank.idempotency import Claim, KeyRecord, claim_keys_in_tx
from engine.clients import bolt11
from engine.domain.errors import Conflict, Refused
from engine.domain.ids import AccountId, InvoiceId, NodeName, WalletId
from engine.domain.money import Msat, two_digits_floor
from engine.ledger.database import Connection

COLUMNS = """id, wallet_id, bolt11, payment_hash, amount_msat, received_msat, service_fee_msat AS fee_msat, status,
    memo, description_hash, external_id, expires_at, created_at, settled_at,
    (SELECT CASE WHEN invoices.route_hints > 0 THEN n.inbound_msat ELSE n.announced_inbound_msat END
       FROM bank.nodes n WHERE n.name = invoices.node) AS receivable_msat"""


class InvoiceWarningOut(BaseModel):
    """Why it may not be payable from outside this bank now. Users of this bank can still pay it."""

    code: Literal["above_inbound", "no_inbound"]
    detail: str


class InvoiceOut(BaseModel):
    """A request for money."""

    id: str
    wallet_id: str
    bolt11: str
    payment_hash: str
    amount_msat: int | None
    received_msat: int = Field(description="What was paid.")
    fee_msat: int = Field(description="Our fee, taken out of what was paid over Lightning.")
    status: Literal["open", "settled", "expired", "cancelled"]
    memo: str | None
    description_hash: str | None
    external_id: str | None
    expires_at: datetime
    created_at: datetime
    settled_at: datetime | None
    receivable_msat: int | None = Field(
        default=None,
        description="The most that its node could receive for it over Lightning, when it last reported, rounded down "
        "to two significant digits. null: unknown, or the invoice is no longer open.",
    )
    warning: InvoiceWarningOut | None = None


@dataclass(frozen=True, slots=True)
class Receiver:
    """What a node of ours could bring in, as it reported; None where it has not."""

    fresh: bool
    """Whether it has reported lately."""
    inbound_msat: Msat | None
    announced_msat: Msat | None
    """The part of it for which an invoice needs no hint."""

    def needs_hints(self, amount_msat: Msat | None) -> bool:
        """Whether others could bring in what announced channels cannot: where the payer chooses, all that there is."""
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
    """The account's. None: the wallet is not the account's."""
    known: KeyRecord | None
    """What the key stands for already."""
    nodes: Mapping[NodeName, Receiver]
    """What those could receive that our books answer for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvoice:
    """A row to be written, with the key of the request that asked for it, if it has one."""

    id: InvoiceId
    account_id: AccountId
    wallet_id: WalletId
    node: NodeName
    made: bolt11.Bolt11
    amount_msat: Msat | None
    memo: str | None
    description_hash: str | None
    external_id: str | None
    claim: Claim | None = None


async def find_facts(conn: Connection, asked: Sequence[tuple[AccountId, WalletId, str | None]]) -> list[Facts]:
    """Of each account with its wallet and the key of its request, in their order."""
    rows = await conn.fetch(
        """SELECT a.status, k.body_hash, k.resource_id, k.refusal,
                  (SELECT jsonb_object_agg(name, jsonb_build_array(
                              bank.has_reported(reported_at), inbound_msat, announced_inbound_msat))
                     FROM bank.nodes) AS nodes
             FROM unnest((SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[]))
                  WITH ORDINALITY o(account_id, wallet_id, key, place)
             LEFT JOIN bank.wallets w ON w.id = o.wallet_id AND w.account_id = o.account_id
             LEFT JOIN bank.accounts a ON a.id = w.account_id
             LEFT JOIN bank.idempotency_keys k ON k.account_id = o.account_id AND k.key = o.key ORDER BY o.place""",
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


async def insert_in_tx(conn: Connection, new: Sequence[NewInvoice]) -> list[InvoiceOut | None]:
    """Write each row with its key, in their order. None where the key stands for another one.

    The accounts are locked against whoever closes them: he sees this invoice, or this that one is closed. Raises
    Refused for a closed account and Conflict (`external_id_taken`); then none of them may be committed.
    """
    free = await _claim_in_tx(conn, new)
    rows = await _insert_in_tx(conn, [each for each in new if each.id in free])
    if any(each.id not in rows for each in new if each.id in free):
        raise closed()
    return [rows.get(each.id) if free.get(each.id) is each else None for each in new]


async def _claim_in_tx(conn: Connection, new: Sequence[NewInvoice]) -> dict[InvoiceId, NewInvoice]:
    """Those that have no key, or are the first with theirs, by id: who has the same key has the same id."""
    first: dict[InvoiceId, NewInvoice] = {}
    for each in new:
        first.setdefault(each.id, each)
    claims = [each.claim for each in first.values() if each.claim is not None]
    taken = await claim_keys_in_tx(conn, claims) if claims else []
    lost = {claim.resource_id for claim, ours in zip(claims, taken, strict=True) if not ours}
    return {invoice_id: each for invoice_id, each in first.items() if invoice_id not in lost}


async def _insert_in_tx(conn: Connection, new: Sequence[NewInvoice]) -> dict[InvoiceId, InvoiceOut]:
    if not new:
        return {}
    columns = zip(*(_values(each) for each in new), strict=True)
    try:
        rows = await conn.fetch(
            f"""INSERT INTO bank.invoices(id, account_id, wallet_id, node, bolt11, payment_hash, amount_msat, memo,
                    description_hash, external_id, expires_at, route_hints)
                SELECT o.id, a.id, o.wallet_id, o.node, o.bolt11, o.payment_hash, o.amount_msat, o.memo,
                       o.description_hash, o.external_id, o.expires_at, o.route_hints
                  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                              $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::smallint[])
                       AS o(id, account_id, wallet_id, node, bolt11, payment_hash, amount_msat, memo, description_hash,
                            external_id, expires_at, route_hints)
                  JOIN bank.accounts a ON a.id = o.account_id AND a.status <> 'closed' FOR SHARE OF a
                RETURNING {COLUMNS}""",  # noqa: S608 - constant
            *(list(column) for column in columns),
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "invoices_account_id_external_id_key":
            raise
        raise Conflict(
            "Another invoice of yours has this external_id.", code="external_id_taken", external_id=new[0].external_id
        ) from error
    return {InvoiceId(row["id"]): shown(dict(row)) for row in rows}


def _values(new: NewInvoice) -> tuple[object, ...]:
    return (
        *(new.id, new.account_id, new.wallet_id, new.node, new.made.bolt11, new.made.payment_hash, new.amount_msat),
        *(new.memo, new.description_hash, new.external_id, new.made.expires_at, len(new.made.route_hints)),
    )


def closed() -> Refused:
    """A closed account asks for no more money; a locked one still receives."""
    return Refused("This account is closed.", code="account_locked", account_status="closed")


def shown(row: Mapping[str, Any]) -> InvoiceOut:
    """An invoice of these columns, as it is now: one that is open past its expiry has expired."""
    known = {**row}
    if known["status"] == "open" and known["expires_at"] <= datetime.now(UTC):
        known["status"] = "expired"
    receivable_msat = known["receivable_msat"]
    if receivable_msat is not None:
        known["receivable_msat"] = two_digits_floor(receivable_msat) if known["status"] == "open" else None
    return InvoiceOut(**known, warning=_warning(known["amount_msat"], known["receivable_msat"]))


def _warning(amount_msat: int | None, receivable_msat: int | None) -> InvoiceWarningOut | None:
    """What its payer cannot know: that his payment could not come in."""
    if receivable_msat is None or receivable_msat >= (amount_msat or 1):
        return None
    if receivable_msat == 0:
        detail = "Its node can receive nothing over Lightning at the moment; users of this bank can still pay it."
        return InvoiceWarningOut(code="no_inbound", detail=detail)
    detail = (
        f"Its node can receive {receivable_msat:,} msat over Lightning at the moment, which is less than its amount; "
        "users of this bank can still pay it."
    )
    return InvoiceWarningOut(code="above_inbound", detail=detail)
