"""The row of a payment. `engine.ledger.postings.payment` has its postings.

Row and posting are written in one transaction, so they cannot disagree: a row is `pending` exactly while its hold is
open. One class describes the row. Its columns, their types, the statements and the values follow from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from types import NoneType
from typing import Any, get_args, get_type_hints

from engine.contracts.payment import PaymentRequest, PaymentStatus
from engine.domain.errors import InvariantBroken
from engine.domain.fee import Charge
from engine.domain.ids import AccountId, BatchId, NodeName, PaymentHash, PaymentId, WalletId
from engine.domain.money import Msat
from engine.domain.payment import Payment
from engine.ledger.database import Connection, change_any, change_one, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayment(Payment):
    """A payment's row when it is written: one column per field, those of `Payment` included."""

    account_id: AccountId
    wallet_id: WalletId
    kind: str
    status: str
    destination: str
    bolt11: str | None = None
    amount_in_invoice: bool = False
    external_id: str | None = None
    payee_wallet_id: WalletId | None = None
    node: NodeName | None = None
    known_payment_index: int = 0
    batch_id: BatchId | None = None
    batch_place: int | None = None
    """The place in its batch, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRow(NewPayment):
    """A payment's row as it is read."""

    ledger_account_id: int
    """The ledger account of the wallet that pays."""
    delivered_msat: Msat | None
    """What the payee has taken, if it is not the amount."""


def new_internal(asked: PaymentRequest, charge: Charge, payee: WalletId, workflow_id: str) -> NewPayment:
    """The row of a payment between our users: settled when it is written."""
    return NewPayment(
        **_asked(asked, charge),
        kind="internal",
        status=PaymentStatus.SETTLED,
        max_fee_msat=charge.fee_msat,
        payee_wallet_id=payee,
        workflow_id=workflow_id,
    )


def new_lightning(
    asked: PaymentRequest,
    charge: Charge,
    sender: NodeName,
    *,
    max_fee_msat: Msat,
    attempt: int,
    known_payment_index: int,
    workflow_id: str,
) -> NewPayment:
    """The row of a payment over Lightning, pinned to this node: pending when it is written."""
    return NewPayment(
        **_asked(asked, charge),
        kind="lightning",
        status=PaymentStatus.PENDING,
        max_fee_msat=max_fee_msat,
        node=sender,
        attempt=attempt,
        known_payment_index=known_payment_index,
        workflow_id=workflow_id,
    )


_COPIED = (
    *("account_id", "wallet_id", "destination", "amount_msat", "payment_hash", "bolt11", "amount_in_invoice", "memo"),
    "external_id",
)
"""The columns that are copied from the request, under the same name."""


def _asked(asked: PaymentRequest, charge: Charge) -> dict[str, Any]:
    return {
        "id": asked.payment_id,
        **{name: getattr(asked, name) for name in _COPIED},
        "service_fee_msat": charge.fee_msat,
        "fee_version": charge.version,
        "fee_level": charge.level,
    }


_SQL_TYPES = {str: "text", int: "bigint", bool: "boolean"}


def _array_type(hint: Any) -> str:  # noqa: ANN401 - a type
    """The SQL type: `text[]` for str, its NewTypes, and each of them or None. Postgres narrows a bigint by itself."""
    (base,) = [each for each in get_args(hint) or (hint,) if each is not NoneType]
    return _SQL_TYPES[getattr(base, "__supertype__", base)] + "[]"


_TYPES = {name: _array_type(hint) for name, hint in get_type_hints(NewPayment).items()}
_COLUMNS = tuple(field.name for field in fields(NewPayment))
_ADD_ROWS = f"""
INSERT INTO bank.payments({", ".join(_COLUMNS)}, fee_msat, settled_at)
SELECT n.*, CASE n.status WHEN 'settled' THEN n.service_fee_msat ELSE 0 END,
       CASE n.status WHEN 'settled' THEN clock_timestamp() END
  FROM unnest({", ".join(f"${at}::{_TYPES[name]}" for at, name in enumerate(_COLUMNS, 1))})
       AS n({", ".join(_COLUMNS)})
ON CONFLICT (payment_hash) WHERE status IN ('pending', 'settled') DO NOTHING RETURNING id"""  # noqa: S608 - constant
_GET_ROW = f"""SELECT {", ".join(f"p.{name}" for name in _COLUMNS)}, w.ledger_account_id, p.delivered_msat
    FROM bank.payments p JOIN bank.wallets w ON w.id = p.wallet_id
    WHERE p.id = $1 FOR UPDATE OF p"""  # noqa: S608 - constant

