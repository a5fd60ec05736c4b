"""Messages of a quote's network part: what the route to a payee costs, as a node reports it. Durable: add fields with
defaults, never rename or remove."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.workflow_start import WorkflowStart
from engine.domain.ids import NodeName
from engine.domain.money import Msat, amount_text, msat_to_sat_floor

_RUN_LIMIT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequest:
    """The route that is asked about."""

    node: NodeName
    payee: str
    """The node's public key in hex."""
    bolt11: str | None
    """The invoice, if there is one: it may name private channels to the payee."""
    amount_msat: Msat
    fee_limit_msat: Msat
    may_probe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteQuote:
    """What the node found. It is no promise: another payment may use up the route."""

    fee_msat: Msat | None = None
    """The network's fee. None: the node knows no route."""
    is_probed: bool = False
    """Whether an HTLC has reached the payee and come back over a route with this fee."""
    trouble: str | None = None
    """A stable code for the obstacle."""


class QuoteActivities(ABC):
    """The node's side: runs on the node's queue."""

    @activity.defn
    @abstractmethod
    async def estimate_route(self, asked: RouteRequest) -> RouteQuote:
        """Look at the node's own graph. Nothing is sent, and a repeat looks again."""

    @activity.defn
    @abstractmethod
    async def probe_route(self, asked: RouteRequest) -> RouteQuote:
        """Send an HTLC that nobody can claim, and see how far it gets. A repeat sends another one."""


def quote_start(asked: RouteRequest, digest: str) -> WorkflowStart[RouteQuote]:
    """The workflow that asks a node. Requests with the same `digest` of payee, hints and amount share one run."""
    return WorkflowStart(
        workflow="QuoteWorkflow",
        argument=asked,
        id=workflow_ids.quote(digest),
        summary=f"what {amount_text(asked.amount_msat)} to {asked.payee[:6]}… costs over {asked.node}",
        attributes=search_attributes.build(
            kind="quote", status="pending", amount_sat=msat_to_sat_floor(asked.amount_msat)
        ),
        result=RouteQuote,
        conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        task_timeout=queues.TASK_TIMEOUT,
        execution_timeout=_RUN_LIMIT,
    )
