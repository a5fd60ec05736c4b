"""Deposits as their owners read them. No user sees a deposit that waits in suspense for its owner."""

from dataclasses import dataclass
from typing import Any

from engine.domain.ids import AccountId
from engine.domain.page import Position, Slice
from engine.ledger.database import Connection, translated
from engine.views.page import Listing

_COLUMNS = """d.id, d.wallet_id, d.txid, d.vout, d.address, d.amount_sat, d.fee_msat, d.fee_version, d.fee_level,
    d.required, d.status, d.block_height, d.created_at, d.credited_at, d.workflow_id,
    (SELECT max(c.tip_height) FROM bank.chains c) AS tip_height,
    (SELECT sum(r.amount_msat)::bigint FROM bank.receivables r
      WHERE r.deposit_id = d.id AND r.status = 'open') AS receivable_msat"""
_SOURCE = "bank.deposits d"
_OWN = "d.account_id = $1 AND d.status <> 'unattributed'"


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositFilter:
    """Which deposits; all conditions count together."""

    wallet_id: str | None = None
    status: str | None = None
    address: str | None = None


async def read_deposits(
    conn: Connection, account_id: AccountId, wanted: DepositFilter, after: Position, limit: int
) -> Slice[dict[str, Any]]:
    """One page of the account's deposits, the first seen last."""
    # Only the conditions that were asked for stand in the statement, so that each has its index.
    asked = {"wallet_id": wanted.wallet_id, "status": wanted.status, "address": wanted.address}
    given = {name: value for name, value in asked.items() if value is not None}
    conditions = [_OWN, *(f"d.{name} = ${place}" for place, name in enumerate(given, 2))]
    listing = Listing(
        columns=_COLUMNS, source=_SOURCE, condition=" AND ".join(conditions), time="d.created_at", key="d.id"
    )
    with translated():
        return await listing.read(conn, after, limit, account_id, *given.values())


async def find_deposit(conn: Connection, account_id: AccountId, deposit_id: str) -> dict[str, Any] | None:
    """The deposit, if it belongs to this account."""
    with translated():
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM {_SOURCE} WHERE {_OWN} AND d.id = $2",  # noqa: S608 - constants
            account_id,
            deposit_id,
        )
    return None if row is None else dict(row)
