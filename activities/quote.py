"""Asks a node what a route costs. Nothing is held, booked or stored here: a probe cannot move money.

A probe is an HTLC with a random payment hash. Nobody knows a preimage for it, neither the payee nor we, so it can only
come back. It has no row in the bank. Reconciliation compares payments that succeeded, which a probe cannot. While its
HTLC is on the way, its amount counts as the node's.
"""

import asyncio

from temporalio import activity

from engine.clients.lnd.route import LndRoutes, NoWay
from engine.contracts.quote import QuoteActivities, RouteQuote, RouteRequest

_AT_ONCE = 4
"""The most probes in flight from one process over one node. A further probe is not sent."""


class Quotes(QuoteActivities):
    """Bound to one node."""

    def __init__(self, routes: LndRoutes) -> None:
        self._routes = routes
        self._room = asyncio.Semaphore(_AT_ONCE)

    @activity.defn
    async def estimate_route(self, asked: RouteRequest) -> RouteQuote:
        try:
            fee_msat = await self._routes.estimate(
                payee=asked.payee, bolt11=asked.bolt11, amount_msat=asked.amount_msat, limit_msat=asked.fee_limit_msat
            )
        except NoWay as none:
            return RouteQuote(trouble=none.code)
        return RouteQuote(fee_msat=fee_msat)

    @activity.defn
    async def probe_route(self, asked: RouteRequest) -> RouteQuote:
        if self._room.locked():
            return RouteQuote()
        async with self._room:
            try:
                fee_msat = await self._routes.probe(
                    payee=asked.payee,
                    bolt11=asked.bolt11,
                    amount_msat=asked.amount_msat,
                    limit_msat=asked.fee_limit_msat,
                )
            except NoWay as none:
                return RouteQuote(trouble=none.code)
        return RouteQuote(fee_msat=fee_msat, is_probed=True)
