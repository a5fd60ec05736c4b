"""A batch, from the caller's request to its end: every payment is settled, or nothing is paid at all.

One activity is one transaction, so a batch is never partly done. A crash anywhere leaves it done or not done, and the
next worker finds out by the key.
"""

from temporalio import workflow

from workflows.patience import again, in_books, uncancelled, until_done

with workflow.unsafe.imports_passed_through():
    from engine.contracts import search_attributes
    from engine.contracts.batch import BatchActivities, BatchOutcome, BatchRequest


@workflow.defn
class BatchWorkflow:
    """Pays once. The workflow id is made from account and idempotency key, so a repeated start finds this run."""

    @workflow.run
    async def run(self, batch: BatchRequest) -> BatchOutcome:
        return await uncancelled(self._open(batch), "a batch cannot be cancelled: it is settled or refused")

    async def _open(self, batch: BatchRequest) -> BatchOutcome:
        outcome = await until_done(
            "opening",
            lambda: in_books(BatchActivities.open_batch, batch),
            renew=again(batch),
        )
        details, status = _end(outcome, len(batch.items))
        workflow.set_current_details(details)
        workflow.upsert_search_attributes([search_attributes.STATUS.value_set(status)])
        return outcome


def _end(outcome: BatchOutcome, count: int) -> tuple[str, str]:
    """(the details for people, the status for the search)."""
    if outcome.refusal is not None:
        return f"**refused**, nothing was paid. {outcome.refusal.detail}", "refused"
    if outcome.key_conflict:
        return "**refused**: the key belongs to another request", "refused"
    return f"**all {count} settled**: final", "settled"
