"""Messages of a node's pump: the singleton that turns a node's event streams into workflow starts and signals."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from engine.contracts import search_attributes, workflow_ids
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.ids import NodeName


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpInput:
    """Whose streams to pump."""

    node: NodeName


class PumpActivities(ABC):
    """Long activities, one of each per node; they end only when cancelled or when a stream breaks."""

    @activity.defn
    @abstractmethod
    async def pump_invoices(self, pump: PumpInput) -> None:
        """Follow settled invoices from the cursor in Postgres and start the workflows that credit them."""

    @activity.defn
    @abstractmethod
    async def pump_payments(self, pump: PumpInput) -> None:
        """Follow outgoing payments and signal the workflow of each payment that became final."""

    @activity.defn
    @abstractmethod
    async def tend_node(self, pump: PumpInput) -> None:
        """Cancel at the node the invoices that were settled in the ledger, and report what the node can send."""


def pump_start(node: NodeName) -> WorkflowStart[None]:
    """A node's pump. A start finds a running one."""
    return WorkflowStart(
        workflow="LndPumpWorkflow",
        argument=PumpInput(node=node),
        id=workflow_ids.pump(node),
        summary=f"follow invoices and payments of {node}",
        attributes=search_attributes.build(kind="pump"),
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
