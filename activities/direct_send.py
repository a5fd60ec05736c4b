"""Direct send: the worker that holds the money of a payment also sends it, because most payments end within a second.

    before the money is held        the node reads the invoice; an invoice that it cannot read is refused
    money held here a moment ago    the node is told to send, without a look: nobody can have told it before
    any other payment               left to the node's own queue, where every send begins with a look
    no end within some seconds      followed from the node's queue

The number of workflow tasks that wait here for nodes is bounded; a task carries one payment or a lane. So slow payees
take no place from fast ones. Reading an invoice takes no place: it is short, and a node that does not answer is not
asked again for some seconds. An invoice that was not read here is read before the send.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from temporalio import activity

from activities.sending.sending import Sending
from engine.contracts.payment import AttemptReport, LightningAttempt
from engine.domain.errors import EngineError, Invalid
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat

_FOLLOW_S = 3.5
_ALL_S = 4
"""The time-out of a direct send: following it, and the calls before."""
_NEW_S = 2
"""How long after an opening began no other worker can have taken the payment over. A workflow task goes to another
worker after five seconds; a payment that a lane has opened goes to another workflow after ten."""

_READ_S = 1
_SILENT_S = 5
"""How long a node that did not answer is not asked to read invoices before the hold."""


class DirectSend:
    """Sends directly over the nodes that this process calls. At most `most` tasks wait here at a time."""

    def __init__(self, nodes: Mapping[NodeName, Sending], *, most: int) -> None:
        self._nodes = nodes
        self._most = most
        self._under_way = 0
        self._silent_until: dict[NodeName, float] = {}

    @property
    def calls_nodes(self) -> bool:
        """Whether this process calls any node."""
        return bool(self._nodes)

    async def require_readable(
        self, node: NodeName, bolt11: str, payment_hash: PaymentHash, amount_msat: Msat | None
    ) -> None:
        """Have the node read an invoice that it would be told to pay.

        Raises Invalid (`invoice_refused_by_node`). Does nothing when this process does not call the node, or the node
        does not answer.
        """
        sending = self._nodes.get(node)
        if sending is None or time.monotonic() < self._silent_until.get(node, 0.0):
            return
        try:
            async with asyncio.timeout(_READ_S):
                await sending.check_invoice(bolt11, payment_hash, amount_msat)
        except Invalid:
            raise
        except (EngineError, TimeoutError) as error:
            self._silent_until[node] = time.monotonic() + _SILENT_S
            activity.logger.info("%s is read before its send: %s", payment_hash, error)

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Take a place for the block; yields whether the task in it may wait for nodes."""
        if self._under_way >= self._most:
            yield False
            return
        self._under_way += 1
        try:
            yield True
        finally:
            self._under_way -= 1

    async def send(self, attempt: LightningAttempt, *, opening_since: float) -> AttemptReport | None:
        """Send a payment that this call has just opened; `opening_since` is when that began, by the monotonic clock.

        Returns None when the node did not answer: the next send must begin with a look. Raises no engine error.
        """
        node = self._nodes.get(attempt.node)
        if node is None:
            return None
        try:
            async with asyncio.timeout(_ALL_S):
                return await node.send(attempt, new_until=opening_since + _NEW_S, follow_s=_FOLLOW_S)
        except (EngineError, TimeoutError) as error:
            activity.logger.info("%s goes on from its node's queue: %s", attempt.payment_id, error)
            return None


NO_NODES = DirectSend({}, most=0)
"""For a process that calls no node."""
