"""The channels of our nodes as they were last seen. Proofs are checked against them (engine/domain/channel.py)."""

from collections.abc import Collection, Mapping

from engine.domain.channel import KnownChannel
from engine.domain.ids import NodeName, PaymentId
from engine.ledger.database import Connection, change_any, translated


async def read_known(conn: Connection, node: NodeName) -> dict[str, KnownChannel]:
    """The known channels by channel point. Read them before you ask the node: then no lower number is an older look."""
    with translated():
        rows = await conn.fetch(
            "SELECT point, updates, closed_at IS NOT NULL AS is_closed FROM bank.node_channels WHERE node = $1", node
        )
    return {row["point"]: KnownChannel(updates=row["updates"], is_closed=row["is_closed"]) for row in rows}


async def note_seen(
    conn: Connection, node: NodeName, *, updates: Mapping[str, int], closed: Collection[str], doubts: Mapping[str, str]
) -> None:
    """Store one look. Numbers only rise. A doubt keeps its beginning, and ends when its channel is open without one."""
    with translated():
        await conn.execute(
            """INSERT INTO bank.node_channels AS c (node, point, updates, doubt, doubted_at)
               SELECT $1, s.point, s.updates, s.doubt, CASE WHEN s.doubt IS NOT NULL THEN clock_timestamp() END
                 FROM unnest($2::text[], $3::bigint[], $4::text[]) s(point, updates, doubt)
               ON CONFLICT (node, point) DO UPDATE
                  SET updates = greatest(c.updates, excluded.updates), doubt = excluded.doubt,
                      doubted_at = CASE WHEN excluded.doubt IS NOT NULL
                                        THEN coalesce(c.doubted_at, excluded.doubted_at) END
                WHERE excluded.updates > c.updates OR excluded.doubt IS DISTINCT FROM c.doubt""",
            node,
            list(updates),
            list(updates.values()),
            [doubts.get(point) for point in updates],
        )
        gone = (set(closed) | doubts.keys()) - updates.keys()
        if gone:
            await change_any(
                conn,
                """UPDATE bank.node_channels c
                      SET closed_at = CASE WHEN s.is_closed THEN coalesce(c.closed_at, clock_timestamp()) END,
                          doubt = coalesce(s.doubt, c.doubt),
                          doubted_at = coalesce(c.doubted_at, CASE WHEN s.doubt IS NOT NULL THEN clock_timestamp() END)
                     FROM unnest($2::text[], $3::boolean[], $4::text[]) s(point, is_closed, doubt)
                    WHERE c.node = $1 AND c.point = s.point""",
                node,
                list(gone),
                [point in closed for point in gone],
                [doubts.get(point) for point in gone],
            )


async def find_doubt(conn: Connection, node: NodeName, payment_id: PaymentId) -> str | None:
    """Why the node's channels prove nothing about this payment; None when they do."""
    with translated():
        doubt: str | None = await conn.fetchval(
            """SELECT c.doubt FROM bank.node_channels c, bank.payments p
                WHERE c.node = $1 AND p.id = $2 AND c.doubted_at IS NOT NULL
                  AND (c.closed_at IS NULL OR p.created_at < c.doubted_at)
                ORDER BY c.doubted_at LIMIT 1""",
            node,
            payment_id,
        )
    return doubt
