"""A node's row, with identity and cursor, and the opening of its accounts in the books."""

from dataclasses import dataclass

from engine.domain.errors import Conflict
from engine.domain.ids import NodeName, PaymentHash, PaymentId
from engine.domain.money import Msat
from engine.ledger import chart
from engine.ledger.account import open_account_in_tx
from engine.ledger.database import Connection, change_any, change_one, translated


async def open_accounts_in_tx(conn: Connection, node: NodeName) -> tuple[int, int, int]:
    """Open the node's accounts for channels, commit escrow and on-chain coins. Returns the ids; a repeat finds them."""
    codes = (chart.channels(node), chart.commit_escrow(node), chart.onchain(node))
    first, second, third = [await open_account_in_tx(conn, code, "asset", mode="append") for code in codes]
    return first, second, third


async def add_row_in_tx(conn: Connection, node: NodeName, *, pubkey: str, settle_index: int) -> bool:
    """Adopt the node. False when it was adopted before; raises Conflict when another node has this name or key."""
    with translated():
        added: str | None = await conn.fetchval(
            """INSERT INTO bank.nodes(name, pubkey, settle_index, credited_index, handed_on_index)
               VALUES ($1, $2, $3, $3, $3)
               ON CONFLICT DO NOTHING RETURNING name""",
            node,
            pubkey,
            settle_index,
        )
        if added is not None:
            return True
        known = await conn.fetch("SELECT name, pubkey FROM bank.nodes WHERE name = $1 OR pubkey = $2", node, pubkey)
    if [(row["name"], row["pubkey"]) for row in known] != [(node, pubkey)]:
        others = ", ".join(f"{row['name']} is {row['pubkey']}" for row in known)
        raise Conflict(f"{node} cannot be adopted as {pubkey}: {others}", code="node_replaced")
    return False


async def find_pubkey(conn: Connection, node: NodeName) -> str | None:
    """The public key of the node that was adopted under this name; None before that."""
    with translated():
        pubkey: str | None = await conn.fetchval("SELECT pubkey FROM bank.nodes WHERE name = $1", node)
    return pubkey


async def read_cursor(conn: Connection, node: NodeName) -> int:
    """The settle index up to which every receipt has a workflow."""
    with translated():
        return int(await conn.fetchval("SELECT settle_index FROM bank.nodes WHERE name = $1", node) or 0)


async def move_cursor(conn: Connection, node: NodeName, settle_index: int) -> None:
    """Move the cursor, forward only: a late writer cannot move it back."""
    await change_one(
        conn, "UPDATE bank.nodes SET settle_index = greatest(settle_index, $2) WHERE name = $1", node, settle_index
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """How far a node's receipts are processed, by settle index."""

    credited_index: int
    """All receipts up to here are in the books."""
    handed_on_index: int
    """All receipts up to here had a workflow at the last sweep."""
    settle_index: int
    """All receipts up to here have a workflow."""


async def read_handed(conn: Connection, node: NodeName) -> Handed:
    """How far the node's receipts are processed."""
    with translated():
        row = await conn.fetchrow(
            "SELECT credited_index, handed_on_index, settle_index FROM bank.nodes WHERE name = $1", node
        )
    return Handed(**row) if row else Handed(credited_index=0, handed_on_index=0, settle_index=0)


async def note_handed(conn: Connection, node: NodeName, *, credited_index: int, handed_on_index: int) -> None:
    """Store how far receipts are processed, forward only, as `move_cursor`."""
    await change_one(
        conn,
        """UPDATE bank.nodes SET credited_index = greatest(credited_index, $2),
               handed_on_index = greatest(handed_on_index, $3) WHERE name = $1""",
        node,
        credited_index,
        handed_on_index,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """A payment that waits for its node's final status."""

    id: PaymentId
    payment_hash: PaymentHash
    workflow_id: str
    known_payment_index: int
    """What the node says about this payment index or a lower one is old."""
    reason: str | None
    """What it was waiting for when a worker last looked."""


async def list_in_flight(conn: Connection, node: NodeName, *, after: str, limit: int) -> list[InFlight]:
    """A page of the payments that wait for this node, in the order of their ids."""
    with translated():
        rows = await conn.fetch(
            """SELECT p.id, p.payment_hash, p.workflow_id, p.known_payment_index, w.reason
                 FROM bank.payments p LEFT JOIN bank.payment_waits w ON w.payment_id = p.id
                WHERE p.node = $1 AND p.status = 'pending' AND p.id > $2 ORDER BY p.id LIMIT $3""",
            node,
            after,
            limit,
        )
    return [InFlight(**row) for row in rows]


async def report_room(
    conn: Connection, node: NodeName, outbound_msat: Msat, inbound_msat: Msat, announced_inbound_msat: Msat
) -> None:
    """Store that the node is alive, and how much it can send and receive."""
    await change_any(
        conn,
        """UPDATE bank.nodes SET outbound_msat = $2, inbound_msat = $3, announced_inbound_msat = $4,
               reported_at = clock_timestamp() WHERE name = $1""",
        node,
        outbound_msat,
        inbound_msat,
        announced_inbound_msat,
    )
