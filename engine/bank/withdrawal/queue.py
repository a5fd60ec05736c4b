"""The queue of a batcher: who waits for a place in a payout, and the step from the queue into one.

The row decides, under its lock, whether it is cancelled or sealed. Whoever comes second finds the other's result. A
withdrawal gets a place only once: it leaves the queue for good, unless its payout is dissolved before anything of it
was signed (`give_back_in_tx`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.domain.ids import AccountId, PayoutId, WithdrawalId
from engine.domain.money import Msat, Sat
from engine.domain.withdrawal.withdrawal import FeeFrom, Speed
from engine.ledger.database import Connection, Reader, change_any, change_rows, translated

LONGEST_NOTE = 500

_MAY_GO = "w.status = 'queued' AND w.approval IS DISTINCT FROM 'needed' AND NOT w.on_hold"
_OF_ACTIVE = "EXISTS (SELECT FROM bank.accounts a WHERE a.id = w.account_id AND a.status = 'active')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """One that may go now, with all that a plan needs."""

    id: WithdrawalId
    account_id: AccountId
    script: bytes
    amount_sat: Sat
    fee_from: FeeFrom
    max_fee_sat: Sat
    service_fee_msat: Msat
    held_msat: Msat
    alone: bool
    unlinked: bool
    created_at: datetime
    waited_s: int
    waits_for: str | None
    workflow_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A member's place in its payout, what its payee receives, and its share of the miner fee."""

    id: WithdrawalId
    place: int
    vout: int
    paid_sat: Sat
    miner_fee_sat: Sat


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLook:
    """How many may go now, and how long the first of them has waited."""

    count: int
    waited_s: int


async def look(conn: Reader, speed: Speed) -> QueueLook:
    """The queue of this speed. Left out: who waits for an approval, is on hold, or belongs to a locked account."""
    with translated():
        row = await conn.fetchrow(
            f"""SELECT count(*) AS count,
                       coalesce(extract(epoch FROM clock_timestamp() - min(w.created_at)), 0)::int AS waited_s
                  FROM bank.withdrawals w WHERE w.speed = $1 AND {_MAY_GO} AND {_OF_ACTIVE}""",  # noqa: S608 - constant
            speed,
        )
    return QueueLook(count=row["count"], waited_s=row["waited_s"]) if row else QueueLook(count=0, waited_s=0)


async def find_first_note(conn: Reader, speed: Speed) -> str | None:
    """Why the oldest one that may go was left out at the last look. None: it was not, or nobody waits."""
    with translated():
        note: str | None = await conn.fetchval(
            f"""SELECT w.waits_for FROM bank.withdrawals w WHERE w.speed = $1 AND {_MAY_GO} AND {_OF_ACTIVE}
                 ORDER BY w.created_at, w.id LIMIT 1""",  # noqa: S608 - constant
            speed,
        )
    return note


async def list_left_out(conn: Reader) -> list[Speed]:
    """The speeds whose queue has somebody who may go, and who was left out at the last look."""
    with translated():
        rows = await conn.fetch(
            f"""SELECT DISTINCT w.speed FROM bank.withdrawals w
                 WHERE w.waits_for IS NOT NULL AND {_MAY_GO} AND {_OF_ACTIVE} ORDER BY w.speed"""  # noqa: S608 - constant
        )
    return [Speed(row["speed"]) for row in rows]


async def list_queued_in_tx(conn: Connection, speed: Speed, *, limit: int) -> list[Queued]:
    """Those that may go now, the oldest first, locked until the transaction ends.

    Rows are locked in the order of their ids. One that was cancelled or held while the call waited is left out.
    """
    with translated():
        rows = await conn.fetch(
            f"""SELECT w.id, w.account_id, w.script, w.amount_sat, w.fee_from, w.max_fee_sat, w.service_fee_msat,
                       w.held_msat, w.alone, w.unlinked, w.created_at, w.waits_for, w.workflow_id,
                       extract(epoch FROM clock_timestamp() - w.created_at)::int AS waited_s
                  FROM bank.withdrawals w
                 WHERE w.id IN (SELECT w.id FROM bank.withdrawals w
                                 WHERE w.speed = $1 AND {_MAY_GO} AND {_OF_ACTIVE}
                                 ORDER BY w.created_at, w.id LIMIT $2)
                   AND {_MAY_GO} ORDER BY w.id FOR UPDATE OF w""",  # noqa: S608 - constant
            speed,
            limit,
        )
    return sorted((Queued(**row) for row in rows), key=lambda each: (each.created_at, each.id))


async def seal_in_tx(conn: Connection, payout: PayoutId, seals: Sequence[Seal]) -> None:
    """Give each its place in the payout. Raises InvariantBroken, and seals none, unless all of them may still go."""
    await change_rows(
        conn,
        len(seals),
        f"""UPDATE bank.withdrawals w SET status = 'batched', payout_id = $1, place = s.place, vout = s.vout,
                   paid_sat = s.paid_sat, miner_fee_sat = s.miner_fee_sat, waits_for = NULL,
                   sealed_at = clock_timestamp()
              FROM unnest($2::text[], $3::int[], $4::int[], $5::bigint[], $6::bigint[])
                   AS s(id, place, vout, paid_sat, miner_fee_sat)
             WHERE w.id = s.id AND {_MAY_GO}""",  # noqa: S608 - constant
        payout,
        [each.id for each in seals],
        [each.place for each in seals],
        [each.vout for each in seals],
        [each.paid_sat for each in seals],
        [each.miner_fee_sat for each in seals],
    )


async def give_back_in_tx(conn: Connection, payout: PayoutId) -> list[WithdrawalId]:
    """Put the members of a payout back into the queue, where they keep their age. Returns who they are.

    Only for a payout of which nothing is signed, whose row the caller has locked: the statement changes none otherwise.
    """
    with translated():
        rows = await conn.fetch(
            """UPDATE bank.withdrawals w SET status = 'queued', payout_id = NULL, place = NULL, vout = NULL,
                      paid_sat = NULL, miner_fee_sat = NULL, sealed_at = NULL
                WHERE w.payout_id = $1 AND w.status = 'batched'
                  AND EXISTS (SELECT FROM bank.payouts p WHERE p.id = $1 AND p.status = 'planned'
                                 AND NOT EXISTS (SELECT FROM bank.payout_versions v
                                                  WHERE v.payout_id = p.id AND v.raw IS NOT NULL))
               RETURNING w.id""",
            payout,
        )
    return [WithdrawalId(row["id"]) for row in rows]


async def note_waits_in_tx(conn: Connection, waits: Mapping[WithdrawalId, str]) -> None:
    """Write down why each was left out, for people. One that has left the queue meanwhile stays as it is."""
    noted = {each: why[:LONGEST_NOTE] for each, why in sorted(waits.items())}
    await change_any(
        conn,
        """UPDATE bank.withdrawals w SET waits_for = n.why FROM unnest($1::text[], $2::text[]) AS n(id, why)
            WHERE w.id = n.id AND w.status = 'queued' AND w.waits_for IS DISTINCT FROM n.why""",
        list(noted),
        list(noted.values()),
    )


async def list_accounts(conn: Reader, withdrawals: Collection[WithdrawalId]) -> set[AccountId]:
    """Whose these are."""
    with translated():
        rows = await conn.fetch(
            "SELECT DISTINCT account_id FROM bank.withdrawals WHERE id = ANY($1)", sorted(withdrawals)
        )
    return {AccountId(row["account_id"]) for row in rows}
