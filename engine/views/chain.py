"""The chain as operators read it: the tip, bitcoind's last report, the pool of addresses, deposits by status."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRow:
    """A wallet's chain, with the last report of its pump."""

    wallet: str
    network: str
    anchor_height: int
    anchor_hash: str
    adopted_height: int
    tip_height: int
    tip_hash: str
    epoch: int
    rescan_from: int | None
    scan_from: int | None
    problem: str | None
    report: dict[str, Any]
    reported_at: datetime
    report_age_s: int
    adopted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFigures:
    """How many addresses there are."""

    ready: int
    """Made and not given to anybody."""
    given: int
    unpaid: int
    """Of those given: nothing has come to them yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusFigures:
    """The deposits of one status."""

    status: str
    count: int
    amount_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivableFigures:
    """The open receivables."""

    count: int
    amount_msat: int


async def list_chains(conn: Connection) -> list[ChainRow]:
    """The chain of each wallet that is adopted."""
    with translated():
        rows = await conn.fetch(
            """SELECT wallet, network, anchor_height, anchor_hash, adopted_height, tip_height, tip_hash, epoch,
                      rescan_from, scan_from, coalesce(problem, pool_problem) AS problem, report, reported_at,
                      adopted_at,
                      extract(epoch FROM clock_timestamp() - reported_at)::bigint AS report_age_s
                 FROM bank.chains ORDER BY adopted_at, wallet"""
        )
    return [ChainRow(**row) for row in rows]


async def count_addresses(conn: Connection) -> PoolFigures:
    """The pool. Reads an entry of an index for every address."""
    with translated():
        (row,) = await conn.fetch(
            """SELECT count(*) FILTER (WHERE wallet_id IS NULL) AS ready,
                      count(*) FILTER (WHERE wallet_id IS NOT NULL) AS given,
                      count(*) FILTER (WHERE wallet_id IS NOT NULL AND NOT paid) AS unpaid FROM bank.addresses"""
        )
    return PoolFigures(**row)


async def count_deposits(conn: Connection) -> list[StatusFigures]:
    """Deposits by status, but dropped ones. Of the credited ones only those whose block does not lie deep yet."""
    with translated():
        rows = await conn.fetch(
            """SELECT status, count(*) AS count, sum(amount_sat)::bigint AS amount_sat FROM (
                   SELECT status, amount_sat FROM bank.deposits WHERE final_at IS NULL AND status = 'credited'
                   UNION ALL SELECT status, amount_sat FROM bank.deposits
                    WHERE status IN ('pending', 'reversed', 'below_minimum', 'held', 'unattributed')) d
                GROUP BY status ORDER BY status"""
        )
    return [StatusFigures(**row) for row in rows]


async def count_receivables(conn: Connection) -> ReceivableFigures:
    """What users owe for deposits that a reorganisation took back."""
    with translated():
        (row,) = await conn.fetch(
            """SELECT count(*) AS count, coalesce(sum(amount_msat), 0)::bigint AS amount_msat
                 FROM bank.receivables WHERE status = 'open'"""
        )
    return ReceivableFigures(**row)
