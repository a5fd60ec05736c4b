"""The ledger's side of a batch: one transaction, safe to repeat.

The transaction claims the key. Then it settles every payment, or it rolls back to a savepoint and stores the first
refusal under the key. A second call finds what the first did. A batch that contradicts the books fails for good with
nothing done, and its workflow calls an operator.
"""

from collections.abc import Sequence
from dataclasses import asdict

from temporalio import activity

from activities.internal import InternalPayments
from activities.refusals import as_refusal
from engine.bank.batch import NewBatch, add_row_in_tx
from engine.bank.idempotency import Claim, claim_keys_in_tx, find_key, refuse_claims_in_tx
from engine.contracts import workflow_ids
from engine.contracts.batch import BatchActivities, BatchOutcome, BatchRequest
from engine.contracts.payment import Refusal
from engine.domain.errors import InvariantBroken
from engine.ledger import chart
from engine.ledger.database import Connection, Pool, transaction


class _RefusedError(Exception):
    """Some items were refused. Ends the savepoint."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class Batches(BatchActivities):
    """Needs Postgres and nothing else."""

    def __init__(self, pool: Pool, ids: chart.Chart) -> None:
        self._pool = pool
        self._internal = InternalPayments(ids)

    @activity.defn
    async def open_batch(self, batch: BatchRequest) -> BatchOutcome:
        async with transaction(self._pool) as conn:
            claim = Claim(
                account_id=batch.account_id,
                key=batch.idempotency_key,
                body_hash=bytes.fromhex(batch.body_hash),
                resource_id=batch.batch_id,
            )
            if not (await claim_keys_in_tx(conn, [claim]))[0]:
                return await _find_answer_in_tx(conn, batch)
            try:
                async with conn.transaction():
                    await self._settle_in_tx(conn, batch)
            except _RefusedError as refused:
                await refuse_claims_in_tx(conn, [(claim, asdict(refused.refusal))])
                return BatchOutcome(body_hash=batch.body_hash, refusal=refused.refusal, count=len(batch.items))
        return BatchOutcome(body_hash=batch.body_hash, count=len(batch.items))

    async def _settle_in_tx(self, conn: Connection, batch: BatchRequest) -> None:
        workflow_id = workflow_ids.batch(batch.account_id, batch.idempotency_key)
        new = NewBatch(
            id=batch.batch_id,
            account_id=batch.account_id,
            wallet_id=batch.wallet_id,
            count=len(batch.items),
            total_msat=batch.total_msat,
            workflow_id=workflow_id,
        )
        await add_row_in_tx(conn, new)
        verdicts = await self._internal.settle_in_tx(
            conn, batch.payments(), [workflow_id] * len(batch.items), batch.batch_id
        )
        if (refusal := _first_refusal(verdicts)) is not None:
            raise _RefusedError(refusal)


def _first_refusal(verdicts: Sequence[Refusal | None]) -> Refusal | None:
    """The first refusal in the order of the items, with the item's place counted from 0."""
    for place, refusal in enumerate(verdicts):
        if refusal is not None:
            return Refusal(
                code=refusal.code,
                detail=f"Item {place}: {refusal.detail}",
                fields={**refusal.fields, "item": place},
            )
    return None


async def _find_answer_in_tx(conn: Connection, batch: BatchRequest) -> BatchOutcome:
    """What an earlier call with this key did: the outcome of this request, or a conflict with another request."""
    known = await find_key(conn, batch.account_id, batch.idempotency_key)
    if known is None:
        raise InvariantBroken("an idempotency key was taken and is gone")
    if known.body_hash.hex() != batch.body_hash:
        return BatchOutcome(body_hash=known.body_hash.hex(), key_conflict=True, count=len(batch.items))
    refusal = None if known.refusal is None else as_refusal(known.refusal)
    return BatchOutcome(body_hash=batch.body_hash, refusal=refusal, count=len(batch.items))
