"""Let the workflow of a withdrawal or a payout do what was decided. It says no when that has changed meanwhile."""

from collections.abc import Callable
from functools import partial

from api.service import two_operators
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.withdrawal_decision.answer import WithdrawalDecisionOut
from engine.bank.withdrawal import payout, withdrawal
from engine.contracts.payout import PayoutRef, payout_start
from engine.contracts.withdrawal import WithdrawalApproval
from engine.domain.errors import EngineError, Refused, no_such
from engine.domain.ids import PayoutId, WithdrawalDecisionId, WithdrawalId
from workflows.payout import PayoutWorkflow
from workflows.withdrawal import WithdrawalWorkflow

_LIMIT_S = 15
NOT_WAITING = ("withdrawal_not_waiting", "payout_not_waiting")
"""The codes of a decision that is needless by now."""


async def carry_out(resources: Resources, caller: Caller, note: str, known: WithdrawalDecisionOut) -> None:
    """Do it, and return when it is done; or do nothing where the workflow is gone: the row tells.

    Raises as `two_operators.tell`, and Refused with a code of `NOT_WAITING`. Safe to repeat.
    """
    approval = WithdrawalApproval(
        decision=WithdrawalDecisionId(known.id), operator=caller.owner, key_id=caller.key_id, note=note
    )
    refusals: dict[str, Callable[[str], EngineError]] = {code: partial(_refused, code) for code in NOT_WAITING}
    refusals["decision_made"] = lambda _: known.decided()
    if known.withdrawal_id is not None:
        async with resources.reading() as conn:
            row = await withdrawal.find_row(conn, WithdrawalId(known.withdrawal_id))
        if row is None:
            raise no_such("withdrawal")
        # It is begun again from its row when it is gone. Until then this decision is not carried out.
        await two_operators.tell(
            resources, row.workflow_id, WithdrawalWorkflow.decide, approval, limit_s=_LIMIT_S, refusals=refusals
        )
        return
    async with resources.reading() as conn:
        found = await payout.find_row(conn, PayoutId(known.payout_id or ""))
    if found is None:
        raise no_such("payout")
    start = payout_start(PayoutRef(payout_id=found.id, workflow_id=found.workflow_id))
    await two_operators.tell(
        resources, start.again(), PayoutWorkflow.decide, approval, limit_s=_LIMIT_S, refusals=refusals
    )


def _refused(code: str, message: str) -> Refused:
    return Refused(message, code=code)
