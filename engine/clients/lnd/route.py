"""What a route to a payee costs, as one LND node sees it: by its graph, or by a probe.

    estimate   QueryRoutes, local: the graph may be old, and knows nothing of balances
    probe      SendPaymentV2 with a random payment hash: a payee who is reached does not know it and sends it back

We probe ourselves instead of calling EstimateRouteFee. That call uses LND's own fee limit and time lock, and needs an
amount in the invoice. A quote must be for the payment that we would send. A probe has one part, because a part that
reaches the payee comes back before the next. If only several parts together could pass, a probe finds no route.

A payee who keeps the probe locks up the amount until its time lock ends, and gains nothing. LND then makes no further
attempt (`cancelable`). The node keeps a failed payment for each probe: none of our macaroons may delete payments.
"""

import asyncio
import secrets
from contextlib import suppress
from typing import NoReturn

import grpc

from engine.clients.lnd.decode import InvoiceReader
from engine.clients.lnd.grpc_channel import open_channel, raise_translated, translated
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.lightning_pb2_grpc import LightningStub
from engine.clients.lndrpc.routerrpc import router_pb2, router_pb2_grpc
from engine.domain.errors import Invalid
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat
from engine.domain.sending import CLTV_LIMIT
from engine.settings import NodeSettings

PROBE_LIMIT_S = 8
"""How long to wait for a probe. Together with the estimate it is short enough for a caller."""
_TRY_LIMIT_S = 5
"""How long LND goes on trying other routes."""
_CALL_TIMEOUT_S = 3
_HASH_BYTES = 32

_REASONS = {
    ln.FAILURE_REASON_TIMEOUT: "payment_timeout",
    ln.FAILURE_REASON_INSUFFICIENT_BALANCE: "insufficient_liquidity",
}
_ARRIVED = (ln.Failure.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS, ln.Failure.FINAL_INCORRECT_HTLC_AMOUNT)


class NoWay(Exception):
    """There is no route within the limits now. The code names the obstacle."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class LndRoutes:
    """One node. Create it in the process that uses it."""

    def __init__(self, name: NodeName, settings: NodeSettings) -> None:
        self.name = name
        self._channel = open_channel(settings)
        self._lightning = LightningStub(self._channel)
        self._router = router_pb2_grpc.RouterStub(self._channel)
        self._reader = InvoiceReader(name, self._lightning, self._is_awake)

    async def close(self) -> None:
        """Close the connection. A probe in flight tries no other route."""
        await self._channel.close(None)

    async def estimate(self, *, payee: str, bolt11: str | None, amount_msat: Msat, limit_msat: Msat) -> Msat:
        """The fee of the best route in the node's graph. Nothing is sent. Raises NoWay, Unavailable."""
        asked = await self._decode(bolt11)
        request = ln.QueryRoutesRequest(
            pub_key=payee,
            amt_msat=amount_msat,
            fee_limit=ln.FeeLimit(fixed_msat=limit_msat),
            cltv_limit=CLTV_LIMIT,
            final_cltv_delta=asked.cltv_expiry,
            route_hints=asked.route_hints,
            dest_features=[ln.FeatureBit.ValueType(bit) for bit in asked.features],
            use_mission_control=True,
        )
        try:
            answer = await self._lightning.QueryRoutes(request, timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            self._explain(error)
        return Msat(min(route.total_fees_msat for route in answer.routes))

    async def probe(self, *, payee: str, bolt11: str | None, amount_msat: Msat, limit_msat: Msat) -> Msat:
        """The fee of a route over which an HTLC has just reached the payee. Raises NoWay, Unavailable."""
        asked = await self._decode(bolt11)
        request = router_pb2.SendPaymentRequest(
            dest=bytes.fromhex(payee),
            amt_msat=amount_msat,
            payment_hash=secrets.token_bytes(_HASH_BYTES),
            payment_addr=secrets.token_bytes(_HASH_BYTES) if bolt11 else b"",
            final_cltv_delta=asked.cltv_expiry,
            dest_features=[ln.FeatureBit.ValueType(bit) for bit in asked.features],
            fee_limit_msat=limit_msat,
            cltv_limit=CLTV_LIMIT,
            max_parts=1,
            timeout_seconds=_TRY_LIMIT_S,
            no_inflight_updates=True,
            cancelable=True,
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(PROBE_LIMIT_S):
                with translated(self.name):
                    async for payment in self._router.SendPaymentV2(request):
                        return _fee_of_probe(payment)
        raise NoWay("probe_unanswered")

    async def _decode(self, bolt11: str | None) -> ln.PayReq:
        """What the invoice says about its last hops; LND's defaults without an invoice.

        Raises NoWay (`invoice_refused_by_node`) for an invoice that the node cannot read: the payment would be refused.
        """
        if bolt11 is None:
            return ln.PayReq()
        try:
            return await self._reader.read(bolt11)
        except Invalid as refused:
            raise NoWay(refused.code) from refused

    async def _is_awake(self, _payment_hash: PaymentHash) -> None:
        with translated(self.name, looks=True):
            await self._lightning.GetInfo(ln.GetInfoRequest(), timeout=_CALL_TIMEOUT_S)

    def _explain(self, error: grpc.aio.AioRpcError) -> NoReturn:
        """Raise for LND's error. LND reports "no route" as an error with a text only."""
        words = (error.details() or "").lower()
        if error.code() is grpc.StatusCode.UNKNOWN and "insufficient local balance" in words:
            raise NoWay("insufficient_liquidity") from error
        if error.code() is grpc.StatusCode.UNKNOWN and ("path" in words or "route" in words):
            raise NoWay("no_route") from error
        raise_translated(self.name, error)


def _fee_of_probe(payment: ln.Payment) -> Msat:
    for attempt in payment.htlcs:
        at_the_end = attempt.failure.failure_source_index == len(attempt.route.hops)
        if attempt.status == ln.HTLCAttempt.FAILED and at_the_end and attempt.failure.code in _ARRIVED:
            return Msat(attempt.route.total_fees_msat)
    raise NoWay(_REASONS.get(payment.failure_reason, "no_route"))
