"""How far a wallet's pump has followed the chain, and who may write it down.

Each pump takes the next epoch. One that was overtaken writes nothing any more: `move_in_tx` and `report` refuse it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.domain.deposit import Block
from engine.domain.errors import Unavailable
from engine.ledger.database import Connection, change_any, translated

REMEMBERED = 2016
"""How many blocks are kept. A reorganisation that reaches deeper needs an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The chain as a wallet's pump last saw it."""

    wallet: str
    network: str
    anchor: Block
    """The lowest block that was remembered at the adoption."""
    tip: Block
    work: str
    """The chain work of the tip: 64 hex digits, to be compared as text."""
    adopted_height: int
    """The tip at the adoption."""
    epoch: int
    rescan_from: int | None
    rescans: int
    """The number of the request for a rescan."""


async def find_chain(conn: Connection, wallet: str) -> Chain | None:
    """The wallet's chain. None before the wallet is adopted."""
    with translated():
        row = await conn.fetchrow(
            """SELECT network, anchor_height, anchor_hash, tip_height, tip_hash, tip_work, epoch, rescan_from, rescans,
                      adopted_height
                 FROM bank.chains WHERE wallet = $1""",
            wallet,
        )
    if row is None:
        return None
    return Chain(
        wallet=wallet,
        network=row["network"],
        anchor=Block(height=row["anchor_height"], hash=row["anchor_hash"]),
        tip=Block(height=row["tip_height"], hash=row["tip_hash"]),
        work=row["tip_work"],
        adopted_height=row["adopted_height"],
        epoch=row["epoch"],
        rescan_from=row["rescan_from"],
        rescans=row["rescans"],
    )


async def read_tip_height(conn: Connection) -> int:
    """The height of the tip that the pump last saw. 0 before a wallet is adopted."""
    with translated():
        height: int | None = await conn.fetchval("SELECT max(tip_height) FROM bank.chains")
    return height or 0


async def adopt_in_tx(conn: Connection, wallet: str, *, network: str, blocks: Sequence[Block], work: str) -> bool:
    """Write the wallet's row and its first blocks: from the anchor to the tip. False when it was adopted before."""
    with translated():
        added: str | None = await conn.fetchval(
            """INSERT INTO bank.chains(wallet, network, anchor_height, anchor_hash, tip_height, tip_hash, tip_work,
                                       adopted_height)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $5) ON CONFLICT DO NOTHING RETURNING wallet""",
            wallet,
            network,
            blocks[0].height,
            blocks[0].hash,
            blocks[-1].height,
            blocks[-1].hash,
            work,
        )
    if added is None:
        return False
    await _remember_in_tx(conn, wallet, blocks)
    return True


async def take_epoch(conn: Connection, wallet: str) -> int:
    """Become the pump of this wallet. From now on no earlier pump can write."""
    with translated():
        epoch: int = await conn.fetchval(
            "UPDATE bank.chains SET epoch = epoch + 1 WHERE wallet = $1 RETURNING epoch", wallet
        )
    return epoch


async def list_blocks(conn: Connection, wallet: str) -> list[Block]:
    """The blocks that are remembered, the youngest first."""
    with translated():
        rows = await conn.fetch(
            "SELECT height, hash FROM bank.blocks WHERE wallet = $1 ORDER BY height DESC LIMIT $2", wallet, REMEMBERED
        )
    return [Block(height=row["height"], hash=row["hash"]) for row in rows]


async def move_in_tx(
    conn: Connection, wallet: str, epoch: int, *, fork: Block, blocks: Sequence[Block], work: str, rescans: int
) -> None:
    """Replace what comes after `fork` by these blocks. The last one, or `fork`, is the new tip.

    Locks the wallet's row. `rescans` is the number of the last request for a rescan that this look has seen. Raises
    Unavailable (`pump_overtaken`) when another pump has taken over.
    """
    tip = blocks[-1] if blocks else fork
    with translated():
        moved = await conn.fetchval(
            """UPDATE bank.chains SET tip_height = $3, tip_hash = $4, tip_work = $5,
                   rescan_from = CASE WHEN rescans = $6 THEN NULL ELSE rescan_from END
                WHERE wallet = $1 AND epoch = $2 RETURNING wallet""",
            wallet,
            epoch,
            tip.height,
            tip.hash,
            work,
            rescans,
        )
    if moved is None:
        raise overtaken()
    await change_any(conn, "DELETE FROM bank.blocks WHERE wallet = $1 AND height > $2", wallet, fork.height)
    await _remember_in_tx(conn, wallet, blocks[-REMEMBERED:])
    await change_any(
        conn, "DELETE FROM bank.blocks WHERE wallet = $1 AND height <= $2", wallet, tip.height - REMEMBERED
    )


async def report(
    conn: Connection, wallet: str, epoch: int, *, problem: str | None, facts: Mapping[str, Any] | None
) -> None:
    """Store how bitcoind is. `facts` of None keeps what was last reported. Raises as `move_in_tx`."""
    with translated():
        told = await conn.fetchval(
            """UPDATE bank.chains SET problem = $3, report = coalesce($4, report), reported_at = clock_timestamp()
                WHERE wallet = $1 AND epoch = $2 RETURNING wallet""",
            wallet,
            epoch,
            problem,
            None if facts is None else dict(facts),
        )
    if told is None:
        raise overtaken()


def overtaken() -> Unavailable:
    """The refusal of what an earlier pump wants to write."""
    return Unavailable("another pump has taken over this wallet", code="pump_overtaken")


async def _remember_in_tx(conn: Connection, wallet: str, blocks: Sequence[Block]) -> None:
    await change_any(
        conn,
        """INSERT INTO bank.blocks(wallet, height, hash)
           SELECT $1, b.height, b.hash FROM unnest($2::int[], $3::text[]) b(height, hash)
           ON CONFLICT (wallet, height) DO UPDATE SET hash = excluded.hash""",
        wallet,
        [block.height for block in blocks],
        [block.hash for block in blocks],
    )
