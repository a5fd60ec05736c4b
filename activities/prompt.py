"""Sending at once: most payments end within a second, and need no other process than the one that holds their money.

    money held here a moment ago    the node is told to send, and not asked first: nobody can have told it yet
    anything else                   left to the node's own queue, where every send begins with a look
    no end within two seconds       followed from there

At most so many at a time wait here for their nodes: slow payees take no place from payments that would be done.
"""

import asyncio
import time
from collections.abc import Mapping

from temporalio import activity

from activities.sending import Sending
from engine.contracts.payment import AttemptReport, LightningAttempt
from engine.domain.errors import EngineError
from engine.domain.ids import NodeName

_FOLLOW_S = 2
_ALL_S = 3
"""With the calls before it; a workflow task that takes longer than five seconds may be given to another worker."""
_FRESH_S = 1
"""So soon after its opening was begun no other worker can have taken a payment up, for the same reason."""


class Prompt:
    """For the nodes that this process calls. At most `most` payments wait here."""

    def __init__(self, nodes: Mapping[NodeName, Sending], *, most: int) -> None:
        self._nodes = nodes
        self._most = most
        self._under_way = 0

    async def send(self, attempt: LightningAttempt, *, opening_since: float) -> AttemptReport | None:
        """Send what this call has just opened, and began to open at that moment of the monotonic clock.

        None when no word of the node came: whoever sends it then must look first. Raises nothing.
        """
        node = self._nodes.get(attempt.node)
        if node is None or self._under_way >= self._most or time.monotonic() - opening_since > _FRESH_S:
            return None
        self._under_way += 1
        try:
            async with asyncio.timeout(_ALL_S):
                return await node.send(attempt, is_new=True, follow_s=_FOLLOW_S)
        except (EngineError, TimeoutError) as error:
            activity.logger.info("%s goes on from its node's queue: %s", attempt.payment_id, error)
            return None
        finally:
            self._under_way -= 1


NO_NODES = Prompt({}, most=0)
"""For a process that calls none."""
