"""Resolve a case of the reconciliation: the use case, for any door. It moves no money.

A case is ended by its workflow, which writes operator and reason into a trail that nobody can change. The operator is
the account of the key, or `admin` for the bootstrap key.
"""

from temporalio.exceptions import ApplicationError

from api.service import temporal
from api.service.auth import Caller
from api.service.reconciliation.case import CaseWithTrail, read
from api.service.resources import Resources
from api.service.role import MAY
from engine.contracts.reconciliation import CaseResolution
from engine.domain.errors import Conflict, NotFound, Unavailable
from workflows.reconciliation import CaseWorkflow

_LIMIT_S = 12


async def resolve_case(resources: Resources, caller: Caller, case_id: str, *, reason: str) -> CaseWithTrail:
    """The case with its reason, which is written once. It moves no money.

    The same reason of the same operator again is a repeat. Raises NotFound, Conflict (`case_resolved`) for another
    one, and Unavailable when Temporal does not answer or the case's workflow does not run.
    """
    caller.require_role(*MAY["reconcile"])
    async with resources.reading() as conn:
        known = await read(conn, case_id)
    if known.status != "open":
        if (known.resolved_by, known.note) == (caller.owner, reason):
            return known
        raise _resolved(known.resolved_by)
    await _tell(resources, known, CaseResolution(operator=caller.owner, key_id=caller.key_id, reason=reason))
    async with resources.reading() as conn:
        return await read(conn, case_id)


async def _tell(resources: Resources, known: CaseWithTrail, resolution: CaseResolution) -> None:
    try:
        await temporal.tell(resources.temporal, known.workflow_id, CaseWorkflow.resolve, resolution, limit_s=_LIMIT_S)
    except ApplicationError as refusal:
        if refusal.type == "CaseResolved":
            raise _resolved(None) from refusal
        raise
    except NotFound as error:  # ended since, or the run that opened the case has yet to start its workflow
        raise Unavailable(error.detail, code="temporarily_unavailable") from error


def _resolved(operator: str | None) -> Conflict:
    by = f" by {operator}" if operator else ""
    return Conflict(f"This case has been resolved{by}; its trail says how.", code="case_resolved")
