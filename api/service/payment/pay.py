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
from api.service.payment.answer import PaymentAnswer, answer_accepted, answer_of
from api.service.payment.check import check
from api.service.payment.order import PaymentOrder, find_facts, place
from api.service.resources import Resources
from api.service.temporal import is_running
from engine.domain.errors import Unavailable
from engine.views.payment import KeyAnswer, find_answers


async def pay(resources: Resources, caller: Caller, order: PaymentOrder, deadline: Deadline) -> PaymentAnswer:
    """Pay what the caller orders, once for its key, and wait for the end until the deadline.

    Raises the refusal of the order, marked as a replay where the key has got it before, and Unavailable where nothing
    is known to have happened: the same order with the same key is safe to repeat.
    """
    placed = place(resources.settings, caller, order)
    facts = await resources.lookups.ask(find_facts, placed)
    facts.require_payer()
    if facts.earlier is not None:
        check_same(facts.earlier.body_hash, order.body_hash)

    async def look() -> KeyAnswer | None:
        return await resources.lookups.ask(find_answers, placed.key)

    # A payee that is asked again gives another invoice. Any other repeat finds the payment when it starts it again.
    is_repeat = facts.earlier is not None or (
        placed.asks_payee and await is_running(resources.temporal, placed.workflow_id)
    )
    with replaying(is_replay=is_repeat):
        known = await look() if is_repeat else None
        if known is not None and known.is_final:
            return PaymentAnswer(answer_of(known), is_replay=True)
        if is_repeat:
            run = payment_run.find(resources.temporal, placed.workflow_id)
        else:
            checked = await check(resources, placed, facts)
            lanes = resources.lanes if checked.is_internal else resources.lightning_lanes
            run = await lanes.start(checked.request, payee=checked.shown_payee)

    is_repeat = is_repeat or not run.started_here
    with replaying(is_replay=is_repeat):
        run, outcome = await payment_run.follow(resources.temporal, run, placed.workflow_id, deadline)
        known = await poll(look, lambda found: outcome is not None or (found is not None and found.is_final), deadline)
        if known is None and outcome is not None:
            check_same(bytes.fromhex(outcome.body_hash), order.body_hash)
            if outcome.refusal is not None:
                raise refused(outcome.refusal.code, outcome.refusal.detail, outcome.refusal.fields)
        if known is None:
            unopened = await answer_accepted(
                resources, placed.account_id, placed.payment_id, run.accepted, body_hash=order.body_hash
            )
            if unopened is not None:
                return PaymentAnswer(unopened, is_repeat)
            known = await look()
        if known is None:  # ended by hand before it was opened: the same order starts another one
            raise Unavailable(f"{run.workflow_id} has ended and left no answer", code="temporarily_unavailable")
        check_same(known.body_hash, order.body_hash)
        return PaymentAnswer(answer_of(known), is_repeat)
