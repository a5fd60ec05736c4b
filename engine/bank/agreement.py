"""The channels of a node, one by one, when books and node last agreed.

The books know only sums. When a channel has closed or pays another fee rate, this note says what its share was.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from engine.domain.ids import NodeName
from engine.domain.money import Msat
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreedChannel:
    """A channel that is part of the books' balances."""

    point: str
    """Funding transaction and output, `txid:index`."""
    opened_by_us: bool
    escrow_msat: Msat
    """Its share of the account for commitment fees and anchors."""
    fee_per_kw: int


async def list_agreed_channels(conn: Connection, node: NodeName) -> list[AgreedChannel]:
    """The channels of the last agreement; none before the first one."""
    with translated():
        kept = await conn.fetchval("SELECT channels FROM bank.agreements WHERE node = $1", node)
    return [AgreedChannel(**channel) for channel in kept or []]


async def agree(conn: Connection, node: NodeName, channels: Sequence[AgreedChannel]) -> None:
    """Note that books and node agree now, with these channels. A repeat notes it again."""
    with translated():
        await conn.execute(
            """INSERT INTO bank.agreements(node, channels) VALUES ($1, $2)
               ON CONFLICT (node) DO UPDATE SET channels = excluded.channels, agreed_at = clock_timestamp()""",
            node,
            [asdict(channel) for channel in channels],
        )
