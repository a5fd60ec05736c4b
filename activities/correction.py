"""The books' side of a correction. Each step is one transaction. A second call finds what the first did.

An operator's decision, its line in the correction's trail and its line in the audit trail are written in one
transaction. Posting follows in a transaction of its own, so the decision stays recorded even if the books refuse it.
"""

from temporalio import activity

from engine.bank.audit import Act, record_in_tx
from engine.bank.correction import (
    CorrectionRow,
    add_row_in_tx,
    get_row_in_tx,
    list_users,
    mark_approved_in_tx,
    mark_expired_in_tx,
    mark_posted_in_tx,
    mark_refused_in_tx,
    mark_rejected_in_tx,
    require_open_payee,
)
from engine.bank.idempotency import Claim, claim_keys_in_tx, find_key
from engine.contracts import workflow_ids
from engine.contracts.correction import (
    CorrectionActivities,
    CorrectionOutcome,
    DecideCorrection,
    Decision,
    Proposal,
)
from engine.contracts.payment import Refusal
from engine.domain.correction import OPEN_FOR, THROUGH, Correction, CorrectionStatus
from engine.domain.errors import InvariantBroken, Refused
from engine.domain.ids import AccountId, CorrectionId
from engine.ledger.account import get_account_ids
from engine.ledger.database import Connection, Pool, transaction
from engine.ledger.postings.correction import corrected
from engine.ledger.store import post_new_in_tx


class Corrections(CorrectionActivities):
    """Needs Postgres and nothing else."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @activity.defn
    async def propose_correction(self, proposal: Proposal) -> CorrectionOutcome:
        claim = Claim(
            account_id=proposal.operator,
            key=proposal.idempotency_key,
            body_hash=bytes.fromhex(proposal.body_hash),
            resource_id=proposal.correction,
        )
        async with transaction(self._pool) as conn:
            if not (await claim_keys_in_tx(conn, [claim]))[0]:
                return await _find_proposed_in_tx(conn, proposal)
            await add_row_in_tx(conn, _row(proposal), open_for_s=int(OPEN_FOR.total_seconds()))
            await record_in_tx(conn, await _proposed(conn, proposal))
        return CorrectionOutcome(status=CorrectionStatus.PROPOSED)

    @activity.defn
    async def decide_correction(self, decide: DecideCorrection) -> CorrectionOutcome:
        word = decide.decision
        async with transaction(self._pool) as conn:
            row = await get_row_in_tx(conn, decide.correction)
            if row.status != CorrectionStatus.PROPOSED:
                return _outcome(row)
            mark = mark_approved_in_tx if word.approve else mark_rejected_in_tx
            await mark(conn, row.id, operator=word.operator, note=word.note)
            await record_in_tx(conn, await _decided(conn, row, word))
        return CorrectionOutcome(status=CorrectionStatus.APPROVED if word.approve else CorrectionStatus.REJECTED)

    @activity.defn
    async def post_correction(self, correction: CorrectionId) -> CorrectionOutcome:
        async with transaction(self._pool) as conn:
            row = await get_row_in_tx(conn, correction)
            if row.status != CorrectionStatus.APPROVED:
                return _outcome(row)
            try:
                async with conn.transaction():
                    await _post_in_tx(conn, row)
            except Refused as refusal:
                await mark_refused_in_tx(conn, row.id, refusal)
                said = Refusal(code=refusal.code, detail=refusal.detail, fields=refusal.fields)
                return CorrectionOutcome(status=CorrectionStatus.REFUSED, refusal=said)
        return CorrectionOutcome(status=CorrectionStatus.POSTED)

    @activity.defn
    async def expire_correction(self, correction: CorrectionId) -> CorrectionOutcome:
        async with transaction(self._pool) as conn:
            row = await get_row_in_tx(conn, correction)
            if row.status != CorrectionStatus.PROPOSED:
                return _outcome(row)
            await mark_expired_in_tx(conn, correction)
        return CorrectionOutcome(status=CorrectionStatus.EXPIRED)


async def _post_in_tx(conn: Connection, row: CorrectionRow) -> None:
    await require_open_payee(conn, row.credit)
    postings = corrected(row, row.approved_by, await get_account_ids(conn, [row.debit, row.credit, THROUGH]))
    for posting in postings:
        await post_new_in_tx(conn, posting)
    await mark_posted_in_tx(conn, row.id, [posting.ref for posting in postings])


async def _find_proposed_in_tx(conn: Connection, proposal: Proposal) -> CorrectionOutcome:
    """The state of the proposal that an earlier call with this key made; no status when the key has another request."""
    known = await find_key(conn, proposal.operator, proposal.idempotency_key)
    if known is None:
        raise InvariantBroken("an idempotency key was taken and is gone")
    if known.body_hash.hex() != proposal.body_hash or known.resource_id != proposal.correction:
        return CorrectionOutcome(status=None)
    return _outcome(await get_row_in_tx(conn, proposal.correction))


def _row(proposal: Proposal) -> Correction:
    return Correction(
        id=proposal.correction,
        kind=proposal.kind,
        debit=proposal.debit,
        credit=proposal.credit,
        amount_msat=proposal.amount_msat,
        reason=proposal.reason,
        case_id=proposal.case,
        reference=proposal.reference,
        proposed_by=proposal.operator,
        workflow_id=workflow_ids.correction(proposal.correction),
    )


def _outcome(row: CorrectionRow) -> CorrectionOutcome:
    refusal = None
    if row.refusal_code is not None:
        refusal = Refusal(code=row.refusal_code, detail=row.refusal_detail or "")
    return CorrectionOutcome(status=CorrectionStatus(row.status), refusal=refusal)


async def _proposed(conn: Connection, proposal: Proposal) -> Act:
    account, others = await _find_users(conn, proposal.debit, proposal.credit)
    return Act(
        operator=proposal.operator,
        key_id=proposal.key_id,
        action=f"{proposal.kind}.propose",
        account_id=account,
        subject=proposal.correction,
        detail={
            "debit": proposal.debit,
            "credit": proposal.credit,
            "amount_msat": proposal.amount_msat,
            "reason": proposal.reason,
            "case_id": proposal.case,
            "reference": proposal.reference,
            **others,
        },
    )


async def _decided(conn: Connection, row: CorrectionRow, word: Decision) -> Act:
    account, others = await _find_users(conn, row.debit, row.credit)
    return Act(
        operator=word.operator,
        key_id=word.key_id,
        action=f"{row.kind}.{'approve' if word.approve else 'reject'}",
        account_id=account,
        subject=row.id,
        detail={"note": word.note, "proposed_by": row.proposed_by, **others},
    )


async def _find_users(conn: Connection, debit: str, credit: str) -> tuple[AccountId | None, dict[str, str]]:
    """The account of the user who is concerned (of two, the one who pays), and the other one as a detail."""
    users = await list_users(conn, debit, credit)
    if not users:
        return None, {}
    return users[0], {"other_account_id": users[1]} if len(users) > 1 else {}
