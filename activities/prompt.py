"""Sending at once: most payments end within a second, and need no other process than the one that holds their money.

    money held here a moment ago    the node is told to send, and not asked first: nobody can have told it yet
    anything else                   a look first, as before every send
    no end within two seconds       followed from the node's own queue

At most so many at a time wait here for their nodes, and the others go to the node's queue at once: slow payees take no
place from payments that would be done. What fails here is tried again there, after a look.
"""

import asyncio
import time
from collections.abc import Collection, Mapping

from temporalio import activity

from activities.sending import Sending
from engine.contracts.payment import AttemptReport, LightningAttempt, PromptActivities
from engine.domain.errors import EngineError
from engine.domain.ids import NodeName, PaymentId

_FOLLOW_S = 2
_ALL_S = 3
"""With the calls before it; a workflow task that takes longer than five seconds may be given to another worker."""
_FRESH_S = 1
"""So soon after its opening was begun no other worker can have taken a payment up, for the same reason."""


class Openings:
    """The payments whose money this process has held a moment ago, for nodes that it calls."""

    def __init__(self, nodes: Collection[NodeName] = ()) -> None:
        self._nodes = nodes
        self._began: dict[PaymentId, float] = {}

    def can_send(self, node: NodeName) -> bool:
        return node in self._nodes

    def add(self, payment_id: PaymentId, began: float) -> None:
        """Its opening, which wrote its row, was begun at this moment of the monotonic clock."""
        for stale in [old for old, at in self._began.items() if began - at > _FRESH_S]:
            del self._began[stale]
        self._began[payment_id] = began

    def take(self, payment_id: PaymentId) -> bool:
        """Whether nobody can have sent it yet. True once at the most."""
        began = self._began.pop(payment_id, None)
        return began is not None and time.monotonic() - began < _FRESH_S


class PromptSending(PromptActivities):
    """For the nodes that this process calls. At most `most` payments wait here."""

    def __init__(self, nodes: Mapping[NodeName, Sending], openings: Openings, *, most: int) -> None:
        self._nodes = nodes
        self._openings = openings
        self._most = most
        self._under_way = 0

    @activity.defn
    async def send_at_once(self, attempt: LightningAttempt) -> AttemptReport | None:
        node = self._nodes.get(attempt.node)
        if node is None or self._under_way >= self._most:
            return None
        self._under_way += 1
        try:
            async with asyncio.timeout(_ALL_S):
                is_new = self._openings.take(attempt.payment_id)
                return await node.send(attempt, is_new=is_new, follow_s=_FOLLOW_S)
        except (EngineError, TimeoutError) as error:
            activity.logger.info("%s goes on from its node's queue: %s", attempt.payment_id, error)
            return None
        finally:
            self._under_way -= 1
