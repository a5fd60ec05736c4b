"""A batch's row, and what is read of it. Its payments are ordinary rows that name the batch.

The row is written before its payments, in their transaction. The database commits it only with all of them
(`sql/check_batch.sql`), so a batch that can be read is settled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.domain.ids import AccountId, BatchId, PaymentId, WalletId
from engine.domain.money import Msat
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A batch before its payments are written."""

    id: BatchId
    account_id: AccountId
    wallet_id: WalletId
    count: int
    total_msat: Msat
    """The sum of the amounts, without our fees."""
    workflow_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One payment of a batch."""

    payment_id: PaymentId
    destination: str
    amount_msat: Msat
    fee_msat: Msat
    """Our fee."""
    memo: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A settled batch with its items in their order."""

    id: BatchId
    wallet_id: WalletId
    total_msat: Msat
    workflow_id: str
    created_at: datetime
    items: Sequence[Item]


async def add_row_in_tx(conn: Connection, new: NewBatch) -> None:
    """Write the row; its payments must follow in the same transaction."""
    with translated():
        await conn.execute(
            """INSERT INTO bank.batches(id, account_id, wallet_id, count, total_msat, workflow_id)
               VALUES ($1, $2, $3, $4, $5, $6)""",
            new.id,
            new.account_id,
            new.wallet_id,
            new.count,
            new.total_msat,
            new.workflow_id,
        )


async def find_batch(conn: Connection, account_id: AccountId, batch_id: BatchId) -> Batch | None:
    """A batch of this account with all its items. None for somebody else's."""
    with translated():
        row = await conn.fetchrow(
            """SELECT id, wallet_id, total_msat, workflow_id, created_at FROM bank.batches
                WHERE id = $1 AND account_id = $2""",
            batch_id,
            account_id,
        )
        if row is None:
            return None
        items = await conn.fetch(
            """SELECT id AS payment_id, destination, amount_msat, fee_msat, memo FROM bank.payments
                WHERE batch_id = $1 ORDER BY batch_place""",
            batch_id,
        )
    return Batch(**row, items=[Item(**item) for item in items])
