"""One LND node as the worker sees it: send, look, follow streams, read balances. Its macaroon allows neither deleting a
payment, which would erase the node's own record of what was sent, nor moving coins on chain.

What LND's answers mean is decided here, once:

* A payment is final when `status` is SUCCEEDED or FAILED. `failure_reason` may be set while attempts are still in
  flight, so it decides nothing.
* SendPaymentV2 is repeatable by payment hash until the payment has FAILED: ALREADY_EXISTS means "look at it".
* An error before LND has made a payment row comes as text. It counts only after a look has found no payment
  (refusal.py). An error that is not the node's answer leaves the outcome unknown.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NoReturn

import grpc

from engine.clients.lnd import balance, decode, htlc, inbound, untried
from engine.clients.lnd.grpc_channel import open_channel, raise_translated, translated
from engine.clients.lnd.invoice import cancel_invoice
from engine.clients.lnd.refusal import refusal
from engine.clients.lnd.settled import read_claimed, read_settled
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.invoicesrpc import invoices_pb2, invoices_pb2_grpc
from engine.clients.lndrpc.lightning_pb2_grpc import LightningStub
from engine.clients.lndrpc.routerrpc import router_pb2, router_pb2_grpc
from engine.domain.errors import NotFound, OutcomeUnknown, Unavailable
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import MAX_AMOUNT_MSAT, Msat
from engine.domain.sending import CLTV_LIMIT
from engine.settings import NodeSettings

_CALL_TIMEOUT_S = 10
_SEND_TIMEOUT_S = 60
"""How long LND goes on trying new routes. It does not end what is in flight."""
_MAX_PARTS = 16
_KEYSEND_RECORD = 5482373484
"""The onion record in which a payee finds the preimage of a payment without an invoice."""
_INVOICE_PAGE = 1000


class NodePaymentStatus(StrEnum):
    """The node's status of a payment; the last two are final."""

    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePayment:
    """A payment as the node has it."""

    payment_hash: PaymentHash
    status: NodePaymentStatus
    fee_msat: Msat
    preimage: str | None
    failure_reason: str
    payment_index: int
    created_at: datetime
    """By the node's clock."""
    time_lock: int = 0
    """The last block until which any of its attempts can be claimed; 0 before the first attempt."""
    preimage_seen: bool = False
    """Whether an attempt was paid, even if the payment is not final."""
    delivered_msat: Msat | None = None
    """What the payee has got, by the settled attempts; None until that is final."""
    claimed_msat: Msat = Msat(0)
    """What has left the node so far with settled attempts, fees included, even if the payment is not final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInvoice:
    """An invoice as the node has it."""

    payment_hash: PaymentHash
    settled: bool
    cancelled: bool
    received_msat: Msat
    settle_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """The node that answers, and over how many channels it could send now."""

    pubkey: str
    active_channels: int
    synced: bool = True
    """Whether the node has seen the newest block. Before that, its HTLCs may be locked for too short a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keysend:
    """A payment without an invoice: the payee finds the preimage in it."""

    payee: str
    preimage: bytes


