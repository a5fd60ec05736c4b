"""Compares what one of our nodes reads in an invoice with what we have read ourselves.

The node pays what it reads, so its reading decides. An invoice that it cannot read, or reads differently than we do, is
refused with a code before anything is held. LND reads an invoice for `DecodePayReq` as it does for a payment. The call
is local and needs no chain.

LND has no status of its own for "this is not an invoice": its text comes as UNKNOWN, like that of a node that is just
starting (seen). A refusal counts when the node answers another call and then says the same again.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import grpc

from engine.clients import bolt11 as reader
from engine.clients.lnd.grpc_channel import raise_translated
from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc import lightning_pb2_grpc
from engine.domain.errors import Invalid, NotFound, OutcomeUnknown, Unavailable
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat
from engine.domain.sending import REFUSED_BY_NODE

log = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 10
_KEPT, _KEPT_S = 1024, 60
"""How many readings are kept, and for how many seconds. A quote, its payment and its send cost the node one call."""
_NO_ANSWER = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""Codes that may also come from the connection, without the node."""


def answer_of(node: NodeName, error: grpc.aio.AioRpcError) -> str:
    """The node's own text about the call. Raises as `translated` does when the error is not about the call itself."""
    try:
        raise_translated(node, error)
    except (Invalid, NotFound, OutcomeUnknown):
        if error.code() in _NO_ANSWER:
            raise
    return error.details() or error.code().name


class InvoiceReader:
    """Reads invoices by one node. `is_awake` is another call, which raises while the node is starting."""

    def __init__(
        self,
        node: NodeName,
        lightning: "lightning_pb2_grpc.LightningAsyncStub",
        is_awake: Callable[[PaymentHash], Awaitable[object]],
    ) -> None:
        self._node = node
        self._lightning = lightning
        self._is_awake = is_awake
        self._kept: OrderedDict[bytes, tuple[float, ln.PayReq]] = OrderedDict()

    async def read(self, bolt11: str) -> ln.PayReq:
        """What the node reads, which is what we read. A repeat within a minute does not ask the node.

        Raises Invalid (`invoice_refused_by_node`), and Unavailable when the node does not answer.
        """
        key = hashlib.sha256(bolt11.encode()).digest()
        until, known = self._kept.get(key, (0.0, ln.PayReq()))
        if time.monotonic() < until:
            return known
        ours = reader.decode(bolt11, network=None)
        try:
            said = await self._ask_twice(bolt11, ours.payment_hash)
        except OutcomeUnknown as error:  # the call only reads
            raise Unavailable(error.detail) from error
        if different := _differences(said, ours):
            log.error("%s reads %s otherwise than we do: %s", self._node, ours.payment_hash, ", ".join(different))
            raise _refused()
        self._kept[key] = (time.monotonic() + _KEPT_S, said)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return said

    async def _ask_twice(self, bolt11: str, payment_hash: PaymentHash) -> ln.PayReq:
        first = await self._ask(bolt11)
        if isinstance(first, ln.PayReq):
            return first
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                await self._is_awake(payment_hash)
        except TimeoutError as error:
            raise Unavailable(f"{self._node} cannot read an invoice, and does not answer") from error
        second = await self._ask(bolt11)
        if isinstance(second, ln.PayReq):
            return second
        if second != first:
            raise Unavailable(f"{self._node} cannot read an invoice: {first}; then: {second}")
        log.warning("%s cannot read the invoice of %s: %r", self._node, payment_hash, second)
        raise _refused()

    async def _ask(self, bolt11: str) -> ln.PayReq | str:
        """What the node reads, or its text why it cannot."""
        try:
            return await self._lightning.DecodePayReq(ln.PayReqString(pay_req=bolt11), timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return answer_of(self._node, error)


def require_same(said: ln.PayReq, payment_hash: PaymentHash, amount_msat: Msat | None) -> None:
    """Raises Invalid (`invoice_refused_by_node`) when the node would pay another hash or amount than we hold."""
    if (said.payment_hash, said.num_msat) != (payment_hash, amount_msat or 0):
        raise _refused()


def _differences(said: ln.PayReq, ours: reader.Bolt11) -> list[str]:
    """The fields that differ. Not the last time lock: without one LND takes 24 blocks, more than BOLT 11 asks for."""
    pairs = {
        "payment hash": (said.payment_hash, ours.payment_hash),
        "payment secret": (said.payment_addr.hex(), ours.payment_secret),
        "amount": (said.num_msat, ours.amount_msat or 0),
        "payee": (said.destination, ours.payee),
        "created": (said.timestamp, int(ours.created_at.timestamp())),
        "expiry": (said.expiry, round((ours.expires_at - ours.created_at).total_seconds())),
    }
    return [name for name, (theirs, mine) in pairs.items() if theirs != mine]


def _refused() -> Invalid:
    return Invalid(
        "Our Lightning node cannot read this invoice, so it would not be paid; ask for another one.",
        code=REFUSED_BY_NODE,
    )
