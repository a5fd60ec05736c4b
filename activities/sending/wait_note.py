"""What PostgreSQL is told of a payment on its way: what it waits for, refused sends, and that its node has it.

These notes are for callers and operators, and for the fence. A note that cannot be written in time holds nothing up.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from temporalio import activity

from activities.sending.reason import WAIT_DETAILS
from engine.bank import sending
from engine.clients.lnd.refusal import NotBegun
from engine.contracts.payment import LightningAttempt
from engine.domain.errors import EngineError, InvariantBroken
from engine.domain.pause import pause_after
from engine.domain.sending import Waiting
from engine.ledger.database import Pool, borrowed

LIMIT_S = 3
"""How long one note may take."""


class WaitNotes:
    """Writes the notes of one process."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def noting(self, attempt: LightningAttempt, *, slows: bool = False) -> AsyncIterator[None]:
        """Record the error that stops this try as what the payment waits for.

        With `slows`, the pause before the next try grows with the time that the payment has waited.
        """
        try:
            yield
        except EngineError as error:
            broken = isinstance(error, InvariantBroken)
            detail = WAIT_DETAILS.get(error.code, "an operator must look")
            since = await self.note(
                attempt, Waiting(reason=error.code, detail=detail, needs_operator=broken, impatient=not broken)
            )
            pause = pause_after(datetime.now(UTC) - since) if slows and since else None
            if pause is not None:
                error.fields.setdefault("retry_after_s", math.ceil(pause.total_seconds()))
            raise

    async def note(self, attempt: LightningAttempt, waiting: Waiting) -> datetime | None:
        """Record what the payment waits for; returns since when. Without Postgres the try goes on and returns None."""
        with suppress(EngineError):
            async with borrowed(self._pool, timeout_s=LIMIT_S) as conn:
                return await sending.note_wait(conn, attempt.payment_id, waiting)
        return None

    async def note_refusal(self, attempt: LightningAttempt, refused: NotBegun) -> None:
        """Count a refusal. One that could not be written does not count."""
        with suppress(EngineError):
            async with borrowed(self._pool, timeout_s=LIMIT_S) as conn:
                await sending.note_refusal(conn, attempt.payment_id, refused.words)

    async def note_begun(self, attempt: LightningAttempt) -> None:
        """Write first of all that the node has the attempt. If Postgres is away, following goes on without the note."""
        try:
            async with asyncio.timeout(LIMIT_S), borrowed(self._pool) as conn:
                await sending.note_begun(conn, attempt.payment_id)
        except (EngineError, TimeoutError) as error:
            activity.logger.warning("%s is in flight, and it could not be noted: %s", attempt.payment_id, error)
