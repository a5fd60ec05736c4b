"""What a look at a node's channels says about a payment that the node calls in flight."""

from temporalio import activity

from activities.sending.reason import may_be_lost
from engine.bank import node_channel, sending
from engine.clients.lnd.client import LndNode, NodePayment
from engine.clients.lnd.htlc import NodeHtlcs
from engine.domain.channel import find_doubts, gone
from engine.domain.ids import PaymentId
from engine.ledger.database import Pool, borrowed


async def read_channels(node: LndNode, pool: Pool, payment_id: PaymentId) -> tuple[NodeHtlcs, str | None]:
    """What is in the node's channels, and the reason if that proves nothing about this payment.

    The stored channels are read first: what another worker sees meanwhile can then only be newer.
    """
    async with borrowed(pool) as conn:
        known = await node_channel.read_known(conn, node.name)
    htlcs = await node.read_htlcs()
    missing = gone(known, htlcs.channels)
    told = await node.read_closed() if missing else {}
    closed = {point: told[point] for point in missing if point in told}
    doubts = find_doubts(known, htlcs.channels, closed)
    for doubt in doubts.values():
        activity.logger.error("%s proves nothing: %s", node.name, doubt)
    async with borrowed(pool) as conn:
        await node_channel.note_seen(conn, node.name, updates=htlcs.channels.updates, closed=closed, doubts=doubts)
        return htlcs, await node_channel.find_doubt(conn, node.name, payment_id)


async def sight(pool: Pool, payment_id: PaymentId, payment: NodePayment, htlcs: NodeHtlcs) -> list[int]:
    """The heights at which this payment was in flight and in no channel; empty when this look does not count."""
    if not may_be_lost(payment, htlcs):
        return []
    async with borrowed(pool) as conn:
        await sending.add_sighting(
            conn,
            payment_id,
            height=htlcs.height,
            time_lock=payment.time_lock,
            payment_index=payment.payment_index,
        )
        return await sending.list_sightings(conn, payment_id, payment_index=payment.payment_index)
