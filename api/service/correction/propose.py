"""Propose a correction or capital: the use case, for any door. Its workflow writes the row; nothing moves yet.

A proposal that nobody decides ends after seven days.
"""

import asyncio
from dataclasses import dataclass

from api.service import temporal
from api.service.auth import Caller, still_may_in_tx
from api.service.correction.answer import CorrectionWithTrail, read, require_role
from api.service.idempotency import Intent, Outcome, check_same, find_replay, replaying
from api.service.resources import Resources
from engine.bank.idempotency import find_key
from engine.contracts.correction import Proposal, correction_start
from engine.domain.correction import CorrectionKind, check_sides
from engine.domain.errors import Invalid, Unavailable
from engine.domain.ids import CaseId, CorrectionId, id_for_key
from engine.domain.money import Msat
from engine.ledger.database import Connection
from engine.views import correction, reconciliation

_LIMIT_S = 12
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionOrder:
    """The entry to propose, with the key and the hash of the request."""

    key: str
    body_hash: bytes
    kind: CorrectionKind
    debit: str
    credit: str
    amount_msat: Msat
    reason: str
    case_id: CaseId | None = None
    reference: str | None = None


async def propose_correction(
    resources: Resources, caller: Caller, order: CorrectionOrder
) -> Outcome[CorrectionWithTrail]:
    """Propose it, once for the key. Nothing moves yet.

    Raises Forbidden, Invalid for accounts between which no entry is allowed, and Unavailable when no worker took the
    proposal in time: the same order with the same key finds what became of it.
    """
    intent = Intent(owner=caller.owner, key=order.key, body_hash=order.body_hash)
    known = await find_replay(resources, intent)
    is_replay = known is not None
    if known is None:
        require_role(caller, order.kind)
        check_sides(order.kind, order.debit, order.credit)
        async with resources.reading() as conn:
            await still_may_in_tx(conn, caller)
            await _check_books(conn, order)
        started = await temporal.start(resources.temporal, correction_start(_proposal(caller, order)))
        is_replay = not started.is_new
        with replaying(is_replay=is_replay):
            known = await _wait_for_key(resources, intent, order.key)
    async with resources.reading() as conn:
        return Outcome(await read(conn, known), is_replay)


async def _check_books(conn: Connection, order: CorrectionOrder) -> None:
    """Raises Invalid for an account or a case that does not exist."""
    found = await correction.find_codes(conn, [order.debit, order.credit])
    for field, code in (("debit", order.debit), ("credit", order.credit)):
        if code not in found:
            raise Invalid(f"{field}: there is no account {code} in the books.", field=field)
    if order.case_id is not None and await reconciliation.find_case(conn, order.case_id) is None:
        raise Invalid(f"case_id: there is no case {order.case_id}.", field="case_id")


def _proposal(caller: Caller, order: CorrectionOrder) -> Proposal:
    return Proposal(
        correction=CorrectionId(id_for_key("corr", caller.owner, order.key)),
        kind=order.kind,
        debit=order.debit,
        credit=order.credit,
        amount_msat=order.amount_msat,
        reason=order.reason,
        operator=caller.owner,
        key_id=caller.key_id,
        idempotency_key=order.key,
        body_hash=order.body_hash.hex(),
        case=order.case_id,
        reference=order.reference,
    )


async def _wait_for_key(resources: Resources, intent: Intent, key: str) -> str:
    """The id of the proposal, once its workflow has taken the key. Raises Conflict when another request took it."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            while True:
                async with resources.reading() as conn:
                    known = await find_key(conn, intent.owner, key)
                if known is not None and known.resource_id is not None:
                    check_same(known.body_hash, intent.body_hash)
                    return known.resource_id
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise Unavailable("no worker has taken the proposal yet", code="temporarily_unavailable") from error
