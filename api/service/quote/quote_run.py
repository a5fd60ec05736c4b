"""The routing fee of a quote: cached for a minute, or asked of a node by a workflow.

    cached in Redis                 the same answer, with the same expiry
    a node answers within 12 s      the fee of a route on its map, or of a probe; cached for a minute
    no node answers                 the default routing cap, with a warning

One probe at a time goes to a payee, and none for a day after the payee has held one: Redis keeps both. Without Redis
there are no probes and no cache. Asking changes nothing, so every step may be repeated.
"""

import asyncio
import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from api.service import temporal
from api.service.resources import Resources
from engine.bank.node.node_choice import find_live_sender
from engine.contracts.quote import RouteQuote, RouteRequest, quote_start
from engine.domain.errors import EngineError, Invalid
from engine.domain.money import MSAT_PER_SAT, Msat
from engine.domain.routing_cap import default_routing_cap
from engine.domain.sending import REFUSED_BY_NODE
from engine.settings import ApiSettings

GOOD_FOR = timedelta(seconds=60)
UNANSWERED = "probe_unanswered"
UNTOLD = "node_unavailable"

FeeSource = Literal["exact", "probe", "estimate"]

_WAIT_S = 12
_PROBING_S = 30
_REST_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingFee:
    """The expected routing fee, the routing cap to allow, how they are known, and what may make a payment fail."""

    fee_msat: Msat
    cap_msat: Msat
    source: FeeSource
    expires_at: datetime
    trouble: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The payee and the amount that a route is wanted for."""

    payee: str
    """The node's public key in hex."""
    amount_msat: Msat
    bolt11: str | None = None
    hints: tuple[str, ...] = ()
    """As `Bolt11.route_hints`."""

    @property
    def digest(self) -> str:
        """The same for every invoice of this payee over this amount."""
        text = " ".join([self.payee, str(self.amount_msat), *self.hints])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


async def quote_route(resources: Resources, route: Route) -> RoutingFee:
    """The routing fee of such a payment now. Where no node answers, the fee has a warning.

    Raises Invalid (`invoice_refused_by_node`) for an invoice that the node cannot read, as the payment would.
    """
    told = await resources.cache.find(f"quote:{route.digest}")
    if told is None:
        told = await _ask(resources, route)
    return _fee(told, route.amount_msat)


def may_probe(settings: ApiSettings, route: Route) -> bool:
    """Whether a probe may be sent to this payee: an HTLC whose only purpose is to see whether it arrives.

    Not behind route hints: they lead to private channels, where a service may wake a phone and hold the HTLC meanwhile.
    """
    if route.hints or route.payee in settings.probe_skip:
        return False
    return route.amount_msat <= settings.probe_max_sat * MSAT_PER_SAT


def _fee(told: str, amount_msat: Msat) -> RoutingFee:
    """A fee above the default routing cap raises the cap: the payer decides."""
    known = json.loads(told)
    default_msat = default_routing_cap(amount_msat)
    fee_msat = default_msat if known["fee_msat"] is None else Msat(known["fee_msat"])
    return RoutingFee(
        fee_msat=fee_msat,
        cap_msat=max(default_msat, fee_msat),
        source="probe" if known["is_probed"] else "estimate",
        expires_at=datetime.fromisoformat(known["expires_at"]),
        trouble=known["trouble"],
    )


async def _ask(resources: Resources, route: Route) -> str:
    """The node's answer, in the form that is cached.

    The lock of a payee belongs to a route, and each request for this route asks for the probe: any of them may start
    the workflow whose answer all of them get. The lock is released when the answer is cached, so that a later request
    does not start another probe.
    """
    async with resources.reading() as conn:
        node = await find_live_sender(conn, Msat(route.amount_msat + default_routing_cap(route.amount_msat)))
    if node is None:
        return _written(RouteQuote(trouble=UNTOLD))
    cache, lock = resources.cache, f"probe:{route.payee}"
    may = may_probe(resources.settings, route)
    takes = may and await cache.take(lock, route.digest, _PROBING_S)
    probes = takes or (may and await cache.find(lock) == route.digest)
    asked = RouteRequest(
        node=node,
        payee=route.payee,
        bolt11=route.bolt11,
        amount_msat=route.amount_msat,
        fee_limit_msat=max(default_routing_cap(route.amount_msat), route.amount_msat),
        may_probe=probes,
    )
    quote = await _run(resources, asked, route.digest)
    told = _written(quote)
    if quote.trouble not in {UNTOLD, REFUSED_BY_NODE}:
        told = await cache.remember(f"quote:{route.digest}", told, int(GOOD_FOR.total_seconds()))
    if probes and quote.trouble == UNANSWERED:
        await cache.put(lock, _REST_S)
    elif takes and quote.trouble != UNTOLD:
        await cache.drop(lock)
    if quote.trouble == REFUSED_BY_NODE:
        raise Invalid("Our Lightning node cannot read this invoice; ask for another one.", code=REFUSED_BY_NODE)
    return told


def _written(quote: RouteQuote) -> str:
    """As it is cached, with its expiry."""
    return json.dumps({**asdict(quote), "expires_at": (datetime.now(UTC) + GOOD_FOR).isoformat()})


async def _run(resources: Resources, asked: RouteRequest, digest: str) -> RouteQuote:
    try:
        async with asyncio.timeout(_WAIT_S):
            started = await temporal.start(resources.temporal, quote_start(asked, digest))
            quote = await temporal.wait(started.handle, _WAIT_S)
    except (EngineError, TimeoutError):
        quote = None
    return RouteQuote(trouble=UNTOLD) if quote is None else quote
