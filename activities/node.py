"""Adopts a node: reads what it holds while nothing moves, and books it once."""

from temporalio import activity

from activities.heartbeat import heartbeats
from engine.bank.node import node
from engine.clients.lnd.client import LndNode
from engine.contracts.node import AdoptNode, NodeActivities, NodePosition, NodePositionActivities
from engine.domain.errors import Unavailable
from engine.ledger import chart
from engine.ledger.database import Pool, transaction
from engine.ledger.postings.node import adopted
from engine.ledger.store import post_new_in_tx


class NodeBooks(NodeActivities):
    """The ledger's side."""

    def __init__(self, pool: Pool, ids: chart.Chart) -> None:
        self._pool = pool
        self._ids = ids

    @activity.defn
    async def book_opening(self, position: NodePosition) -> bool:
        async with transaction(self._pool) as conn:
            fresh = await node.add_row_in_tx(
                conn, position.node, pubkey=position.pubkey, settle_index=position.settle_index
            )
            if not fresh:
                return False
            accounts = await node.open_accounts_in_tx(conn, position.node)
            posting = adopted(
                await self._ids.load(conn),
                position.node,
                accounts,
                (position.channels_msat, position.commit_escrow_msat, position.onchain_msat),
            )
            if posting is not None:
                await post_new_in_tx(conn, posting)
        return True


class NodePositions(NodePositionActivities):
    """The node's side; bound to one node."""

    def __init__(self, lnd: LndNode) -> None:
        self._lnd = lnd

    @activity.defn
    async def read_position(self, adopt: AdoptNode) -> NodePosition:
        """Read twice what can move in between. The position counts only if nothing moved."""
        async with heartbeats():
            before = await self._lnd.read_balances()
            settle_index = await self._lnd.read_last_settle_index()
            after = await self._lnd.read_balances()
        if before != after or after.in_flight:
            raise Unavailable(f"{adopt.node} is not at rest: something is in flight, or a channel is changing")
        return NodePosition(
            node=adopt.node,
            pubkey=after.pubkey,
            channels_msat=after.channels_msat,
            commit_escrow_msat=after.commit_escrow_msat,
            onchain_msat=after.onchain_msat,
            settle_index=settle_index,
        )
