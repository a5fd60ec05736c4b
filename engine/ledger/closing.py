"""Closing the books at a full hour: sums per account, so that no balance of any moment adds up what was long before it.

A closing is written once and never changed, and nothing is ever posted behind it: the database refuses to post while
its clock stands there. Which accounts get one, and why it is exact, stands in `engine/ledger/sql/close.sql`. The
checks of the books add every closing up again.
"""

from datetime import datetime

from engine.ledger.database import Connection, translated

_LIMIT_S = 300
"""The first one reads the whole book."""


async def close_in_tx(conn: Connection, at: datetime | None = None) -> int | None:
    """Close at a moment at least 15 minutes ago; None: at the last full hour. Gives how many accounts got a closing.

    None when somebody had been posting for more than five seconds: nothing is closed, the next call does it. A repeat
    gives 0. Payments do not wait for it, but it reads all entries since the last closing. Raises Unavailable, and
    InvariantBroken for a moment that is too near.
    """
    with translated():
        accounts: int | None = await conn.fetchval("SELECT ledger.close($1)", at, timeout=_LIMIT_S)
    return accounts
