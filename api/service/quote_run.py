"""The network's part of a quote: remembered from the last minute, or asked of a node by a workflow.

    remembered in Redis           the same answer, with the same end
    a node tells within 12 s      the fee on its map, or that of a probe; remembered for a minute
    nobody tells                  what the network may take by default, with a warning

A payee is probed once at a time, and after he has kept a probe not for a day: both stand in Redis. Without Redis
nobody is probed and nothing is remembered. Asking changes nothing, so every step may be repeated.
"""

import asyncio
import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from api.service import temporal
from api.service.resources import Resources
from engine.contracts.quote import RouteQuote, RouteRequest, quote_start
from engine.domain.errors import EngineError, Invalid
from engine.domain.ids import NodeName
from engine.domain.money import MSAT_PER_SAT, Msat
from engine.domain.routing_cap import default_routing_cap
from engine.domain.sending import REFUSED_BY_NODE
from engine.ledger.database import translated
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
    """What the network is expected to take, the cap to give it, how we know, and what speaks against it."""

    fee_msat: Msat
    cap_msat: Msat
    source: FeeSource
    expires_at: datetime
    trouble: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Who is paid how much."""

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


async def quote_route(resources: Resources, way: Way) -> RoutingFee:
    """What this would cost over the network now. That no node can be asked is a warning, and no error.

    Raises Invalid (`invoice_refused_by_node`) for an invoice that the node cannot read, as its payment would be.
    """
    told = await resources.cache.find(f"quote:{way.digest}")
    if told is None:
        node = await _find_node(resources, Msat(way.amount_msat + default_routing_cap(way.amount_msat)))
        told = _in_words(RouteQuote(trouble=UNTOLD)) if node is None else await _find_out(resources, way, node)
    return _fee(told, way.amount_msat)


def may_probe(settings: ApiSettings, way: Way) -> bool:
    """Whether an HTLC may be sent to this payee only to see whether it arrives.

    Not to whoever hints at private channels: there a service wakes a phone, and may keep the HTLC meanwhile.
    """
    if way.hints or way.payee in settings.probe_skip:
        return False
    return way.amount_msat <= settings.probe_max_sat * MSAT_PER_SAT


def _fee(told: str, amount_msat: Msat) -> RoutingFee:
    """A fee above the default cap is told, and raises the cap: the payer decides."""
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


async def _find_out(resources: Resources, way: Way, node: NodeName) -> str:
    """What the node tells, as it is remembered.

    Whoever asks for the way that has the payee's turn asks for the probe as well: any of them may be the one who begins
    the run that all of them get. The turn ends when the answer can be found, so that nobody who comes then begins
    another one.
    """
    cache, turn = resources.cache, f"probe:{way.payee}"
    may = may_probe(resources.settings, way)
    takes = may and await cache.take(turn, way.digest, _PROBING_S)
    probes = takes or (may and await cache.find(turn) == way.digest)
    asked = RouteRequest(
        node=node,
        payee=way.payee,
        bolt11=way.bolt11,
        amount_msat=way.amount_msat,
        fee_limit_msat=max(default_routing_cap(way.amount_msat), way.amount_msat),
        may_probe=probes,
    )
    quote = await _run(resources, asked, way.digest)
    told = _in_words(quote)
    if quote.trouble not in {UNTOLD, REFUSED_BY_NODE}:
        told = await cache.remember(f"quote:{way.digest}", told, int(GOOD_FOR.total_seconds()))
    if probes and quote.trouble == UNANSWERED:
        await cache.put(turn, _REST_S)
    elif takes and quote.trouble != UNTOLD:
        await cache.drop(turn)
    if quote.trouble == REFUSED_BY_NODE:
        raise Invalid("Our Lightning node cannot read this invoice; ask for another one.", code=REFUSED_BY_NODE)
    return told


def _in_words(quote: RouteQuote) -> str:
    """With its end."""
    return json.dumps({**asdict(quote), "expires_at": (datetime.now(UTC) + GOOD_FOR).isoformat()})


async def _find_node(resources: Resources, total_msat: Msat) -> NodeName | None:
    """The node that a payment would most likely be pinned to; None when none has reported lately."""
    async with resources.reading() as conn:
        with translated():
            name: str | None = await conn.fetchval(
                """SELECT name FROM bank.nodes WHERE bank.has_reported(reported_at)
                    ORDER BY outbound_msat >= $1 DESC, outbound_msat DESC, name LIMIT 1""",
                total_msat,
            )
    return None if name is None else NodeName(name)


async def _run(resources: Resources, asked: RouteRequest, digest: str) -> RouteQuote:
    try:
        async with asyncio.timeout(_WAIT_S):
            started = await temporal.start(resources.temporal, quote_start(asked, digest))
            quote = await temporal.wait(started.handle, _WAIT_S)
    except (EngineError, TimeoutError):
        quote = None
    return RouteQuote(trouble=UNTOLD) if quote is None else quote
