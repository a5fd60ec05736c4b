"""The API's access to the nodes: make, look up and cancel invoices. Its macaroon allows nothing else.

Making an invoice is repeatable because the caller chooses the preimage: a second call finds the invoice of the first.
Cancelling is repeatable at the node. So a lost answer costs a repeat and never a second invoice.
"""

import hashlib

import grpc

from engine.clients.lnd.grpc_channel import open_channel, raise_translated, translated
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc import stateservice_pb2, stateservice_pb2_grpc
from engine.clients.lndrpc.invoicesrpc import invoices_pb2, invoices_pb2_grpc
from engine.clients.lndrpc.lightning_pb2_grpc import LightningStub
from engine.domain.errors import EngineError, InvariantBroken, Unavailable
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat
from engine.settings import NodeSettings

_CALL_TIMEOUT_S = 5
_NOBODYS_HASH = bytes(32)
"""The hash of no invoice. A caller with access is told that there is none."""


class InvoiceNode:
    """One node. Create it in the process that uses it."""

    def __init__(self, name: NodeName, settings: NodeSettings) -> None:
        self.name = name
        self._channel = open_channel(settings)
        self._lightning = LightningStub(self._channel)
        self._invoices = invoices_pb2_grpc.InvoicesStub(self._channel)
        self._state = stateservice_pb2_grpc.StateStub(self._channel)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)

    async def add_invoice(
        self,
        *,
        preimage: bytes,
        amount_msat: Msat | None,
        memo: str | None,
        description_hash: bytes | None,
        expiry_s: int,
        hints: bool = False,
    ) -> str:
        """Make the invoice, or find the one that an earlier call made. Returns its BOLT 11 text.

        With a description hash the memo stays out of the invoice. With `hints` LND adds route hints over active
        unannounced channels to peers that the network knows. It begins with the channels that can receive most, stops
        when they can receive twice the amount, and adds 20 hints at most. An invoice of an earlier call stays as it is.

        Raises Unavailable or OutcomeUnknown. After OutcomeUnknown the node may have the invoice, and a repeat finds it.
        """
        request = ln.Invoice(
            r_preimage=preimage,
            value_msat=amount_msat or 0,
            memo="" if description_hash else memo or "",
            description_hash=description_hash or b"",
            expiry=expiry_s,
            private=hints,
        )
        try:
            answer = await self._lightning.AddInvoice(request, timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if "already exists" not in (error.details() or ""):
                raise_translated(self.name, error)
            return await self._find_bolt11(hashlib.sha256(preimage).digest())
        return answer.payment_request

    async def cancel_invoice(self, payment_hash: PaymentHash) -> bool:
        """As the function `cancel_invoice`."""
        return await cancel_invoice(self._invoices, self.name, payment_hash)

    async def is_active(self) -> bool:
        """Whether the node takes our calls now: it serves, and it accepts our macaroon."""
        try:
            state = await self._state.GetState(stateservice_pb2.GetStateRequest(), timeout=_CALL_TIMEOUT_S)
            if state.state != stateservice_pb2.SERVER_ACTIVE:
                return False
            with translated(self.name):
                request = invoices_pb2.LookupInvoiceMsg(payment_hash=_NOBODYS_HASH)
                await self._invoices.LookupInvoiceV2(request, timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        except EngineError as error:
            return not isinstance(error, Unavailable | InvariantBroken)
        return True

    async def _find_bolt11(self, payment_hash: bytes) -> str:
        with translated(self.name):
            request = invoices_pb2.LookupInvoiceMsg(payment_hash=payment_hash)
            invoice = await self._invoices.LookupInvoiceV2(request, timeout=_CALL_TIMEOUT_S)
        return invoice.payment_request


async def cancel_invoice(
    invoices: "invoices_pb2_grpc.InvoicesAsyncStub", node: NodeName, payment_hash: PaymentHash
) -> bool:
    """Cancel the invoice, or find it cancelled or gone. False when somebody has paid it already. Repeatable."""
    request = invoices_pb2.CancelInvoiceMsg(payment_hash=bytes.fromhex(payment_hash))
    try:
        await invoices.CancelInvoice(request, timeout=_CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        words = error.details() or ""
        if "already settled" in words:
            return False
        if "unable to locate invoice" not in words:
            raise_translated(node, error)
    return True
