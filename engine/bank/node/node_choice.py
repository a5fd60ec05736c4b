"""Which node sends a payment, and whether any node is alive.

A node is alive while it has reported within the time that `bank.has_reported` allows. Of two nodes that are alike the
one with more outbound liquidity sends.

    asked                               answer
    before a payment is accepted        the live node that would most likely send it; None refuses the payment
    for a quote                         the same node, which is asked for a route
    where the money is held             the node to which the payment is pinned, live or not
"""

from engine.domain.ids import NodeName
from engine.domain.money import Msat
from engine.ledger.database import Connection, translated

_MOST_OUTBOUND_FIRST = "outbound_msat >= $1 DESC, outbound_msat DESC, name"


async def find_live_sender(conn: Connection, total_msat: Msat) -> NodeName | None:
    """The live node to which a payment of this amount and routing cap would most likely be pinned."""
    with translated():
        name: str | None = await conn.fetchval(
            f"SELECT name FROM bank.nodes WHERE bank.has_reported(reported_at) ORDER BY {_MOST_OUTBOUND_FIRST} LIMIT 1",  # noqa: S608 - constant
            total_msat,
        )
    return None if name is None else NodeName(name)


async def choose_sender(conn: Connection, total_msat: Msat, *, max_in_flight: int) -> NodeName | None:
    """The node to which a payment is pinned; None when no node has been adopted.

    Live nodes come first, then nodes with fewer than `max_in_flight` pending payments, then the outbound liquidity
    decides. A node with too many in flight is chosen only where every node has too many: the payment is refused then.
    """
    with translated():
        name: str | None = await conn.fetchval(
            f"""SELECT name FROM bank.nodes n
                 ORDER BY bank.has_reported(reported_at) DESC,
                          $2 > (SELECT count(*) FROM bank.payments WHERE node = n.name AND status = 'pending') DESC,
                          {_MOST_OUTBOUND_FIRST} LIMIT 1""",  # noqa: S608 - constant
            total_msat,
            max_in_flight,
        )
    return None if name is None else NodeName(name)