_OPENERS_OWN = timedelta(seconds=10)
"""The time for which a payment's opener may be sending it. The opener stops after half of it."""


async def add_rows_in_tx(conn: Connection, payments: Sequence[NewPayment]) -> set[PaymentId]:
    """Write the rows. Returns their ids. A row whose hash a pending or settled payment has is left out: one invoice is
    paid once."""
    if not payments:
        return set()
    with translated():
        added = await conn.fetch(_ADD_ROWS, *([getattr(payment, name) for payment in payments] for name in _COLUMNS))
    return {PaymentId(row["id"]) for row in added}


async def add_success_action_in_tx(conn: Connection, payment_id: PaymentId, action: Mapping[str, str]) -> None:
    """Store what the payer is shown once the payment is settled."""
    with translated():
        await conn.execute(
            "INSERT INTO bank.success_actions(payment_id, action) VALUES ($1, $2)", payment_id, dict(action)
        )


async def get_row_in_tx(conn: Connection, payment_id: PaymentId) -> PaymentRow:
    """The row, locked until the transaction ends."""
    with translated():
        row = await conn.fetchrow(_GET_ROW, payment_id)
    if row is None:
        raise InvariantBroken(f"there is no payment {payment_id}")
    return PaymentRow(**row)


async def hand_over(conn: Connection, payment_id: PaymentId, workflow_id: str) -> None:
    """Make this workflow send the payment and wait for its end. A payment that has ended stays as it is."""
    await change_any(
        conn,
        "UPDATE bank.payments SET workflow_id = $2 WHERE id = $1 AND status = 'pending'",
        payment_id,
        workflow_id,
    )


async def take_over_in_tx(conn: Connection, payment_id: PaymentId, workflow_id: str) -> bool:
    """As `hand_over`, for a workflow that did not open the payment. False while the opener may still be sending it."""
    with translated():
        taken: bool | None = await conn.fetchval(
            """UPDATE bank.payments SET workflow_id = $2
                WHERE id = $1 AND created_at < clock_timestamp() - $3::interval RETURNING true""",
            payment_id,
            workflow_id,
            _OPENERS_OWN,
        )
    return bool(taken)


async def mark_settled_in_tx(
    conn: Connection,
    payment_id: PaymentId,
    *,
    fee_msat: Msat,
    preimage: str,
    payment_index: int,
    delivered_msat: Msat | None = None,
) -> None:
    """End a pending payment as paid, with its preimage. `fee_msat` is the routing fee and our fee together."""
    await change_one(
        conn,
        """UPDATE bank.payments SET status = 'settled', fee_msat = $2, preimage = $3, payment_index = $4,
               settled_at = clock_timestamp(), delivered_msat = $5 WHERE id = $1 AND status = 'pending'""",
        payment_id,
        fee_msat,
        preimage,
        payment_index,
        delivered_msat,
    )


async def mark_failed_in_tx(
    conn: Connection, payment_id: PaymentId, *, code: str, detail: str, payment_index: int
) -> None:
    """End a pending payment as failed, with the reason."""
    await change_one(
        conn,
        """UPDATE bank.payments SET status = 'failed', failure_code = $2, failure_detail = $3, payment_index = $4
            WHERE id = $1 AND status = 'pending'""",
        payment_id,
        code,
        detail,
        payment_index,
    )


async def find_live_status(conn: Connection, payment_hash: PaymentHash) -> str | None:
    """The status of the pending or settled payment of this hash; None when there is none."""
    with translated():
        status: str | None = await conn.fetchval(
            "SELECT status FROM bank.payments WHERE payment_hash = $1 AND status IN ('pending', 'settled')",
            payment_hash,
        )
    return status


async def find_waiting_workflow(conn: Connection, payment_hash: PaymentHash) -> str | None:
    """The workflow of the pending payment of this hash."""
    with translated():
        workflow_id: str | None = await conn.fetchval(
            "SELECT workflow_id FROM bank.payments WHERE payment_hash = $1 AND status = 'pending'", payment_hash
        )
    return workflow_id
