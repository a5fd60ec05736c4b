"""Approve or reject a correction: the use cases, for any door. Its workflow keeps the decision and posts.

Two operators decide (`two_operators.py`). A correction that the books refuse has moved nothing.
"""

from functools import partial

from api.service import two_operators
from api.service.auth import Caller
from api.service.correction.answer import CorrectionWithTrail, read, require_role
from api.service.resources import Resources
from engine.contracts.correction import Decision
from engine.domain.errors import Conflict
from engine.ledger.database import Connection
from workflows.correction import CorrectionWorkflow

_LIMIT_S = 12


async def approve_correction(
    resources: Resources, caller: Caller, correction_id: str, *, note: str = ""
) -> CorrectionWithTrail:
    """The correction, posted or refused by the books. Raises as `two_operators.approve`."""
    read_it = partial(_read_to_decide, caller=caller, correction_id=correction_id)
    decision = Decision(operator=caller.owner, key_id=caller.key_id, approve=True, note=note)
    return await two_operators.approve(resources, caller, read_it, partial(_tell, resources, decision))


async def reject_correction(
    resources: Resources, caller: Caller, correction_id: str, *, reason: str
) -> CorrectionWithTrail:
    """The correction, rejected or taken back. Raises as `two_operators.reject`."""
    read_it = partial(_read_to_decide, caller=caller, correction_id=correction_id)
    decision = Decision(operator=caller.owner, key_id=caller.key_id, approve=False, note=reason)
    return await two_operators.reject(resources, caller, read_it, partial(_tell, resources, decision))


async def _tell(resources: Resources, decision: Decision, known: CorrectionWithTrail) -> None:
    await two_operators.tell(
        resources,
        known.workflow_id,
        CorrectionWorkflow.decide,
        decision,
        limit_s=_LIMIT_S,
        refusals={
            "correction_decided": lambda _: Conflict("Another operator has decided this.", code="correction_decided")
        },
    )


async def _read_to_decide(conn: Connection, *, caller: Caller, correction_id: str) -> CorrectionWithTrail:
    known = await read(conn, correction_id)
    require_role(caller, known.kind)
    return known
