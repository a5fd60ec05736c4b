"""The row of a withdrawal. Who changes it has locked it first, so a cancellation, an operator's decision, the end of
its time, and its place in a payout come one after the other, and each sees what the one before has left.

What many rows of one payout do together stands in `member.py`, the way into a payout in `queue.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from engine.domain.errors import InvariantBroken
from engine.domain.ids import AccountId, PayoutId, Txid, WalletId, WithdrawalId
from engine.domain.money import Sat
from engine.domain.withdrawal.held import Held
from engine.domain.withdrawal.withdrawal import ENDED, FeeFrom, Speed, WithdrawalStatus
from engine.ledger.database import Connection, Reader, change_one, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWithdrawal(Held):
    """A row when it is written: one column per field, those of `Held` included."""

    account_id: AccountId
    wallet_id: WalletId
    address: str
    script: bytes
    amount_sat: Sat
    fee_from: FeeFrom
    send_all: bool
    speed: Speed
    alone: bool
    unlinked: bool
    max_fee_sat: Sat
    external_id: str | None = None
    needs_approval: bool = False
    approval_hours: int = 0
    payee_wallet_id: WalletId | None = None
    paid_sat: Sat | None = None
    """What a user of ours received: then it ends when it is written."""

    @property
    def takes_all(self) -> bool:
        """Whether the fees come out of the amount, so that nothing of the hold is left."""
        return self.fee_from == "amount"


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRow(Held):
    """A row as it is read, for whoever takes its next step."""

    account_id: AccountId
    wallet_id: WalletId
    ledger_account_id: int
    """Of the wallet that pays."""
    account_status: str
    amount_sat: Sat
    fee_from: FeeFrom
    speed: Speed
    status: WithdrawalStatus
    approval: str | None
    on_hold: bool
    waits_for: str | None
    failure_code: str | None
    payout_id: PayoutId | None
    txid: Txid | None
    """The transaction that pays it, once that was sent."""
    approve_in_s: int | None
    """How long an operator still has; negative when it is too late. None: no approval is needed any more."""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it, reorganisations aside."""
        return self.status in ENDED

    @property
    def waits_for_approval(self) -> bool:
        """Whether an operator must approve it first."""
        return self.status is WithdrawalStatus.QUEUED and self.approval == "needed"

    @property
    def approval_is_late(self) -> bool:
        """Whether its time is over."""
        return self.waits_for_approval and self.approve_in_s is not None and self.approve_in_s <= 0


_AS_GIVEN = tuple(
    each.name for each in fields(NewWithdrawal) if each.name not in {"needs_approval", "approval_hours", "paid_sat"}
)
_ADD = f"""
INSERT INTO bank.withdrawals({", ".join(_AS_GIVEN)}, paid_sat, miner_fee_sat, status, ended_at, approval, approve_until)
VALUES ({", ".join(f"${at}" for at in range(1, len(_AS_GIVEN) + 1))}, ${len(_AS_GIVEN) + 1}::bigint,
        CASE WHEN ${len(_AS_GIVEN) + 1}::bigint IS NOT NULL THEN 0 END,
        CASE WHEN ${len(_AS_GIVEN) + 1}::bigint IS NOT NULL THEN 'confirmed' ELSE 'queued' END,
        CASE WHEN ${len(_AS_GIVEN) + 1}::bigint IS NOT NULL THEN clock_timestamp() END,
        CASE WHEN ${len(_AS_GIVEN) + 2}::boolean THEN 'needed' END,
        CASE WHEN ${len(_AS_GIVEN) + 2}::boolean
             THEN clock_timestamp() + make_interval(hours => ${len(_AS_GIVEN) + 3}::int) END)"""  # noqa: S608 - constant

_READ = """
SELECT w.id, w.held_msat, w.service_fee_msat, w.fee_version, w.fee_level, w.workflow_id, w.memo, w.account_id,
       w.wallet_id, o.ledger_account_id, a.status AS account_status, w.amount_sat, w.fee_from, w.speed, w.status,
       w.approval, w.on_hold, w.waits_for, w.failure_code, w.payout_id,
       (SELECT v.txid FROM bank.payout_versions v JOIN bank.payouts p ON p.id = v.payout_id
         WHERE v.payout_id = w.payout_id AND v.broadcast_at IS NOT NULL
         ORDER BY v.number = p.confirmed_version DESC NULLS LAST, v.number DESC LIMIT 1) AS txid,
       CASE WHEN w.status = 'queued' AND w.approval = 'needed'
            THEN ceil(extract(epoch FROM w.approve_until - clock_timestamp()))::int END AS approve_in_s
  FROM bank.withdrawals w JOIN bank.wallets o ON o.id = w.wallet_id JOIN bank.accounts a ON a.id = w.account_id
 WHERE w.id = $1"""


async def add_in_tx(conn: Connection, new: NewWithdrawal) -> None:
    """Write the row: queued; or ended, when a user of ours was paid. Its key says that it is new."""
    await change_one(
        conn,
        _ADD,
        *(getattr(new, name) for name in _AS_GIVEN),
        new.paid_sat,
        new.needs_approval,
        new.approval_hours,
    )


async def get_row_in_tx(conn: Connection, withdrawal: WithdrawalId) -> WithdrawalRow:
    """The row, locked until the transaction ends. Raises InvariantBroken when there is none."""
    with translated():
        row = await conn.fetchrow(f"{_READ} FOR UPDATE OF w", withdrawal)
    if row is None:
        raise InvariantBroken(f"there is no withdrawal {withdrawal}")
    return _read(dict(row))


async def find_row(conn: Reader, withdrawal: WithdrawalId) -> WithdrawalRow | None:
    """The row, as it is now. Nothing is locked."""
    with translated():
        row = await conn.fetchrow(_READ, withdrawal)
    return None if row is None else _read(dict(row))


async def end_queued_in_tx(
    conn: Connection,
    withdrawal: WithdrawalId,
    status: WithdrawalStatus,
    *,
    code: str | None = None,
    detail: str | None = None,
) -> None:
    """End one that has no place in a payout: cancelled, or failed with a code. Raises InvariantBroken for another."""
    await change_one(
        conn,
        """UPDATE bank.withdrawals SET status = $2, failure_code = $3, failure_detail = $4, waits_for = NULL,
                  on_hold = false, ended_at = clock_timestamp() WHERE id = $1 AND status = 'queued'""",
        withdrawal,
        status,
        code,
        detail,
    )


async def approve_in_tx(conn: Connection, withdrawal: WithdrawalId) -> None:
    """An operator has approved it. Raises InvariantBroken unless it waits for that, and its time is not over."""
    await change_one(
        conn,
        """UPDATE bank.withdrawals SET approval = 'given'
            WHERE id = $1 AND status = 'queued' AND approval = 'needed' AND approve_until > clock_timestamp()""",
        withdrawal,
    )


async def set_hold_in_tx(conn: Connection, withdrawal: WithdrawalId, *, on_hold: bool) -> None:
    """No batcher takes it while it is on hold. Raises InvariantBroken unless that is a change, and it is queued."""
    await change_one(
        conn,
        "UPDATE bank.withdrawals SET on_hold = $2 WHERE id = $1 AND status = 'queued' AND on_hold <> $2",
        withdrawal,
        on_hold,
    )


def _read(row: Mapping[str, Any]) -> WithdrawalRow:
    typed = {"status": WithdrawalStatus(row["status"]), "speed": Speed(row["speed"])}
    return WithdrawalRow(**{**row, **typed})
