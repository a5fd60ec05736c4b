"""Messages of the chain pump: the singleton that turns blocks and the mempool into facts about deposits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from engine.contracts import search_attributes, workflow_ids
from engine.contracts.workflow_start import WorkflowStart


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPumpInput:
    """Which wallet of bitcoind to follow."""

    wallet: str


class AdoptionActivities(ABC):
    """Runs on the queue `onchain`."""

    @activity.defn
    @abstractmethod
    async def adopt_wallet(self, pump: ChainPumpInput) -> bool:
        """Book what is in the wallet as capital, once for ever. Returns whether this call did it."""


class ChainPumpActivities(ABC):
    """A long activity, on the queue `onchain`. It ends only when cancelled, or when bitcoind cannot be followed."""

    @activity.defn
    @abstractmethod
    async def follow_chain(self, pump: ChainPumpInput) -> None:
        """Write down blocks and deposits as bitcoind shows them, and start the workflows that move deposits on."""


class AddressPoolActivities(ABC):
    """A long activity, on the queue `onchain`. It ends only when cancelled, or when bitcoind is away."""

    @activity.defn
    @abstractmethod
    async def tend_pool(self, pump: ChainPumpInput) -> None:
        """Make addresses ahead, and keep every address of ours within what the wallet watches."""


def chain_pump_start(wallet: str) -> WorkflowStart[None]:
    """The pump of a wallet. A start finds a running one."""
    return WorkflowStart(
        workflow="ChainPumpWorkflow",
        argument=ChainPumpInput(wallet=wallet),
        id=workflow_ids.chain_pump(wallet),
        summary=f"follow the chain for the wallet {wallet}",
        attributes=search_attributes.build(kind="pump"),
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
