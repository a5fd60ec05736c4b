"""Messages of a node's adoption: the moment from which our books answer for what it holds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from engine.contracts import search_attributes, workflow_ids
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.ids import NodeName
from engine.domain.money import Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptNode:
    """Which of the configured nodes to take into the books."""

    node: NodeName


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePosition:
    """What an LND node holds for us, with nothing in flight."""

    node: NodeName
    pubkey: str
    channels_msat: Msat
    commit_escrow_msat: Msat
    onchain_msat: Msat
    settle_index: int
    """The index of the node's last settled invoice. Receipts up to this one are part of the opening balance."""


class NodeActivities(ABC):
    """The ledger's side of an adoption."""

    @activity.defn
    @abstractmethod
    async def book_opening(self, position: NodePosition) -> bool:
        """Book what the node holds as capital, once per node for ever. Returns whether it was new."""


class NodePositionActivities(ABC):
    """The node's side: runs on the node's queue."""

    @activity.defn
    @abstractmethod
    async def read_position(self, adopt: AdoptNode) -> NodePosition:
        """Read identity and balances. Fails while anything is in flight, and is then retried."""


def adoption_start(node: NodeName) -> WorkflowStart[bool]:
    """The workflow that takes a node into the books, once."""
    return WorkflowStart(
        workflow="AdoptNodeWorkflow",
        argument=AdoptNode(node=node),
        id=workflow_ids.adopt_node(node),
        summary=f"take {node} into the books",
        attributes=search_attributes.build(kind="adopt-node"),
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
    )
