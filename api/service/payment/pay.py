"""Pay: the use case, for any door. The payment's workflow moves the money.

    the key is known    answer what the key stands for; wait for it while it is pending
    the key is free     check destination and amount → start the workflow, or find it → wait for its end

The id of the workflow and of the payment are made from account and key, so a repeat finds the same payment, whichever
process it reaches. Postgres has the answer of every key for ever, longer than Temporal remembers the workflow. Waiting
changes nothing: a payment goes on when its caller leaves or the deadline passes.
"""

from api.http.codes import refused
from api.service.auth import Caller
from api.service.deadline import Deadline, poll
from api.service.idempotency import check_same, replaying
from api.service.payment import payment_run
from api.service.payment.accepted import AcceptedPayment, find_accepted, keep_accepted, show_accepted
from api.service.payment.answer import PaymentAnswer, PaymentOut, answer_of
from api.service.payment.order import Facts, PaymentOrder, PlacedOrder, find_facts, place
from api.service.payment.request import check
from api.service.resources import Resources
from engine.contracts import workflow_ids
from engine.domain.destination import LightningAddress, Lnurl
from engine.domain.errors import Unavailable
from engine.views.payment import KeyAnswer, find_answers


async def pay(resources: Resources, caller: Caller, order: PaymentOrder, deadline: Deadline) -> PaymentAnswer:
    """Pay what the caller orders, once for its key, and wait for the end until the deadline.

    Raises the refusal of the order, marked as a replay where the key has got it before, and Unavailable where nothing
    is known to have happened: the same order with the same key is safe to repeat.
    """
    placed = place(resources, caller, order)
    facts = await resources.lookups.ask(find_facts, placed)
    facts.require_payer()
    if facts.earlier is not None:
        check_same(facts.earlier.body_hash, order.body_hash)
    is_replay = facts.earlier is not None or await _is_under_way(resources, placed)
    with replaying(is_replay=is_replay):
        if is_replay:
            known = await _find_answer(resources, placed)
            if known is not None and known.is_final:
                return PaymentAnswer(answer_of(known), is_replay=True)
            run = payment_run.find(resources.temporal, workflow_ids.payment(placed.account_id, order.key))
        else:
            run = await _start(resources, placed, facts)
    is_replay = is_replay or not run.started_here
    with replaying(is_replay=is_replay):
        return PaymentAnswer(await _follow(resources, placed, run, deadline), is_replay)


async def _is_under_way(resources: Resources, placed: PlacedOrder) -> bool:
    """Whether a payment with this key to a payee outside, who must be asked for an invoice, has been accepted.

    The payee is then not asked for a second invoice. Any other repeat finds the first payment when it starts it again.
    """
    if not isinstance(placed.destination, LightningAddress | Lnurl):
        return False
    workflow_id = workflow_ids.payment(placed.account_id, placed.order.key)
    return await payment_run.find_started(resources.temporal, workflow_id) is not None


async def _start(resources: Resources, placed: PlacedOrder, facts: Facts) -> payment_run.Run:
    """Check the order and start its payment, together with others of its kind that are waiting for a lane."""
    resolved, request = await check(resources, placed, facts)
    if resolved.is_internal:
        payee = f"wallet:{resolved.wallet_id}" if resolved.request else resolved.text
        return await resources.lanes.start(request, payee=payee)
    node = resolved.invoice.payee if resolved.invoice else resolved.payee_node
    payee = f"{node[:6]}…" if node else resolved.text
    return await resources.lightning_lanes.start(request, payee=payee)


async def _follow(resources: Resources, placed: PlacedOrder, run: payment_run.Run, deadline: Deadline) -> PaymentOut:
    """Wait for the end, which Temporal or Postgres tells; then answer from Postgres."""
    body_hash = placed.order.body_hash
    outcome = await payment_run.wait_for_end(run, deadline)
    if outcome is not None and not outcome.is_final:  # the lane has handed it over to a workflow of its own
        own_id = payment_run.workflow_id_of(placed.account_id, placed.payment_id)
        run = payment_run.find(resources.temporal, own_id)
        outcome = await payment_run.wait_for_end(run, deadline)

    async def look() -> KeyAnswer | None:
        return await _find_answer(resources, placed)

    known = await poll(look, lambda found: outcome is not None or (found is not None and found.is_final), deadline)
    if known is not None:
        check_same(known.body_hash, body_hash)
        return answer_of(known)
    if outcome is not None:
        check_same(bytes.fromhex(outcome.body_hash), body_hash)
        if outcome.refusal is not None:
            raise refused(outcome.refusal.code, outcome.refusal.detail, outcome.refusal.fields)
    return await _answer_unopened(resources, placed, run)


async def _answer_unopened(resources: Resources, placed: PlacedOrder, run: payment_run.Run) -> PaymentOut:
    """The answer while no worker has opened the payment. Its request is kept before the caller is told."""
    body_hash = placed.order.body_hash
    unopened = run.accepted and AcceptedPayment(run.accepted.request, run.accepted.at, run.workflow_id)
    unopened = unopened or await find_accepted(resources, placed.account_id, placed.payment_id)
    if unopened is not None:
        check_same(await keep_accepted(resources, unopened), body_hash)
        return await show_accepted(resources, unopened)
    known = await _find_answer(resources, placed)
    if known is None:  # ended by hand before it was opened: the same order starts another one
        raise Unavailable(f"{run.workflow_id} has ended and left no answer", code="temporarily_unavailable")
    check_same(known.body_hash, body_hash)
    return answer_of(known)


async def _find_answer(resources: Resources, placed: PlacedOrder) -> KeyAnswer | None:
    """What the key stands for, once a worker has opened its payment."""
    return await resources.lookups.ask(find_answers, (placed.account_id, placed.order.key))
