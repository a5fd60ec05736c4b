"""A node in the books: its accounts, its opening balances as capital, and its row with identity and cursor.

event     reference             entries
adopted   node:<name>:opening   Dr channels · Dr commit escrow · Dr on chain · Cr capital
"""

from engine.domain.errors import Conflict
from engine.domain.ids import NodeName
from engine.domain.money import Msat
from engine.ledger import chart
from engine.ledger.book import Posting, credit, debit
from engine.ledger.database import Connection, change_any, change_one, translated
from engine.ledger.store import open_account_in_tx

ACTOR = "adopt-node"


async def open_accounts_in_tx(conn: Connection, node: NodeName) -> tuple[int, int, int]:
    """The ids of the node's accounts for channels, commit escrow and on-chain coins; a repeat finds them."""
    codes = (chart.channels(node), chart.commit_escrow(node), chart.onchain(node))
    first, second, third = [await open_account_in_tx(conn, code, "asset", mode="append") for code in codes]
    return first, second, third


def adopted(
    node: NodeName, accounts: tuple[int, int, int], capital_account: int, amounts_msat: tuple[Msat, Msat, Msat]
) -> Posting | None:
    """What the node holds becomes capital; None for an empty node."""
    legs = [debit(account, amount) for account, amount in zip(accounts, amounts_msat, strict=True) if amount > 0]
    if not legs:
        return None
    return Posting(
        ref=f"node:{node}:opening",
        template="node_adopted",
        phase="post",
        actor=ACTOR,
        workflow_id=f"adopt-{node}",
        legs=[*legs, credit(capital_account, sum(amounts_msat))],
    )


async def add_row_in_tx(conn: Connection, node: NodeName, *, pubkey: str, settle_index: int) -> bool:
    """Take the node in. False when it was in already; raises Conflict when another node has this name or key."""
    with translated():
        added: str | None = await conn.fetchval(
            """INSERT INTO bank.nodes(name, pubkey, settle_index) VALUES ($1, $2, $3)
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
    """The key of the node that our books answer for under this name; None before it is adopted."""
    with translated():
        pubkey: str | None = await conn.fetchval("SELECT pubkey FROM bank.nodes WHERE name = $1", node)
    return pubkey


async def read_cursor(conn: Connection, node: NodeName) -> int:
    """The settle index up to which every receipt has been handed on."""
    with translated():
        return int(await conn.fetchval("SELECT settle_index FROM bank.nodes WHERE name = $1", node) or 0)


async def move_cursor(conn: Connection, node: NodeName, settle_index: int) -> None:
    """Forward only: a late writer cannot move it back."""
    await change_one(
        conn, "UPDATE bank.nodes SET settle_index = greatest(settle_index, $2) WHERE name = $1", node, settle_index
    )


async def report_room(
    conn: Connection, node: NodeName, outbound_msat: Msat, inbound_msat: Msat, announced_inbound_msat: Msat
) -> None:
    """The node is alive, and could send and receive this much."""
    await change_any(
        conn,
        """UPDATE bank.nodes SET outbound_msat = $2, inbound_msat = $3, announced_inbound_msat = $4,
               reported_at = clock_timestamp() WHERE name = $1""",
        node,
        outbound_msat,
        inbound_msat,
        announced_inbound_msat,
    )


async def choose_sender(conn: Connection, total_msat: Msat, *, max_in_flight: int) -> NodeName | None:
    """The node to pin a payment to: of those that reported lately and have room the one that can send most.

    None when no node has been adopted. The one that has no more room than others is chosen too, to be refused.
    """
    with translated():
        name: str | None = await conn.fetchval(
            """SELECT name FROM bank.nodes n
                ORDER BY bank.has_reported(reported_at) DESC,
                         $2 > (SELECT count(*) FROM bank.payments WHERE node = n.name AND status = 'pending') DESC,
                         outbound_msat >= $1 DESC, outbound_msat DESC, name LIMIT 1""",
            total_msat,
            max_in_flight,
        )
    return None if name is None else NodeName(name)
