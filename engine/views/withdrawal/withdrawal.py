"""Withdrawals as their owners and operators read them, and what a new one would meet: the queue and the free coins.

The transaction of a withdrawal is the version of its payout that is in force: the confirmed one, or else the newest
that was sent. Any version may still come to be confirmed, so the txid of a withdrawal may change until then.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.domain.ids import AccountId
from engine.domain.page import Position, Slice
from engine.ledger.database import Connection, translated
from engine.views.page import Listing

IN_FORCE = """bank.payout_versions v WHERE v.payout_id = p.id
    AND (v.broadcast_at IS NOT NULL OR v.number = p.confirmed_version)
  ORDER BY (v.number = p.confirmed_version) DESC NULLS LAST, v.number DESC LIMIT 1"""
"""The version of payout `p` that is in force, as the end of a SELECT."""
_COLUMNS = """w.id, w.account_id, w.wallet_id, w.address, w.payee_wallet_id, w.amount_sat, w.fee_from, w.send_all,
    w.speed, w.alone, w.unlinked, w.max_fee_sat, w.held_msat, w.service_fee_msat, w.status, w.approval, w.approve_until,
    w.on_hold, w.waits_for, w.payout_id, w.paid_sat, w.miner_fee_sat, w.failure_code, w.failure_detail, w.memo,
    w.external_id, w.workflow_id, w.created_at, w.sealed_at, w.broadcast_at, w.ended_at, f.txid,
    CASE WHEN f.txid IS NOT NULL THEN w.place + CASE WHEN f.change_vout <= w.place THEN 1 ELSE 0 END END AS vout,
    p.status AS payout_status, p.block_height, p.on_hold AS payout_on_hold, p.problem AS payout_problem,
    (SELECT tip_height FROM bank.chains c WHERE c.wallet = p.wallet) AS tip_height,
    (SELECT a.status FROM bank.accounts a WHERE a.id = w.account_id) AS account_status"""
_SOURCE = f"""bank.withdrawals w LEFT JOIN bank.payouts p ON p.id = w.payout_id
    LEFT JOIN LATERAL (SELECT v.txid, v.change_vout FROM {IN_FORCE}) f ON true"""  # noqa: S608 - constant
_WAITING: Mapping[str, str] = {
    "approval": "w.status = 'queued' AND w.approval = 'needed'",
    "resume": "w.status = 'queued' AND w.on_hold",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalFilter:
    """Which withdrawals; all conditions count together."""

    account_id: str | None = None
    wallet_id: str | None = None
    status: str | None = None
    speed: str | None = None
    payout_id: str | None = None
    external_id: str | None = None
    waits_for: str | None = None
    """`approval` or `resume`: those that wait for an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """What may go with the next payout of a speed. Left out: what waits for an operator, or is of a locked account."""

    speed: str
    count: int
    amount_sat: int
    sharing: int
    """How many of them share a transaction with others: neither alone nor unlinked."""
    sharing_sat: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HotWallet:
    """The hot wallet by its name, and what its pump last reported of the node."""

    wallet: str
    report: dict[str, Any]


async def read_withdrawals(
    conn: Connection, wanted: WithdrawalFilter, after: Position, limit: int
) -> Slice[dict[str, Any]]:
    """One page, newest first."""
    # Only the conditions that were asked for stand in the statement, so that each has its index.
    names = ("account_id", "wallet_id", "status", "speed", "payout_id", "external_id")
    given = {name: value for name in names if (value := getattr(wanted, name)) is not None}
    conditions = [f"w.{name} = ${place}" for place, name in enumerate(given, 1)]
    if wanted.waits_for is not None:
        conditions.append(_WAITING[wanted.waits_for])
    listing = Listing(
        columns=_COLUMNS,
        source=_SOURCE,
        condition=" AND ".join(conditions) or "true",
        time="w.created_at",
        key="w.id",
    )
    with translated():
        return await listing.read(conn, after, limit, *given.values())


async def find_withdrawal(
    conn: Connection, withdrawal_id: str, *, account_id: AccountId | None = None
) -> dict[str, Any] | None:
    """The withdrawal; with an account, only if it belongs to it."""
    with translated():
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM {_SOURCE} WHERE w.id = $1 AND ($2::text IS NULL OR w.account_id = $2)",  # noqa: S608 - constants
            withdrawal_id,
            account_id,
        )
    return None if row is None else dict(row)


async def count_queue(conn: Connection) -> list[QueueFigures]:
    """What waits, by speed. A speed for which nothing waits is left out."""
    with translated():
        rows = await conn.fetch(
            """SELECT w.speed, count(*) AS count, sum(w.amount_sat)::bigint AS amount_sat,
                      count(*) FILTER (WHERE NOT w.alone AND NOT w.unlinked) AS sharing,
                      coalesce(sum(w.amount_sat) FILTER (WHERE NOT w.alone AND NOT w.unlinked), 0)::bigint
                        AS sharing_sat,
                      min(w.created_at) AS oldest_at
                 FROM bank.withdrawals w JOIN bank.accounts a ON a.id = w.account_id AND a.status = 'active'
                WHERE w.status = 'queued' AND NOT w.on_hold AND w.approval IS DISTINCT FROM 'needed'
                GROUP BY w.speed ORDER BY w.speed"""
        )
    return [QueueFigures(**row) for row in rows]


async def find_hot_wallet(conn: Connection) -> HotWallet | None:
    """The wallet that pays withdrawals, with the last report of its pump. None before one is adopted."""
    with translated():
        row = await conn.fetchrow("SELECT wallet, report FROM bank.chains ORDER BY reported_at DESC, wallet LIMIT 1")
    return None if row is None else HotWallet(**row)
