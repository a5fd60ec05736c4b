"""The members of a payout: read for its story and its posting, and moved on together when it is sent or confirmed."""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.domain.ids import AccountId, PayoutId, WalletId, WithdrawalId
from engine.domain.money import Sat
from engine.domain.withdrawal.held import Held
from engine.domain.withdrawal.withdrawal import FeeFrom, WithdrawalStatus
from engine.ledger.database import Connection, Reader, change_any, change_rows, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow(Held):
    """A withdrawal with its place in a payout."""

    account_id: AccountId
    wallet_id: WalletId
    ledger_account_id: int
    status: WithdrawalStatus
    address: str
    script: bytes
    fee_from: FeeFrom
    unlinked: bool
    place: int
    vout: int | None
    paid_sat: Sat
    miner_fee_sat: Sat

    @property
    def takes_all(self) -> bool:
        """Whether the fees come out of the amount, so that nothing of the hold is left."""
        return self.fee_from == "amount"


async def list_members(conn: Reader, payout: PayoutId) -> list[MemberRow]:
    """In the order of their places. Their places and amounts never change once the payout is signed."""
    with translated():
        rows = await conn.fetch(
            """SELECT w.id, w.held_msat, w.service_fee_msat, w.fee_version, w.fee_level, w.workflow_id, w.memo,
                      w.account_id, w.wallet_id, o.ledger_account_id, w.status, w.address, w.script, w.fee_from,
                      w.unlinked, w.place, w.vout, w.paid_sat, w.miner_fee_sat
                 FROM bank.withdrawals w JOIN bank.wallets o ON o.id = w.wallet_id
                WHERE w.payout_id = $1 ORDER BY w.place""",
            payout,
        )
    return [MemberRow(**{**row, "status": WithdrawalStatus(row["status"])}) for row in rows]


async def set_vouts_in_tx(conn: Connection, payout: PayoutId, vouts: Mapping[WithdrawalId, int]) -> None:
    """Write which output of the version in force pays each. Versions may differ in where their change stands."""
    await change_rows(
        conn,
        len(vouts),
        """UPDATE bank.withdrawals w SET vout = v.vout FROM unnest($2::text[], $3::int[]) AS v(id, vout)
            WHERE w.id = v.id AND w.payout_id = $1""",
        payout,
        list(vouts),
        list(vouts.values()),
    )


async def mark_broadcast_in_tx(conn: Connection, payout: PayoutId, count: int) -> None:
    """The payout was sent and booked: so are its `count` members. Raises InvariantBroken for another number."""
    await change_rows(
        conn,
        count,
        """UPDATE bank.withdrawals SET status = 'broadcast', broadcast_at = clock_timestamp()
            WHERE payout_id = $1 AND status = 'batched'""",
        payout,
    )


async def mark_confirmed_in_tx(conn: Connection, payout: PayoutId) -> None:
    """A block has the payout. A repeat changes nothing."""
    await change_any(
        conn,
        """UPDATE bank.withdrawals SET status = 'confirmed', ended_at = clock_timestamp()
            WHERE payout_id = $1 AND status = 'broadcast'""",
        payout,
    )


async def mark_unconfirmed_in_tx(conn: Connection, payout: PayoutId) -> None:
    """A reorganisation has taken the payout out of its block. A repeat changes nothing."""
    await change_any(
        conn,
        """UPDATE bank.withdrawals SET status = 'broadcast', ended_at = NULL
            WHERE payout_id = $1 AND status = 'confirmed'""",
        payout,
    )
