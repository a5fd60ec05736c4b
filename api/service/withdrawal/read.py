"""Show and list withdrawals: the use cases, for any door."""

from api.service.auth import Caller
from api.service.resources import Resources
from api.service.withdrawal.shape import WithdrawalOut, show
from engine.domain.errors import no_such
from engine.domain.page import START, Position, Slice
from engine.views.withdrawal.withdrawal import WithdrawalFilter, find_withdrawal, read_withdrawals


async def show_withdrawal(resources: Resources, caller: Caller, withdrawal_id: str) -> WithdrawalOut:
    """A withdrawal of the caller's account. Raises NotFound."""
    async with resources.reading() as conn:
        row = await find_withdrawal(conn, withdrawal_id, account_id=caller.account_id)
    if row is None:
        raise no_such("withdrawal")
    return show(row)


async def list_withdrawals(
    resources: Resources, caller: Caller, wanted: WithdrawalFilter, *, after: Position = START, limit: int
) -> Slice[WithdrawalOut]:
    """One page of the withdrawals of the caller's account, newest first. `wanted` must name that account."""
    caller.require("read")
    if wanted.account_id != caller.account_id:
        raise no_such("withdrawal")
    async with resources.reading() as conn:
        found = await read_withdrawals(conn, wanted, after, limit)
    return found.map(show)
