"""Pay and show batches: the use cases, for any door. A batch is many internal payments, all of them settled or none.

    the key is known    answer what the key stands for
    the key is free     look up every destination in one go → start the workflow, or find it → wait for its end

As with a payment, the ids are made from account and key, and Postgres has the answer of every key for ever.
"""

from api.service.auth import Caller
from api.service.batch import batch_run
from api.service.batch.answer import BatchOut, show, show_unopened
from api.service.batch.order import BatchOrder, check
from api.service.deadline import Deadline, poll
from api.service.idempotency import Outcome, as_error, check_same, replaying
from api.service.resources import Resources
from engine.bank.batch import find_batch
from engine.bank.idempotency import KeyRecord, find_key
from engine.contracts.batch import BatchRequest
from engine.domain.errors import InvariantBroken, Unavailable, no_such
from engine.domain.ids import AccountId, BatchId, id_for_key


async def pay_batch(resources: Resources, caller: Caller, order: BatchOrder, deadline: Deadline) -> Outcome[BatchOut]:
    """Pay every item or none, once for the key, and wait for the end until the deadline.

    Raises the refusal of the order, marked as a replay where the key has got it before, and Unavailable where nothing
    is known to have happened: the same order with the same key is safe to repeat.
    """
    account_id = caller.account_id
    batch_id = BatchId(id_for_key("batch", account_id, order.key))
    async with resources.reading() as conn:
        known = await find_key(conn, account_id, order.key)
        accepted = await batch_run.find_accepted(conn, batch_id)
    if known is not None:
        check_same(known.body_hash, order.body_hash)
        with replaying():
            return Outcome(await _answer_of(resources, account_id, known), is_replay=True)
    if accepted is not None:
        check_same(bytes.fromhex(accepted.request.body_hash), order.body_hash)
    request = await check(resources, caller, order, batch_id) if accepted is None else accepted.request
    handle, started_here = await batch_run.start(resources.temporal, request)
    is_replay = accepted is not None or not started_here
    with replaying(is_replay=is_replay):
        return Outcome(await _follow(resources, request, order, handle, deadline), is_replay)


async def show_batch(resources: Resources, caller: Caller, batch_id: str) -> BatchOut:
    """A batch of the caller's account, also one that was accepted and has no rows yet. Raises NotFound."""
    account_id = caller.account_id
    async with resources.reading() as conn:
        found = await find_batch(conn, account_id, BatchId(batch_id))
    if found is not None:
        return show(found)
    started = None
    if batch_id.startswith("batch_"):
        started = await _find_accepted(resources, account_id, BatchId(batch_id))
    if started is None or (started.request.batch_id, started.request.account_id) != (batch_id, account_id):
        raise no_such("batch")
    return show_unopened(started)


async def _follow(
    resources: Resources, request: BatchRequest, order: BatchOrder, handle: batch_run.Handle, deadline: Deadline
) -> BatchOut:
    """Wait for the end, which Temporal or Postgres tells; then answer from Postgres."""
    account_id = request.account_id
    outcome = await batch_run.wait_for_end(handle, deadline)

    async def look() -> KeyRecord | None:
        async with resources.reading() as conn:
            return await find_key(conn, account_id, order.key)

    known = await poll(look, lambda found: found is not None or outcome is not None, deadline)
    if known is None:
        unopened = await _find_accepted(resources, account_id, request.batch_id)
        if unopened is not None:
            check_same(bytes.fromhex(unopened.request.body_hash), order.body_hash)
            return show_unopened(unopened)
        known = await look()
    if known is None:  # ended by hand before it was opened: the same order starts another one
        raise Unavailable(f"{handle.id} has ended and left no answer", code="temporarily_unavailable")
    check_same(known.body_hash, order.body_hash)
    return await _answer_of(resources, account_id, known)


async def _find_accepted(resources: Resources, account_id: AccountId, batch_id: BatchId) -> batch_run.Started | None:
    """The batch that was accepted and not opened, kept before its caller is told. Raises Unavailable."""
    async with resources.reading() as conn:
        accepted = await batch_run.find_accepted(conn, batch_id)
    if accepted is not None:
        return accepted
    started = await batch_run.find_started(resources.temporal, account_id, batch_id)
    if started is not None and started.request.batch_id == batch_id:
        async with resources.reading() as conn:
            return await batch_run.keep_accepted(conn, started)
    return None


async def _answer_of(resources: Resources, account_id: AccountId, known: KeyRecord) -> BatchOut:
    """The batch that a key stands for. Raises the refusal that the key has got."""
    if known.refusal is not None:
        raise as_error(known.refusal)
    async with resources.reading() as conn:
        found = await find_batch(conn, account_id, BatchId(known.resource_id or ""))
    if found is None:
        raise InvariantBroken("an idempotency key names a batch that is not there")
    return show(found)
