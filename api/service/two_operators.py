"""Two operators: one proposes, another approves or rejects. Nobody approves his own proposal.

The second operator is another person: neither the same account, nor an account whose key comes from the same account as
the proposer's key. The bootstrap key comes from no account. Whoever has it has the bank's configuration, too, and no
rule of the API binds him.

    approve     key still valid → role → another person → carry it out, unless it is decided → answer from its row
    reject      key still valid → role                  → carry it out, unless it is decided → answer from its row

A repeat by the same operator gets the same answer. A decision that contradicts an earlier one is refused.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeAlias, TypeVar

from temporalio.exceptions import ApplicationError
from temporalio.workflow import UpdateMethodMultiParam

from api.http.codes import Forbidden
from api.service import temporal
from api.service.auth import Caller, still_may_in_tx
from api.service.resources import Resources
from engine.bank.account.api_key import are_of_one_person
from engine.bank.audit import find_proposer_key
from engine.domain.errors import Conflict, EngineError, NotFound, Unavailable
from engine.domain.ids import ApiKeyId
from engine.ledger.database import Connection


class Proposal(Protocol):
    """What two operators decide about, as its row is now."""

    @property
    def id(self) -> str:
        """Also the subject of its lines in the audit trail."""

    @property
    def status(self) -> str:
        """The status, as people read it."""

    @property
    def is_open(self) -> bool:
        """Whether a decision, or what follows from it, is still missing."""

    @property
    def proposed_by(self) -> str:
        """The first operator."""

    @property
    def approved_by(self) -> str | None:
        """The second operator, who said yes."""

    @property
    def rejected_by(self) -> str | None:
        """The operator who said no; the first may take it back."""

    def decided(self) -> Conflict:
        """The refusal of another decision."""


P = TypeVar("P", bound=Proposal)
W = TypeVar("W")
Read: TypeAlias = Callable[[Connection], Awaitable[P]]
"""Reads the proposal. Raises NotFound, and Forbidden when the caller's role is not enough for it."""
CarryOut: TypeAlias = Callable[[P], Awaitable[None]]
"""Carries a decision out on a proposal that is open. Safe to repeat."""


async def approve(resources: Resources, caller: Caller, read: Read[P], carry_out: CarryOut[P]) -> P:
    """The proposal, approved by this caller and carried out.

    Raises Forbidden (`own_proposal`), the Conflict of a proposal that is decided otherwise, and Unavailable while the
    decision is not carried out.
    """
    async with resources.reading() as conn:
        await still_may_in_tx(conn, caller)
        known = await read(conn)
        await _require_another_person(conn, caller, known)
    known = await _carry_out(resources, known, read, carry_out)
    if known.approved_by != caller.owner:
        raise known.decided()
    return known


async def reject(resources: Resources, caller: Caller, read: Read[P], carry_out: CarryOut[P]) -> P:
    """The proposal, rejected by this caller, who may be the proposer. Raises as `approve`, but for `own_proposal`."""
    async with resources.reading() as conn:
        await still_may_in_tx(conn, caller)
        known = await read(conn)
    known = await _carry_out(resources, known, read, carry_out)
    if known.rejected_by != caller.owner:
        raise known.decided()
    return known


async def tell(
    resources: Resources,
    workflow: temporal.Workflow,
    update: UpdateMethodMultiParam[[Any, W], Any],
    decision: W,
    *,
    limit_s: float,
    refusals: Mapping[str, Callable[[str], EngineError]],
) -> None:
    """Let the proposal's workflow carry a decision out.

    If a workflow that is named by its id has ended, do nothing: the row tells. One named by its start is started again.
    Raises Forbidden (`own_proposal`), the refusal of the workflow by its code, and Unavailable when Temporal does not
    answer in time: the decision may stand then, and is carried out later.
    """
    try:
        with suppress(NotFound):
            await temporal.tell(resources.temporal, workflow, update, decision, limit_s=limit_s)
    except ApplicationError as refusal:
        code = code_of(refusal)
        if code == "own_proposal":
            raise _own_proposal() from refusal
        if code in refusals:
            raise refusals[code](refusal.message) from refusal
        raise


async def _carry_out(resources: Resources, known: P, read: Read[P], carry_out: CarryOut[P]) -> P:
    if known.is_open:
        await carry_out(known)
        async with resources.reading() as conn:
            known = await read(conn)
    if known.is_open:
        raise Unavailable(f"{known.id} is still {known.status}", code="temporarily_unavailable")
    return known


async def _require_another_person(conn: Connection, caller: Caller, known: Proposal) -> None:
    if known.proposed_by == caller.owner:
        raise _own_proposal()
    proposer = await find_proposer_key(conn, known.id)
    if proposer is not None and await are_of_one_person(conn, ApiKeyId(caller.key_id), ApiKeyId(proposer)):
        raise _own_proposal()


def _own_proposal() -> Forbidden:
    return Forbidden(
        "You cannot approve what you, or a key from the same account, proposed: another operator must.",
        code="own_proposal",
    )


def code_of(refusal: ApplicationError) -> str:
    """The code that an activity gave, or the type that the workflow gave: `OwnProposal` is `own_proposal`."""
    if refusal.details:
        return str(refusal.details[0].get("code", ""))
    return re.sub(r"(?<!^)(?=[A-Z])", "_", refusal.type or "").lower()
