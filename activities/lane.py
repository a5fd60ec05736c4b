"""The ledger's side of a lane: one transaction for all its payments, safe to repeat.

Each key is claimed in it, and each payment settled or its claim turned into a refusal, so that afterwards every key has
its answer, or none has. A second call finds what the first did.
"""

from collections.abc import Sequence
from dataclasses import asdict

from temporalio import activity

from activities.answers import claim_of, find_answer_in_tx
from activities.internal import BrokenItemsError, InternalPayments
from engine.contracts.lane import LaneActivities, LaneOutcome, LaneRequest
from engine.contracts.payment import PaymentOutcome, PaymentRequest, PaymentStatus
from engine.ledger import chart
from engine.ledger import request as requests
from engine.ledger.database import Connection, Pool, transaction


class Lanes(LaneActivities):
    """Needs Postgres and nothing else."""

    def __init__(self, pool: Pool, ids: chart.Chart) -> None:
        self._pool = pool
        self._internal = InternalPayments(ids)

    @activity.defn
    async def open_lane(self, lane: LaneRequest) -> LaneOutcome:
        """What contradicts the books is left out, and handed to a workflow of its own that calls an operator."""
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

    async def _open_in_tx(self, conn: Connection, asked: Sequence[PaymentRequest]) -> list[PaymentOutcome]:
        claims = [claim_of(each) for each in asked]
        free = await requests.claim_keys_in_tx(conn, claims) if claims else []
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
        await requests.refuse_claims_in_tx(
            conn,
            [
                (claims[place], asdict(refusal))
                for place, refusal in zip(fresh, verdicts, strict=True)
                if refusal is not None
            ],
        )
        return [outcomes[place] for place in range(len(asked))]