class LndNode:
    """One node. Create it in the process that uses it."""

    def __init__(self, name: NodeName, settings: NodeSettings) -> None:
        self.name = name
        self._channel = open_channel(settings)
        self._lightning = LightningStub(self._channel)
        self._router = router_pb2_grpc.RouterStub(self._channel)
        self._invoices = invoices_pb2_grpc.InvoicesStub(self._channel)
        self._reader = decode.InvoiceReader(name, self._lightning, self.find_payment)

    async def close(self) -> None:
        """Close the connection. Its streams end."""
        await self._channel.close(None)

    # Outgoing

    async def get_identity(self) -> NodeIdentity:
        """The node's public key and state. Raises Unavailable while the node is down or still starting."""
        with translated(self.name, looks=True):
            info = await self._lightning.GetInfo(ln.GetInfoRequest(), timeout=_CALL_TIMEOUT_S)
        return NodeIdentity(
            pubkey=info.identity_pubkey, active_channels=info.num_active_channels, synced=info.synced_to_chain
        )

    async def read_htlcs(self) -> htlc.NodeHtlcs:
        """As `htlc.read_htlcs`."""
        return await htlc.read_htlcs(self._lightning, self.name)

    async def read_closed(self) -> dict[str, bool]:
        """As `htlc.read_closed`."""
        return await htlc.read_closed(self._lightning, self.name)

    async def end_untried(self, payment_hash: PaymentHash, amount_msat: Msat) -> None:
        """As `untried.end_untried`."""
        await untried.end_untried(self._lightning, self._router, self.name, payment_hash, amount_msat)

    async def find_payment(self, payment_hash: PaymentHash) -> NodePayment | None:
        """The node's payment of this hash. None means "not in its database", which does not mean "never sent".

        Raises Unavailable when the node does not answer.
        """
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S), aclosing(self.follow_payment(payment_hash)) as updates:
                async for payment in updates:
                    return payment
        except NotFound:
            return None
        except TimeoutError as error:
            raise Unavailable(f"{self.name} does not answer about {payment_hash}") from error
        raise Unavailable(f"{self.name}: the answer about {payment_hash} ended before it began")

    async def follow_payment(self, payment_hash: PaymentHash) -> AsyncGenerator[NodePayment, None]:
        """The payment's state now and at every change, until final. Raises NotFound if the node does not know it."""
        request = router_pb2.TrackPaymentRequest(payment_hash=bytes.fromhex(payment_hash))
        with translated(self.name):
            async for payment in self._router.TrackPaymentV2(request):
                yield _read_payment(payment)

    async def check_invoice(self, bolt11: str, payment_hash: PaymentHash, amount_msat: Msat | None) -> None:
        """Check that the node reads this invoice as we do. `amount_msat` is None for an invoice without an amount.

        Raises Invalid (`invoice_refused_by_node`) when it does not, and Unavailable when it does not answer. A repeat
        within a minute costs the node nothing.
        """
        decode.require_same(await self._reader.read(bolt11), payment_hash, amount_msat)

    async def send_payment(
        self,
        *,
        bolt11: str,
        keysend: Keysend | None,
        payment_hash: PaymentHash,
        amount_msat: Msat | None,
        max_fee_msat: Msat,
        known_payment_index: int,
    ) -> AsyncGenerator[NodePayment, None]:
        """Send, or find what an earlier send of the same hash has become. Then follow the payment until it is final.

        Give `amount_msat` when no invoice names it. `known_payment_index` is the index of the last attempt that is
        known to have failed. Raises SendRefused when nothing was begun, NotBegun when nothing seems to have been begun,
        and OutcomeUnknown or Unavailable when nobody knows.
        """
        request = router_pb2.SendPaymentRequest(
            payment_request=bolt11,
            amt_msat=amount_msat or 0,
            fee_limit_msat=max_fee_msat,
            cltv_limit=CLTV_LIMIT,
            max_parts=1 if keysend else _MAX_PARTS,
            timeout_seconds=_SEND_TIMEOUT_S,
        )
        if keysend is not None:
            request.dest = bytes.fromhex(keysend.payee)
            request.payment_hash = bytes.fromhex(payment_hash)
            request.dest_custom_records[_KEYSEND_RECORD] = keysend.preimage
        begun = False
        try:
            async for update in self._router.SendPaymentV2(request):
                begun = True
                yield _read_payment(update)
        except grpc.aio.AioRpcError as error:
            if begun:
                raise_translated(self.name, error)
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                await self._explain_failed_send(payment_hash, known_payment_index, error)
        else:
            return
        async for payment in self.follow_payment(payment_hash):
            yield payment

    async def follow_payments(self) -> AsyncGenerator[NodePayment, None]:
        """Every payment of this node that ends, from now on."""
        with translated(self.name):
            async for payment in self._router.TrackPayments(router_pb2.TrackPaymentsRequest(no_inflight_updates=True)):
                yield _read_payment(payment)

    async def has_route_above(self, *, bolt11: str, payee: str | None, amount_msat: Msat, fee_msat: Msat) -> bool:
        """Whether every route costs more than `fee_msat`, and there is one. Looks at the local graph; sends nothing."""
        decoded = ln.PayReq(destination=payee) if payee else await self._reader.read(bolt11)
        request = ln.QueryRoutesRequest(
            pub_key=decoded.destination,
            amt_msat=amount_msat,
            fee_limit=ln.FeeLimit(fixed_msat=MAX_AMOUNT_MSAT),  # LND's default of 5 % would hide dearer routes
            final_cltv_delta=decoded.cltv_expiry,
            route_hints=decoded.route_hints,
            use_mission_control=True,
            dest_features=[ln.FeatureBit.ValueType(bit) for bit in decoded.features],
        )
        try:
            answer = await self._lightning.QueryRoutes(request, timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError:  # LND says "no route" as an error
            return False
        return bool(answer.routes) and all(route.total_fees_msat > fee_msat for route in answer.routes)

    async def _explain_failed_send(
        self, payment_hash: PaymentHash, known_payment_index: int, error: grpc.aio.AioRpcError
    ) -> NoReturn:
        words = decode.answer_of(self.name, error)
        known = await self.find_payment(payment_hash)
        if known is not None and known.payment_index > known_payment_index:
            raise OutcomeUnknown(f"{self.name}: {words}") from error
        raise refusal(error.code(), words) from error

    # Incoming

    async def follow_settled_invoices(self, after_index: int) -> AsyncGenerator[NodeInvoice, None]:
        """Invoices as they settle, beginning with the backlog above the settle index `after_index`.

        An index of 0 gives no backlog (seen). Gaps and repeats happen.
        """
        subscription = ln.InvoiceSubscription(settle_index=after_index)
        with translated(self.name):
            async for invoice in self._lightning.SubscribeInvoices(subscription):
                if invoice.state == ln.Invoice.SETTLED:
                    yield _read_invoice(invoice)

    async def find_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        """The node's invoice of this hash; None if the node has none."""
        request = invoices_pb2.LookupInvoiceMsg(payment_hash=bytes.fromhex(payment_hash))
        try:
            with translated(self.name):
                return _read_invoice(await self._invoices.LookupInvoiceV2(request, timeout=_CALL_TIMEOUT_S))
        except NotFound:
            return None

    async def list_settled_invoices(self) -> list[NodeInvoice]:
        """Every settled invoice of the node, read page by page. Meant for the beginning of a node's life."""
        settled: list[NodeInvoice] = []
        offset = 0
        while True:
            request = ln.ListInvoiceRequest(index_offset=offset, num_max_invoices=_INVOICE_PAGE)
            with translated(self.name):
                page = await self._lightning.ListInvoices(request, timeout=_CALL_TIMEOUT_S)
            settled += [_read_invoice(invoice) for invoice in page.invoices if invoice.state == ln.Invoice.SETTLED]
            if len(page.invoices) < _INVOICE_PAGE:
                return settled
            offset = page.last_index_offset

    async def read_last_settle_index(self) -> int:
        """The highest settle index; 0 on a node that has never been paid."""
        return max((invoice.settle_index for invoice in await self.list_settled_invoices()), default=0)

    async def cancel_invoice(self, payment_hash: PaymentHash) -> bool:
        """As `invoice.cancel_invoice`."""
        return await cancel_invoice(self._invoices, self.name, payment_hash)

    # Balances

    async def read_room(self) -> inbound.NodeRoom:
        """As `inbound.read_room`."""
        return await inbound.read_room(self._lightning, self.name)

    async def read_balances(self) -> balance.NodeBalances:
        """As `balance.read_balances`."""
        return await balance.read_balances(self._lightning, self.name)


_STATUS = {
    ln.Payment.SUCCEEDED: NodePaymentStatus.SUCCEEDED,
    ln.Payment.FAILED: NodePaymentStatus.FAILED,
}
_REASONS = {number: name for name, number in ln.PaymentFailureReason.items()}
"""A later LND may give a number that has no name here."""


def _read_payment(payment: ln.Payment) -> NodePayment:
    status = _STATUS.get(payment.status, NodePaymentStatus.IN_FLIGHT)
    settled = read_settled(payment) if status is NodePaymentStatus.SUCCEEDED else None
    return NodePayment(
        payment_hash=PaymentHash(payment.payment_hash),
        status=status,
        fee_msat=settled.fee_msat if settled else Msat(payment.fee_msat),
        delivered_msat=settled.delivered_msat if settled else None,
        preimage=payment.payment_preimage if status is NodePaymentStatus.SUCCEEDED else None,
        failure_reason=_REASONS.get(payment.failure_reason, str(payment.failure_reason)),
        payment_index=payment.payment_index,
        created_at=datetime.fromtimestamp(payment.creation_time_ns // 1_000_000_000, UTC),
        time_lock=max((attempt.route.total_time_lock for attempt in payment.htlcs), default=0),
        preimage_seen=any(attempt.preimage for attempt in payment.htlcs),
        claimed_msat=read_claimed(payment),
    )


def _read_invoice(invoice: ln.Invoice) -> NodeInvoice:
    return NodeInvoice(
        payment_hash=PaymentHash(invoice.r_hash.hex()),
        settled=invoice.state == ln.Invoice.SETTLED,
        cancelled=invoice.state == ln.Invoice.CANCELED,
        received_msat=Msat(invoice.amt_paid_msat),
        settle_index=invoice.settle_index,
    )
