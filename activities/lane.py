"""The ledger's side of a lane: one transaction for all its payments, safe to repeat.

The transaction claims each key, and settles each payment or stores its refusal under the key. Afterwards every key has
its answer, or none has. A second call finds what the first did.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

from temporalio import activity

from activities.internal import BrokenItemsError, InternalPayments
from activities.payment import Payments
from activities.refusals import claim_of, find_answer_in_tx
from engine.bank import idempotency, payment
from engine.clients.announcements import Announcer
from engine.contracts import workflow_ids
from engine.contracts.lane import LaneActivities, LaneOutcome, LaneRequest
from engine.contracts.payment import PaymentOutcome, PaymentRequest, PaymentStatus
from engine.domain.errors import EngineError
from engine.ledger import chart
from engine.ledger.database import Connection, Pool, borrowed, transaction


class Lanes(LaneActivities):
    """Opens internal payments together. Payments over Lightning are opened one by one, by `payments`."""

    def __init__(self, pool: Pool, ids: chart.Chart, payments: Payments, announcer: Announcer) -> None:
        self._pool = pool
        self._internal = InternalPayments(ids)
        self._payments = payments
        self._announcer = announcer

    @activity.defn
    async def open_lane(self, lane: LaneRequest) -> LaneOutcome:
        """A payment that contradicts the books is left out. Its own workflow takes it over and calls an operator."""
        if lane.over_lightning:
            with self._payments.direct_send.place() as may_wait:
                async with asyncio.TaskGroup() as side_by_side:
                    pays = [side_by_side.create_task(self._pay(each, may_wait=may_wait)) for each in lane.items]
            return LaneOutcome(outcomes=[each.result() for each in pays])
        left = set(range(len(lane.items)))
        while True:
            places = sorted(left)
            try:
                async with transaction(self._pool) as conn:
                    opened = await self._open_in_tx(conn, [lane.items[place] for place in places])
            except BrokenItemsError as broken:
                left -= {places[place] for place in broken.broken}
                activity.logger.error("left out of a lane: %s", broken)
            else:
                outcomes = dict(zip(places, opened, strict=True))
                return LaneOutcome(
                    outcomes=[
                        outcomes.get(place, PaymentOutcome(body_hash=each.body_hash))
                        for place, each in enumerate(lane.items)
                    ]
                )

    async def _pay(self, asked: PaymentRequest, *, may_wait: bool) -> PaymentOutcome:
        """Open, send and end one payment. Its caller is told at once, whatever the other payments wait for."""
        try:
            opened = await self._payments.open(asked, activity.info().workflow_id or "", may_wait=may_wait)
            if opened.attempt is None:
                self._announcer.announce([asked.payment_id])
                return opened.outcome
            async with borrowed(self._pool) as conn:
                own = workflow_ids.payment(asked.account_id, asked.idempotency_key)
                await payment.hand_over(conn, asked.payment_id, own)
        except EngineError as error:
            activity.logger.warning("%s goes on alone: %s", asked.payment_id, error)
        return PaymentOutcome(body_hash=asked.body_hash)

    async def _open_in_tx(self, conn: Connection, asked: Sequence[PaymentRequest]) -> list[PaymentOutcome]:
        claims = [claim_of(each) for each in asked]
        free = await idempotency.claim_keys_in_tx(conn, claims) if claims else []
        outcomes = {
            place: (await find_answer_in_tx(conn, asked[place]))[0] for place, ours in enumerate(free) if not ours
        }
        fresh = [place for place, ours in enumerate(free) if ours]
        workflow_id = activity.info().workflow_id or ""
        try:
            verdicts = await self._internal.settle_in_tx(
                conn, [asked[place] for place in fresh], [workflow_id] * len(fresh)
            )
        except BrokenItemsError as broken:
            raise broken.at(fresh) from broken
        for place, refusal in zip(fresh, verdicts, strict=True):
            status = PaymentStatus.SETTLED if refusal is None else None
            outcomes[place] = PaymentOutcome(body_hash=asked[place].body_hash, status=status, refusal=refusal)
        await idempotency.refuse_claims_in_tx(
            conn,
            [
                (claims[place], asdict(refusal))
                for place, refusal in zip(fresh, verdicts, strict=True)
                if refusal is not None
            ],
        )
        return [outcomes[place] for place in range(len(asked))]
