"""The row of a payout. Whoever takes its next step locks it first, and writes it in the transaction of the step.

    planned  →  signed  →  broadcast  →  confirmed  →  final
       ↓                       ↑______________|           a reorganisation takes it out of its block
    dissolved

Each function takes one of these steps, or changes what stands beside it. Raises InvariantBroken for another row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from engine.domain.errors import InvariantBroken
from engine.domain.ids import PayoutId
from engine.domain.money import Sat
from engine.domain.withdrawal.withdrawal import PayoutKind, PayoutStatus, Speed
from engine.ledger.database import Connection, Reader, change_any, change_one, translated

_PROBLEM_CHARACTERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayout:
    """A row when it is written: planned."""

    id: PayoutId
    wallet: str
    kind: PayoutKind
    speed: Speed
    workflow_id: str
    alone: bool = False
    unlinked: bool = False
    parent_id: PayoutId | None = None
    estimate: Mapping[str, Any]
    """Rate, source and time of the estimate that it was planned with: for operators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutRow(NewPayout):
    """A row as it is read."""

    status: PayoutStatus
    on_hold: bool
    problem: str | None
    fee_booked_sat: Sat
    bookings: int
    booked_ref: str | None
    bump_to_sat_kvb: int | None
    confirmed_version: int | None
    block_height: int | None
    created_at: datetime
    broadcast_at: datetime | None
    confirmed_at: datetime | None
    now: datetime
    """The database's clock when the row was read."""


_NEW = tuple(each.name for each in fields(NewPayout))
_COLUMNS = ", ".join([each.name for each in fields(PayoutRow) if each.name != "now"])
_READ = f"SELECT {_COLUMNS}, clock_timestamp() AS now FROM bank.payouts"  # noqa: S608 - constant
_ALIVE = "status NOT IN ('final', 'dissolved')"


async def add_in_tx(conn: Connection, new: NewPayout) -> None:
    """Write the row. Its first version, inputs, reservations and members follow in the same transaction."""
    values = {name: getattr(new, name) for name in _NEW}
    await change_one(
        conn,
        f"""INSERT INTO bank.payouts({", ".join(_NEW)})
            VALUES ({", ".join(f"${at}" for at in range(1, len(_NEW) + 1))})""",  # noqa: S608 - constant
        *({**values, "estimate": dict(new.estimate)}).values(),
    )


async def get_row_in_tx(conn: Connection, payout: PayoutId) -> PayoutRow:
    """The row, locked until the transaction ends. Raises InvariantBroken when there is none."""
    with translated():
        row = await conn.fetchrow(f"{_READ} WHERE id = $1 FOR UPDATE", payout)
    if row is None:
        raise InvariantBroken(f"there is no payout {payout}")
    return _read(dict(row))


async def lock_in_tx(conn: Connection, payout: PayoutId) -> None:
    """Take the steps of this payout alone until the transaction ends. Raises InvariantBroken when there is none."""
    await change_one(conn, "UPDATE bank.payouts SET status = status WHERE id = $1", payout)


async def find_row(conn: Reader, payout: PayoutId) -> PayoutRow | None:
    """The row, as it is now. Nothing is locked."""
    with translated():
        row = await conn.fetchrow(f"{_READ} WHERE id = $1", payout)
    return None if row is None else _read(dict(row))


async def list_alive(conn: Reader, wallet: str, *, limit: int) -> list[PayoutRow]:
    """Payouts of this wallet that are neither final nor dissolved, the oldest first."""
    with translated():
        rows = await conn.fetch(
            f"{_READ} WHERE wallet = $1 AND {_ALIVE} ORDER BY created_at, id LIMIT $2", wallet, limit
        )
    return [_read(dict(row)) for row in rows]


async def find_consolidation(conn: Reader, wallet: str) -> PayoutId | None:
    """The consolidation of this wallet that is in no block yet. None: there is none."""
    with translated():
        found: str | None = await conn.fetchval(
            """SELECT id FROM bank.payouts WHERE wallet = $1 AND kind = 'consolidation'
                  AND status IN ('planned', 'signed', 'broadcast') LIMIT 1""",
            wallet,
        )
    return None if found is None else PayoutId(found)


async def list_children(conn: Reader, payout: PayoutId) -> list[PayoutRow]:
    """Payouts that were made to pull this one into a block, the oldest first."""
    with translated():
        rows = await conn.fetch(f"{_READ} WHERE parent_id = $1 ORDER BY created_at, id", payout)
    return [_read(dict(row)) for row in rows]


async def mark_signed_in_tx(conn: Connection, payout: PayoutId) -> None:
    """Its bytes are stored, and may be known to anybody from now on."""
    await change_one(conn, "UPDATE bank.payouts SET status = 'signed' WHERE id = $1 AND status = 'planned'", payout)


