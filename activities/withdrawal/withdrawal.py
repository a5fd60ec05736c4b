"""The books' side of a withdrawal. Each method is one transaction and safe to repeat: the row says what is booked.

Opening claims the idempotency key, writes the row and holds the money together. A refusal rolls all of that back and
becomes the key's answer. Whatever ends a withdrawal locks its row first, as its batcher does: a cancellation, an
operator's word, the end of the time for an approval, and a place in a payout come one after the other.
"""

from dataclasses import asdict

from temporalio import activity

from activities.refusals import as_refusal, hash_in_a_lane, in_the_callers_words
from activities.withdrawal.decision import Decisions
from activities.withdrawal.ending import cancel_in_tx, expire_in_tx
from activities.withdrawal.opening import Opening
from activities.withdrawal.state import state_of
from engine.bank.idempotency import Claim, claim_keys_in_tx, find_key, refuse_key_in_tx
from engine.bank.withdrawal.withdrawal import WithdrawalRow, get_row_in_tx
from engine.contracts.withdrawal import (
    DecideWithdrawal,
    OpenedWithdrawal,
    WithdrawalActivities,
    WithdrawalRef,
    WithdrawalRequest,
    WithdrawalState,
)
from engine.domain.errors import EngineError, Invalid, NotFound, Refused
from engine.domain.ids import id_for_key
from engine.domain.withdrawal.withdrawal import WithdrawalStatus
from engine.ledger.chart import Chart
from engine.ledger.database import Connection, Pool, transaction


class Withdrawals(WithdrawalActivities):
    """Needs Postgres and nothing else."""

    def __init__(self, pool: Pool, ids: Chart) -> None:
        self._pool = pool
        self._opening = Opening(ids)
        self._decisions = Decisions()

    @activity.defn
    async def open_withdrawal(self, request: WithdrawalRequest) -> OpenedWithdrawal:
        try:
            async with transaction(self._pool) as conn:
                if not (await claim_keys_in_tx(conn, [_claim(request)]))[0]:
                    return await _find_opened_in_tx(conn, request)
                await self._opening.open_in_tx(conn, request)
                row = await get_row_in_tx(conn, request.withdrawal_id)
        except (Refused, Invalid, NotFound) as refused:
            return await self._refuse(request, refused)
        return OpenedWithdrawal(body_hash=request.body_hash, state=state_of(row))

    @activity.defn
    async def advance_withdrawal(self, withdrawal: WithdrawalRef) -> WithdrawalState:
        async with transaction(self._pool) as conn:
            row = await get_row_in_tx(conn, withdrawal.withdrawal_id)
            if row.approval_is_late:
                await expire_in_tx(conn, row)
                row = await get_row_in_tx(conn, row.id)
        return state_of(row)

    @activity.defn
    async def cancel_withdrawal(self, withdrawal: WithdrawalRef) -> WithdrawalState:
        async with transaction(self._pool) as conn:
            row = await get_row_in_tx(conn, withdrawal.withdrawal_id)
            if row.status is not WithdrawalStatus.CANCELLED:
                _require_queued(row)
                await cancel_in_tx(conn, row)
                row = await get_row_in_tx(conn, row.id)
        return state_of(row)

    @activity.defn
    async def decide_withdrawal(self, decide: DecideWithdrawal) -> WithdrawalState:
        async with transaction(self._pool) as conn:
            row = await get_row_in_tx(conn, decide.withdrawal_id)
            await self._decisions.carry_out_in_tx(conn, row, decide.approval)
            return state_of(await get_row_in_tx(conn, row.id))

    async def _refuse(self, asked: WithdrawalRequest, refused: EngineError) -> OpenedWithdrawal:
        refusal = in_the_callers_words(refused, "withdrawal")
        async with transaction(self._pool) as conn:
            if not await refuse_key_in_tx(
                conn, asked.account_id, asked.idempotency_key, bytes.fromhex(asked.body_hash), asdict(refusal)
            ):
                return await _find_opened_in_tx(conn, asked)
        return OpenedWithdrawal(body_hash=asked.body_hash, refusal=refusal)


def _claim(asked: WithdrawalRequest) -> Claim:
    return Claim(
        account_id=asked.account_id,
        key=asked.idempotency_key,
        body_hash=bytes.fromhex(asked.body_hash),
        resource_id=asked.withdrawal_id,
    )


async def _find_opened_in_tx(conn: Connection, asked: WithdrawalRequest) -> OpenedWithdrawal:
    """What an earlier call with this key did; or only whose the key is, when it belongs to another request."""
    known = await find_key(conn, asked.account_id, asked.idempotency_key)
    if known is None:
        ids = [id_for_key(each, asked.account_id, asked.idempotency_key) for each in ("pay", "batch")]
        taken_by = await hash_in_a_lane(conn, asked.account_id, asked.idempotency_key, *ids)
        return OpenedWithdrawal(body_hash=taken_by.hex())
    body_hash = known.body_hash.hex()
    if body_hash != asked.body_hash:
        return OpenedWithdrawal(body_hash=body_hash)
    if known.refusal is not None:
        return OpenedWithdrawal(body_hash=body_hash, refusal=as_refusal(known.refusal))
    return OpenedWithdrawal(body_hash=body_hash, state=state_of(await get_row_in_tx(conn, asked.withdrawal_id)))


def _require_queued(row: WithdrawalRow) -> None:
    if row.ended:
        raise Refused(f"This withdrawal is {row.status} already.", code="withdrawal_ended", status=str(row.status))
    if row.status is not WithdrawalStatus.QUEUED:
        raise Refused(
            "This withdrawal has its place in a batch, and can no longer be taken back.",
            code="already_batched",
            status=str(row.status),
        )
