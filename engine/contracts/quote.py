"""Messages of a quote's network part: what a node says that the way to a payee costs. Durable: add fields with
defaults, never rename or remove."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from temporalio import activity

from engine.domain.ids import NodeName
from engine.domain.money import Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequest:
    """The way that is asked about."""

    node: NodeName
    payee: str
    """The node's public key in hex."""
    bolt11: str | None
    """Where there is one: it may name private channels to the payee."""
    amount_msat: Msat
    fee_limit_msat: Msat
    may_probe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteQuote:
    """What the node found. Nothing is promised: another payment may use up the way."""

    fee_msat: Msat | None = None
    """For the network; None where the node knows of no way."""
    is_probed: bool = False
    """Whether an HTLC has reached the payee, and come back, over a way of this fee."""
    trouble: str | None = None
    """A stable word for what spoke against it."""


class QuoteActivities(ABC):
    """The node's side: runs on the node's queue."""

    @activity.defn
    @abstractmethod
    async def estimate_route(self, asked: RouteRequest) -> RouteQuote:
        """A look at the node's own map. Nothing is sent, and a repeat looks again."""

    @activity.defn
    @abstractmethod
    async def probe_route(self, asked: RouteRequest) -> RouteQuote:
        """Send an HTLC that nobody can take, and see how far it comes. A repeat sends another one."""
