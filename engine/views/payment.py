"""Payments as doors read them: one by its id, those of an account, and the answer of an idempotency key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.domain.ids import AccountId
from engine.ledger.database import Connection, translated
from engine.views.page import Listing

_COLUMNS = """p.id, p.wallet_id, p.kind, p.status, p.destination, p.amount_msat, p.delivered_msat, p.fee_msat,
    p.max_fee_msat, p.payment_hash, p.preimage, p.memo, p.external_id, p.failure_code, p.failure_detail, p.created_at,
    p.settled_at, p.workflow_id, p.batch_id, w.reason, w.detail AS wait_detail, w.needs_operator, w.since,
    CASE WHEN p.kind = 'lightning' AND p.status = 'settled' THEN
         (SELECT s.action FROM bank.success_actions s WHERE s.payment_id = p.id) END AS success_action"""
_SOURCE = "bank.payments p LEFT JOIN bank.payment_waits w ON w.payment_id = p.id AND p.status = 'pending'"
PAYMENTS = Listing(columns=_COLUMNS, source=_SOURCE, condition="p.account_id = $1", time="p.created_at", key="p.id")
"""The payments of account `$1`."""


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """The answer of an idempotency key: a refusal, or a payment."""

    body_hash: bytes
    refusal: object
    payment: dict[str, Any] | None
    """The row, with the columns above."""

    @property
    def is_final(self) -> bool:
        """Whether the answer never changes again."""
        return self.payment is None or self.payment["status"] != "pending"


async def find_payment(conn: Connection, payment_id: str) -> tuple[AccountId, dict[str, Any]] | None:
    """The payment with this id, and the account that pays."""
    with translated():
        row = await conn.fetchrow(f"SELECT p.account_id, {_COLUMNS} FROM {_SOURCE} WHERE p.id = $1", payment_id)  # noqa: S608 - constant
    if row is None:
        return None
    found = dict(row)
    return AccountId(found.pop("account_id")), found


async def find_answers(conn: Connection, keys: Sequence[tuple[AccountId, str]]) -> list[KeyAnswer | None]:
    """The answer of each account's key, in their order; None while no worker has opened its payment."""
    with translated():
        rows = await conn.fetch(
            f"""SELECT k.body_hash, k.refusal, {_COLUMNS}
                  FROM unnest((SELECT $1::text[]), (SELECT $2::text[])) WITH ORDINALITY o(account_id, key, place)
                  LEFT JOIN bank.idempotency_keys k ON k.account_id = o.account_id AND k.key = o.key
                  LEFT JOIN ({_SOURCE}) ON p.id = k.resource_id ORDER BY o.place""",  # noqa: S608 - constant
            [account_id for account_id, _key in keys],
            [key for _account_id, key in keys],
        )
    return [None if row["body_hash"] is None else _answer(dict(row)) for row in rows]


def _answer(row: dict[str, Any]) -> KeyAnswer:
    body_hash, refusal = row.pop("body_hash"), row.pop("refusal")
    return KeyAnswer(body_hash, refusal, row if row["id"] is not None else None)