async def mark_dissolved_in_tx(conn: Connection, payout: PayoutId, *, coins_gone: bool = True) -> None:
    """Nothing of it was ever signed, and nothing will be. Its members go back into the queue beside this call.

    `coins_gone`: a coin of it was spent by hand, so all of them are left alone until the pump has surely seen it.
    """
    await change_one(
        conn,
        """UPDATE bank.payouts p SET status = 'dissolved', problem = NULL, on_hold = false, coins_gone = $2
            WHERE id = $1 AND status = 'planned'
              AND NOT EXISTS (SELECT FROM bank.payout_versions v WHERE v.payout_id = p.id AND v.raw IS NOT NULL)""",
        payout,
        coins_gone,
    )


async def mark_broadcast_in_tx(conn: Connection, payout: PayoutId, *, ref: str, fee_sat: Sat) -> None:
    """The network has it, and the posting `ref` has booked it with this miner fee."""
    await change_one(
        conn,
        """UPDATE bank.payouts SET status = 'broadcast', booked_ref = $2, fee_booked_sat = $3, problem = NULL,
                  broadcast_at = clock_timestamp() WHERE id = $1 AND status = 'signed'""",
        payout,
        ref,
        fee_sat,
    )


async def book_fee_in_tx(conn: Connection, payout: PayoutId, *, number: int, fee_sat: Sat) -> None:
    """The posting with this number has booked that its miner fee is another one now."""
    await change_one(
        conn,
        """UPDATE bank.payouts SET fee_booked_sat = $3, bookings = $2
            WHERE id = $1 AND bookings = $2 - 1 AND booked_ref IS NOT NULL""",
        payout,
        number,
        fee_sat,
    )


async def mark_confirmed_in_tx(conn: Connection, payout: PayoutId, *, version: int, block_height: int) -> None:
    """This version is in a block at this height; after a reorganisation perhaps at another one."""
    await change_one(
        conn,
        """UPDATE bank.payouts SET status = 'confirmed', confirmed_version = $2, block_height = $3, problem = NULL,
                  bump_to_sat_kvb = NULL, confirmed_at = clock_timestamp()
            WHERE id = $1 AND status IN ('broadcast', 'confirmed')""",
        payout,
        version,
        block_height,
    )


async def mark_unconfirmed_in_tx(conn: Connection, payout: PayoutId) -> None:
    """A reorganisation has taken it out of its block."""
    await change_one(
        conn,
        """UPDATE bank.payouts SET status = 'broadcast', confirmed_version = NULL, block_height = NULL,
                  confirmed_at = NULL WHERE id = $1 AND status = 'confirmed'""",
        payout,
    )


async def mark_final_in_tx(conn: Connection, payout: PayoutId) -> None:
    """It lies so deep that it is left alone. Its coins are released beside this call."""
    await change_one(
        conn,
        """UPDATE bank.payouts SET status = 'final', final_at = clock_timestamp(), on_hold = false, problem = NULL
            WHERE id = $1 AND status = 'confirmed'""",
        payout,
    )


async def mark_dead_in_tx(conn: Connection, payout: PayoutId) -> None:
    """It can never be confirmed, and the books have taken its fee back beside this call. It has no members."""
    await change_one(
        conn,
        """UPDATE bank.payouts SET status = 'dissolved', problem = NULL, on_hold = false, fee_booked_sat = 0,
                  bookings = bookings + CASE WHEN fee_booked_sat > 0 THEN 1 ELSE 0 END
            WHERE id = $1 AND kind <> 'batch' AND status IN ('planned', 'signed', 'broadcast')""",
        payout,
    )


async def note_problem_in_tx(conn: Connection, payout: PayoutId, problem: str | None) -> None:
    """Why it does not go on, for operators; None: it does. The words must be harmless (`engine/domain/outside.py`)."""
    await change_any(
        conn,
        "UPDATE bank.payouts SET problem = $2 WHERE id = $1 AND problem IS DISTINCT FROM $2",
        payout,
        None if problem is None else problem[:_PROBLEM_CHARACTERS],
    )


async def set_hold_in_tx(conn: Connection, payout: PayoutId, *, on_hold: bool) -> None:
    """While it is on hold nothing new of it is signed or sent. Only a change of a living one counts."""
    await change_one(
        conn,
        f"UPDATE bank.payouts SET on_hold = $2 WHERE id = $1 AND on_hold <> $2 AND {_ALIVE}",  # noqa: S608 - constant
        payout,
        on_hold,
    )


async def set_bump_in_tx(conn: Connection, payout: PayoutId, rate_sat_kvb: int | None) -> None:
    """An operator wants its next version to pay this rate; None: that is done."""
    await change_one(
        conn,
        "UPDATE bank.payouts SET bump_to_sat_kvb = $2 WHERE id = $1 AND status IN ('signed', 'broadcast')",
        payout,
        rate_sat_kvb,
    )


def _read(row: Mapping[str, Any]) -> PayoutRow:
    typed = {
        "status": PayoutStatus(row["status"]),
        "kind": PayoutKind(row["kind"]),
        "speed": Speed(row["speed"]),
    }
    return PayoutRow(**{**row, **typed})
