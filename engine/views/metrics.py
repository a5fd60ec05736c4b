"""Figures of the books for whoever watches: what is in flight, what is held, what comes in and goes out, how
the last reconciliation ended.

Cheap enough to be asked every few seconds, whatever the history: each is read from an index of what is open, or from a
handful of rows. All are of one snapshot. Amounts are in msat, ages in whole seconds by the clock of the database.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.ledger.database import Connection, translated
from engine.views.balance import ReconciliationFigures, read_reconciliation_figures


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFigures:
    """One node, and what waits for it."""

    name: str
    report_age_s: int
    outbound_msat: int
    inbound_msat: int
    """0 also before its worker has reported it."""
    payments_in_flight: int
    oldest_payment_s: int
    """0 when nothing is in flight."""
    open_invoices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFigures:
    """The chain, as the pump of this wallet last wrote it down."""

    wallet: str
    height: int
    report_age_s: int
    problem: str | None
    """Why bitcoind cannot be followed now; None while it is followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositFigures:
    """Deposits of one status that are still watched, or that wait for an operator."""

    status: str
    count: int
    amount_msat: int
    oldest_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalFigures:
    """Withdrawals of one status that have not ended, at one speed. What waits for an operator counts apart, too."""

    status: str
    speed: str
    count: int
    held_msat: int
    oldest_s: int
    unapproved: int
    on_hold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutFigures:
    """Payouts of one status that are still followed."""

    status: str
    count: int
    oldest_s: int
    problems: int
    on_hold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receivables:
    """What users owe of deposits that were taken back after they had spent them."""

    count: int
    amount_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The books at one moment."""

    nodes: list[NodeFigures]
    chains: list[ChainFigures]
    deposits: list[DepositFigures]
    incoming_msat: int
    """The sum of all deposits that are shown as incoming."""
    receivables: Receivables
    withdrawals: list[WithdrawalFigures]
    payouts: list[PayoutFigures]
    reserved_coins: int
    """Coins that are promised to payouts."""
    ready_addresses: int
    """Addresses in the pool, which can be given."""
    held_msat: int
    """The sum of all users' holds, promised to the network."""
    rulebooks: Mapping[str, int]
    """The version in force."""
    reconciliation: ReconciliationFigures


_NODES = """
SELECT n.name, extract(epoch FROM clock_timestamp() - n.reported_at)::bigint AS report_age_s, n.outbound_msat,
       coalesce(n.inbound_msat, 0) AS inbound_msat, p.payments_in_flight, p.oldest_payment_s, i.open_invoices
  FROM bank.nodes n
  CROSS JOIN LATERAL (
       SELECT count(*) AS payments_in_flight,
              coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::bigint AS oldest_payment_s
         FROM bank.payments WHERE node = n.name AND status = 'pending') p
  CROSS JOIN LATERAL (SELECT count(*) AS open_invoices FROM bank.invoices WHERE node = n.name AND status = 'open') i
 ORDER BY n.name"""

_HELD = """
SELECT -s.held FROM ledger.accounts a CROSS JOIN LATERAL ledger.sums_at(a.id, 'infinity') s
 WHERE a.code = 'liab:outbox'"""

_CHAINS = """
SELECT wallet, tip_height AS height, coalesce(problem, pool_problem) AS problem,
       greatest(0, extract(epoch FROM clock_timestamp() - reported_at))::bigint AS report_age_s
  FROM bank.chains ORDER BY wallet"""

# Two indexes have the few rows that are counted. Deposits that are deep, or dropped, are most, and are not read.
_DEPOSITS = """
SELECT status, count(*) AS count, (sum(amount_sat) * 1000)::bigint AS amount_msat,
       greatest(0, extract(epoch FROM clock_timestamp() - min(created_at)))::bigint AS oldest_s
  FROM (SELECT status, amount_sat, created_at FROM bank.deposits WHERE final_at IS NULL AND status <> 'dropped'
        UNION ALL
        SELECT status, amount_sat, created_at FROM bank.deposits
         WHERE final_at IS NOT NULL AND status IN ('held', 'unattributed')) d
 GROUP BY status ORDER BY status"""

_INCOMING = """
SELECT s.held FROM ledger.accounts a CROSS JOIN LATERAL ledger.sums_at(a.id, 'infinity') s
 WHERE a.code = 'asset:hot'"""

_RECEIVABLES = """
SELECT count(*) AS count, coalesce(sum(amount_msat), 0)::bigint AS amount_msat
  FROM bank.receivables WHERE status = 'open'"""

_WITHDRAWALS = """
SELECT status, speed, count(*) AS count, sum(held_msat)::bigint AS held_msat,
       greatest(0, extract(epoch FROM clock_timestamp() - min(created_at)))::bigint AS oldest_s,
       count(*) FILTER (WHERE approval = 'needed') AS unapproved, count(*) FILTER (WHERE on_hold) AS on_hold
  FROM bank.withdrawals WHERE status IN ('queued', 'batched', 'broadcast')
 GROUP BY status, speed ORDER BY status, speed"""

_PAYOUTS = """
SELECT status, count(*) AS count,
       greatest(0, extract(epoch FROM clock_timestamp() - min(created_at)))::bigint AS oldest_s,
       count(*) FILTER (WHERE problem IS NOT NULL) AS problems, count(*) FILTER (WHERE on_hold) AS on_hold
  FROM bank.payouts WHERE status NOT IN ('final', 'dissolved')
 GROUP BY status ORDER BY status"""

_RESERVED_COINS = "SELECT count(*) FROM bank.coin_reservations"

_READY_ADDRESSES = "SELECT count(*) FROM bank.addresses WHERE wallet_id IS NULL"

_RULEBOOKS = "SELECT name, max(version) AS version FROM bank.rulebooks GROUP BY name ORDER BY name"


async def read_figures(conn: Connection) -> Figures:
    """All figures. Raises Unavailable."""
    with translated():
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            return Figures(
                nodes=[NodeFigures(**row) for row in await conn.fetch(_NODES)],
                chains=[ChainFigures(**row) for row in await conn.fetch(_CHAINS)],
                deposits=[DepositFigures(**row) for row in await conn.fetch(_DEPOSITS)],
                incoming_msat=await conn.fetchval(_INCOMING),
                receivables=next(Receivables(**row) for row in await conn.fetch(_RECEIVABLES)),
                withdrawals=[WithdrawalFigures(**row) for row in await conn.fetch(_WITHDRAWALS)],
                payouts=[PayoutFigures(**row) for row in await conn.fetch(_PAYOUTS)],
                reserved_coins=await conn.fetchval(_RESERVED_COINS),
                ready_addresses=await conn.fetchval(_READY_ADDRESSES),
                held_msat=await conn.fetchval(_HELD),
                rulebooks={row["name"]: row["version"] for row in await conn.fetch(_RULEBOOKS)},
                reconciliation=await read_reconciliation_figures(conn),
            )
