"""How far back a reconciliation looks at a node's memory, which holds all that the node ever did.

An explained difference that stays would make every look reach back to its beginning. Instead it is carried as it was
found, while the node's accounts differ by exactly such amounts. When they differ by anything else, the look reaches
back and names each item again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.bank.reconciliation import NewCase
from engine.domain.ids import NodeName
from engine.ledger.database import Connection, translated

_LOOK_BACK = timedelta(days=35)
"""Our payments and invoices end well within this time: an invoice lives for a week, an HTLC for another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time from which the node's payments and invoices must be listed."""

    since: datetime
    """Reaches back to all that may still be open, in the books or in a case that nobody has explained."""
    since_explained: datetime
    """Reaches back also to all cases that are explained and still found."""
    adopted_at: datetime


async def read_window(conn: Connection, node: NodeName) -> Window:
    """How far a reconciliation of this node looks back."""
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


async def read_wallet_window(conn: Connection, wallet: str) -> Window:
    """How far a reconciliation of this wallet of bitcoind looks back."""
    with translated():
        row = await conn.fetchrow(
            """WITH open AS (
                   SELECT least(clock_timestamp(), (SELECT min(created_at) FROM bank.cases WHERE status = 'open'))
                          - $2::interval AS since,
                          (SELECT min(created_at) FROM bank.cases WHERE status = 'explained') - $2::interval
                          AS explained)
               SELECT greatest(c.adopted_at, o.since) AS since,
                      greatest(c.adopted_at, least(o.since, o.explained)) AS since_explained, c.adopted_at
                 FROM bank.chains c, open o WHERE c.wallet = $1""",
            wallet,
            _LOOK_BACK,
        )
    if row is None:
        raise LookupError(wallet)
    return Window(**row)


async def list_explained(conn: Connection, accounts: str) -> list[NewCase]:
    """The differences that stay and that an operator has explained, on the accounts whose codes begin like this."""
    with translated():
        rows = await conn.fetch(
            """SELECT kind, account, subject, amount_msat, detail, suspects FROM bank.cases
                WHERE status = 'explained' AND amount_msat <> 0 AND starts_with(account, $1) ORDER BY created_at, id""",
            accounts,
        )
    return [NewCase(**row) for row in rows]
