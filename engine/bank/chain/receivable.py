"""Receivables: what users had spent of deposits that a reorganisation took back.

The amount is booked as a loss at once. The row says who owes it. It ends when the deposit is credited again (`repaid`)
or when two operators give it up (`forgiven`).
"""

from dataclasses import dataclass

from engine.domain.ids import AccountId, DepositId, ReceivableId, WalletId, new_id
from engine.domain.money import Msat
from engine.ledger.database import Connection, change_one, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class Receivable:
    """One that is open."""

    id: ReceivableId
    amount_msat: Msat


async def add_in_tx(
    conn: Connection,
    *,
    deposit: DepositId,
    account: AccountId,
    wallet: WalletId,
    amount_msat: Msat,
    ref: str,
) -> None:
    """Write that this much is owed since the reversal `ref`."""
    await change_one(
        conn,
        """INSERT INTO bank.receivables(id, deposit_id, account_id, wallet_id, amount_msat, ref)
           VALUES ($1, $2, $3, $4, $5, $6)""",
        new_id("rcv"),
        deposit,
        account,
        wallet,
        amount_msat,
        ref,
    )


async def list_open_in_tx(conn: Connection, deposit: DepositId) -> list[Receivable]:
    """What is owed for this deposit, the oldest first, locked until the transaction ends."""
    with translated():
        rows = await conn.fetch(
            """SELECT id, amount_msat FROM bank.receivables
                WHERE deposit_id = $1 AND status = 'open' ORDER BY created_at, id FOR UPDATE""",
            deposit,
        )
    return [Receivable(**row) for row in rows]


async def end_in_tx(conn: Connection, receivable: ReceivableId, status: str, *, by: str) -> None:
    """End it as `repaid` or `forgiven`. Raises InvariantBroken when it is not open."""
    await change_one(
        conn,
        """UPDATE bank.receivables SET status = $2, ended_at = clock_timestamp(), ended_by = $3
            WHERE id = $1 AND status = 'open'""",
        receivable,
        status,
        by,
    )


async def repay_in_tx(conn: Connection, deposit: DepositId, most_msat: Msat) -> Msat:
    """End the receivables of this deposit that its credit pays, each as a whole. Returns their sum."""
    repaid_msat = Msat(0)
    for owed in await list_open_in_tx(conn, deposit):
        if repaid_msat + owed.amount_msat <= most_msat:
            repaid_msat = Msat(repaid_msat + owed.amount_msat)
            await end_in_tx(conn, owed.id, "repaid", by="deposit")
    return repaid_msat
