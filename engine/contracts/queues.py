"""Task queues, and how long a task of one may take. Add, never rename."""

from datetime import timedelta

from engine.domain.ids import NodeName

PAYMENTS = "payments"
"""Workflow code and the ledger's activities: one queue, because a hop to another costs 5 to 10 ms."""

ONCHAIN = "onchain"
"""Everything that calls bitcoind."""

TASK_TIMEOUT = timedelta(seconds=5)
"""After this time without an answer a workflow task goes to another worker. So a worker's death delays a task by at
most this. Longer local activities renew it by themselves."""


def lightning_queue(node: NodeName) -> str:
    """The queue of the activities that call this one LND node."""
    return f"lightning-{node}"
