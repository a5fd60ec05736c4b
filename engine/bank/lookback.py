"""How far back a reconciliation looks at what a node remembers, which is all that it ever did.

A difference that an operator has explained, and that stays, would make every look reach back to its beginning. Instead
it is carried as it was found, as long as the node's accounts differ by exactly such amounts; when they differ by
anything else, the look reaches back and names each item again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.bank.reconciliation import NewCase
from engine.domain.ids import NodeName
from engine.ledger.database import Connection, translated

_LOOK_BACK = timedelta(days=35)
"""Payments and invoices of ours end well within this: an invoice lives for a week, an HTLC for another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Since when the node's payments and invoices are to be listed."""

    since: datetime
    """As far back as something of them may still be open: in the books, or in a case that nobody has explained."""
    since_explained: datetime
    """As far back as something of them is in a case that is explained, and still found."""
    adopted_at: datetime


async def read_window(conn: Connection, node: NodeName) -> Window:
    """How far to look back; a node remembers all that it ever did."""
    with translated():
        row = await conn.fetchrow(
            """WITH open AS (
                   SELECT least(clock_timestamp(),
                                (SELECT min(created_at) FROM bank.cases WHERE status = 'open'),
                                (SELECT min(created_at) FROM bank.payments WHERE node = $1 AND status = 'pending')
                          ) - $2::interval AS since,
                          (SELECT min(created_at) FROM bank.cases WHERE status = 'explained') - $2::interval
                          AS explained)
               SELECT greatest(n.adopted_at, o.since) AS since,
                      greatest(n.adopted_at, least(o.since, o.explained)) AS since_explained, n.adopted_at
                 FROM bank.nodes n, open o WHERE n.name = $1""",
            node,
            _LOOK_BACK,
        )
    if row is None:
        raise LookupError(node)
    return Window(**row)


async def list_explained(conn: Connection, node: NodeName) -> list[NewCase]:
    """What stays different on the node's accounts, and an operator has said why."""
    with translated():
        rows = await conn.fetch(
            """SELECT kind, account, subject, amount_msat, detail, suspects FROM bank.cases
                WHERE status = 'explained' AND amount_msat <> 0 AND starts_with(account, $1) ORDER BY created_at, id""",
            f"asset:lnd:{node}:",
        )
    return [NewCase(**row) for row in rows]
