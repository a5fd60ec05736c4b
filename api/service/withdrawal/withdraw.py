"""Withdraw: the use case, for any door. The workflow holds the money, and follows the withdrawal to its end.

    the key is known    answer what the key stands for
    the key is free     check everything → start the workflow, or find it → wait until the books hold the money

A caller is told only of what the books have: either the money is held, or it is refused for good under this key. So
the answer does not wait for the chain, unless the caller asks for that.
"""

from api.service import temporal
from api.service.auth import Caller
from api.service.deadline import Deadline, poll
from api.service.idempotency import Intent, Outcome, as_error, check_same, find_replay, replaying
from api.service.resources import Resources
from api.service.withdrawal.order import WithdrawalOrder, check
from api.service.withdrawal.shape import WithdrawalOut, show
from engine.bank.idempotency import KeyRecord, find_key
from engine.contracts.withdrawal import withdrawal_start
from engine.domain.errors import InvariantBroken, Unavailable
from engine.domain.ids import WithdrawalId, id_for_key
from engine.views.withdrawal.withdrawal import find_withdrawal

_OPENING_S = 12
"""How long a worker may take to hold the money. Afterwards the caller asks again with the same key."""
_POLL_S = 0.05


async def withdraw(
    resources: Resources, caller: Caller, order: WithdrawalOrder, deadline: Deadline
) -> Outcome[WithdrawalOut]:
    """Hold the money, once for the key; then wait for the end until the deadline.

    Raises the refusal of the order, marked as a replay where the key has got it before, and Unavailable where no worker
    has taken it in time: the same order with the same key finds what became of it.
    """
    account_id = caller.account_id
    intent = Intent(owner=account_id, key=order.key, body_hash=order.body_hash)
    known = await find_replay(resources, intent)
    is_replay = known is not None
    if known is None:
        request = await check(resources, caller, order, WithdrawalId(id_for_key("wd", account_id, order.key)))
        started = await temporal.start(resources.temporal, withdrawal_start(request))
        is_replay = not started.is_new
        known = await _wait_for_key(resources, intent, is_replay=is_replay)
    return Outcome(await wait_for_end(resources, known, deadline), is_replay)


async def wait_for_end(resources: Resources, withdrawal_id: str, deadline: Deadline) -> WithdrawalOut:
    """The withdrawal, as it stands at its end or at the deadline."""

    async def look() -> WithdrawalOut:
        async with resources.reading() as conn:
            row = await find_withdrawal(conn, withdrawal_id)
        if row is None:
            raise InvariantBroken("an idempotency key names a withdrawal that is not there")
        return show(row)

    return await poll(look, lambda found: found.is_final, deadline)


async def _wait_for_key(resources: Resources, intent: Intent, *, is_replay: bool) -> str:
    """The id, once a worker has opened it. Raises its refusal, and Conflict when another order has the key."""

    async def look() -> KeyRecord | None:
        async with resources.reading() as conn:
            return await find_key(conn, intent.owner, intent.key or "")

    known = await poll(look, lambda found: found is not None, Deadline(_OPENING_S), every_s=_POLL_S)
    if known is None:
        raise Unavailable("no worker has taken the withdrawal yet", code="temporarily_unavailable")
    check_same(known.body_hash, intent.body_hash)
    with replaying(is_replay=is_replay):
        if known.refusal is not None:
            raise as_error(known.refusal)
    if known.resource_id is None:
        raise InvariantBroken("an idempotency key has neither a resource nor a refusal")
    return known.resource_id
