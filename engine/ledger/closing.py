"""Closes the books at a full hour: stores sums per account, so that no balance needs to add up all history.

A closing is written once and never changes. Nothing is posted before it any more: the database refuses to post while
its clock is before the last closing. `engine/ledger/sql/close.sql` says which accounts get a closing and why it is
exact. The checks of the books add every closing up again.
"""

from datetime import datetime

from engine.ledger.database import Connection, translated

_LIMIT_S = 300
"""The first closing reads the whole book."""


async def close_in_tx(conn: Connection, at: datetime | None = None) -> int | None:
    """Close at a moment at least 15 minutes ago; None: at the last full hour. Returns how many accounts got a closing.

    Returns None when somebody had been posting for more than five seconds: nothing is closed, and the next call closes.
    A repeat returns 0. Payments do not wait for it. It reads all entries since the last closing. Raises Unavailable,
    and InvariantBroken for a moment that is too near.
    """
    with translated():
        accounts: int | None = await conn.fetchval("SELECT ledger.close($1)", at, timeout=_LIMIT_S)
    return accounts
