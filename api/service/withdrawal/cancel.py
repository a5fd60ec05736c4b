"""Cancel a withdrawal: the use case, for any door. Its workflow releases the money, while it is queued.

The row decides, under its lock: a withdrawal that has got its place in a payout first is paid. A repeat gets the same
answer.
"""

from temporalio.exceptions import ApplicationError

from api.service import temporal
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.two_operators import code_of
from api.service.withdrawal.read import show_withdrawal
from api.service.withdrawal.shape import WithdrawalOut
from engine.domain.errors import NotFound, Refused, Unavailable
from workflows.withdrawal import WithdrawalWorkflow

_LIMIT_S = 12
_REFUSALS = {"already_batched", "withdrawal_ended"}


async def cancel_withdrawal(resources: Resources, caller: Caller, withdrawal_id: str) -> WithdrawalOut:
    """The withdrawal, cancelled.

    Raises NotFound, Refused: `already_batched`, `withdrawal_ended`; and Unavailable while its workflow does not answer.
    """
    caller.require("send")
    known = await show_withdrawal(resources, caller, withdrawal_id)
    if known.status == "queued":
        try:
            await temporal.ask_for(resources.temporal, known.workflow_id, WithdrawalWorkflow.cancel, limit_s=_LIMIT_S)
        except ApplicationError as refusal:
            code = code_of(refusal)
            if code not in _REFUSALS:
                raise
            raise Refused(refusal.message, code=code) from refusal
        except NotFound:  # it has just ended; or it is gone, and is soon begun again from its row
            pass
        known = await show_withdrawal(resources, caller, withdrawal_id)
    match known.status:
        case "cancelled":
            return known
        case "queued":
            raise Unavailable(f"{known.workflow_id} does not answer", code="temporarily_unavailable")
        case "batched" | "broadcast":
            raise Refused("It has its place in a transaction, and will be paid.", code="already_batched")
        case _:
            raise Refused(f"It is {known.status}.", code="withdrawal_ended")
