"""Adopts a node into the books, which from then on answer for what it holds.

What is on the node at that moment is booked as the bank's capital, once for ever, under `node:<name>:opening`.
"""

from temporalio import workflow

from workflows.patience import in_books
from workflows.policies import NODE

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues
    from engine.contracts.node import AdoptNode, NodeActivities, NodePositionActivities


@workflow.defn
class AdoptNodeWorkflow:
    """Reads the node while nothing moves and books its opening balances. A repeat finds them and changes nothing."""

    @workflow.run
    async def run(self, adopt: AdoptNode) -> bool:
        workflow.set_current_details(f"waiting for `{adopt.node}` to be at rest")
        position = await workflow.execute_activity_method(
            NodePositionActivities.read_position, adopt, task_queue=queues.lightning_queue(adopt.node), **NODE
        )
        fresh = await in_books(NodeActivities.book_opening, position)
        workflow.set_current_details(
            f"`{adopt.node}` ({position.pubkey}): {position.channels_msat:,} msat in channels, "
            f"{position.commit_escrow_msat:,} in commitment fees, {position.onchain_msat:,} on chain"
        )
        return fresh
